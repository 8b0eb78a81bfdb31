/* Deleting files and trees. */

#include "remove.h"
#include "loop.h"
#include "names.h"
#include "walk.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ATTEMPTS = 3 }; /* at a tree in which files keep appearing */

/* A directory that is being deleted. It frees itself when it has answered. */
struct removal {
  struct later later;
  struct asked *asked;
  char *path;
  bool recursive;
  int attempt;
  struct walk *walk; /* NULL between attempts */
  struct pace pace;
};

/* 1: they are the same; 0: they are not, or there is no `other`; -1: with errno. */
static int is_same(const char *other, const struct stat *stats) {
  struct stat found;
  if (stat(other, &found) < 0) return errno == ENOENT || errno == ENOTDIR || errno == ELOOP ? 0 : -1;
  return found.st_ino == stats->st_ino && found.st_dev == stats->st_dev;
}

static bool is_named_as_parent(const char *path, const char *workspace) {
  char *name = inside(path, ""), *below = format_text("%s/", workspace);
  bool is_parent = starts_with(below, name);
  free(name);
  free(below);
  return is_parent;
}

int holds(const char *path, const struct stat *stats, const char *workspace) {
  int same = is_same("/", stats);
  if (same == 0) same = is_same(workspace, stats);
  return same == 0 ? is_named_as_parent(path, workspace) : same;
}

static void finish(struct removal *removal, struct failure *failure) {
  walk_end(removal->walk);
  if (failure == NULL) answer_empty(removal->asked);
  else answer_failure(removal->asked, failure);
  free(removal->path);
  free(removal);
}

static bool remove_found(const struct found *found, struct failure *failure) {
  bool is_directory = found->kind == KIND_DIRECTORY;
  if ((is_directory ? rmdir(found->at) : unlink(found->at)) == 0 || errno == ENOENT) return true;
  return fail_call(failure, errno, is_directory ? "rmdir" : "unlink", found->at);
}

/* Deletes more of what is in the directory. WALK_FOUND: the turn is over. */
static enum walked empty_some(struct removal *removal, struct failure *failure) {
  for (struct found found;;) {
    enum walked walked = walk_next(removal->walk, &found, failure);
    if (walked != WALK_FOUND) return walked;
    if (!remove_found(&found, failure)) return WALK_FAILED;
    if (pace_is_due(&removal->pace)) return WALK_FOUND;
  }
}

/* After an attempt that failed: whether to make another one. */
static bool may_retry(struct removal *removal, struct failure *failure) {
  walk_end(removal->walk);
  removal->walk = NULL;
  if (failure->error != ENOTEMPTY || !removal->recursive || ++removal->attempt > ATTEMPTS) return false;
  failure_free(failure);
  return true;
}

static void work(struct later *later) {
  struct removal *removal = MEMBER(later, struct removal, later);
  struct failure failure;
  pace_rested(&removal->pace);
  do {
    enum walked walked = WALK_END;
    if (removal->recursive) {
      if (removal->walk == NULL) removal->walk = walk_begin_inside_first(removal->path);
      walked = empty_some(removal, &failure);
      if (walked == WALK_FOUND) return later_begin(&removal->later, work);
    }
    if (walked == WALK_FAILED) continue;
    if (rmdir(removal->path) == 0) return finish(removal, NULL);
    fail_call(&failure, errno, "rmdir", removal->path);
  } while (may_retry(removal, &failure));
  finish(removal, &failure);
}

static void remove_directory(struct asked *asked, const char *path, bool recursive) {
  struct removal *removal = memory(sizeof *removal);
  removal->asked = asked;
  removal->path = copy_text(path);
  removal->recursive = recursive;
  removal->attempt = 1;
  pace_begin(&removal->pace, 0);
  work(&removal->later);
}

void remove_path(struct asked *asked, const char *path, bool recursive) {
  struct failure failure;
  struct stat stats;
  if (lstat(path, &stats) < 0) {
    fail_call(&failure, errno, "lstat", path);
  } else if (!S_ISDIR(stats.st_mode)) {
    if (unlink(path) == 0) return answer_empty(asked);
    fail_call(&failure, errno, "unlink", path);
  } else {
    int held = holds(path, &stats, settings.workspace);
    if (held == 0) return remove_directory(asked, path, recursive);
    if (held < 0) fail_call(&failure, errno, "stat", settings.workspace);
    else fail(&failure, EBUSY, "the session itself needs it"), failure.path = copy_text(path);
  }
  answer_failure(asked, &failure);
}
