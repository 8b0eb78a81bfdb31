/* Where a write goes: through links, with the directories that it needs, and beside its target under a hidden name. */

#include "places.h"
#include "hidden.h"
#include "names.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  MOST_LINKS = 40, /* that are followed, like in the kernel */
  NEW_FILE = 0644,
  NEW_DIRECTORY = 0755,
  NEW_HIDDEN = 0600,
};

static void note(struct made *made, char *path) {
  if (made->count == made->room) {
    made->room = made->room > 0 ? made->room * 2 : 8;
    made->paths = more_memory(made->paths, made->room * sizeof *made->paths);
  }
  made->paths[made->count++] = path;
}

void made_forget(struct made *made) {
  while (made->count > 0) free(made->paths[--made->count]);
  free(made->paths);
  *made = (struct made){0};
}

void unmake(struct made *made) {
  for (size_t at = made->count; at > 0; at--) rmdir(made->paths[at - 1]);
  made_forget(made);
}

static bool is_directory(const char *path) {
  struct stat stats;
  return stat(path, &stats) == 0 && S_ISDIR(stats.st_mode);
}

/* Notes the directory and its parents as far as they are missing, the innermost first. */
static bool find_missing(const char *directory, struct made *missing, struct failure *failure) {
  char *at = copy_text(directory);
  for (struct stat stats; stat(at, &stats) < 0;) {
    if (errno != ENOENT || strcmp(at, "/") == 0) {
      fail_call(failure, errno, "stat", at);
      free(at);
      return false;
    }
    note(missing, at);
    at = above(at);
  }
  free(at);
  return true;
}

bool make_parents(const char *directory, struct made *made, struct failure *failure) {
  struct made missing = {0};
  bool is_made = find_missing(directory, &missing, failure);
  for (size_t at = missing.count; is_made && at > 0; at--) {
    const char *each = missing.paths[at - 1];
    if (mkdir(each, NEW_DIRECTORY) == 0) {
      note(made, copy_text(each));
      continue;
    }
    int error = errno;
    /* Another process may have made the directory just now. */
    if (error != EEXIST || !is_directory(each)) is_made = fail_call(failure, error, "mkdir", each);
  }
  made_forget(&missing);
  return is_made;
}

/* Where the link leads, or NULL with errno. */
static char *read_link(const char *at) {
  char to[PATH_MAX];
  ssize_t size = readlink(at, to, sizeof to);
  if (size < 0) return NULL;
  if (size > 0 && to[0] == '/') return copy_bytes(to, (size_t)size);
  char *name = copy_bytes(to, (size_t)size), *directory = above(at), *whole = inside(directory, name);
  free(name);
  free(directory);
  return whole;
}

/* Nothing more is to be followed. */
static bool locate_end(const char *at, const char *path, struct place *place, struct failure *failure) {
  *place = (struct place){0};
  place->has_before = lstat(at, &place->before) == 0;
  if (!place->has_before && errno != ENOENT) return fail_call(failure, errno, "lstat", at);
  if (place->has_before && S_ISDIR(place->before.st_mode)) return fail_at(failure, EISDIR, path);
  if (place->has_before && !S_ISREG(place->before.st_mode)) return fail_not_regular(failure, path);
  char *directory = above(at), *real = realpath(directory, NULL);
  if (real == NULL) fail_call(failure, errno, "realpath", directory);
  else place->target = inside(real, name_of(at));
  free(directory);
  free(real);
  return place->target != NULL;
}

static bool make_above(const char *at, struct made *made, struct failure *failure) {
  char *directory = above(at);
  bool is_made = make_parents(directory, made, failure);
  free(directory);
  return is_made;
}

bool locate(const char *path, struct made *made, struct place *place, struct failure *failure) {
  char *at = copy_text(path);
  for (int links = 0; links <= MOST_LINKS; links++) {
    if (!make_above(at, made, failure)) return free(at), false;
    char *to = read_link(at);
    if (to == NULL) {
      int error = errno;
      bool is_located = error == EINVAL || error == ENOENT ? locate_end(at, path, place, failure)
                                                           : fail_call(failure, error, "readlink", at);
      free(at);
      return is_located;
    }
    free(at);
    at = to;
  }
  free(at);
  return fail_at(failure, ELOOP, path);
}

mode_t mode_of(const struct place *place) { return place->has_before ? place->before.st_mode & 07777 : NEW_FILE; }

char *hidden_beside(const char *target) {
  char *directory = above(target), *name = new_hidden_name(), *hidden = inside(directory, name);
  free(directory);
  free(name);
  return hidden;
}

void hidden_forget(char *hidden) {
  if (hidden == NULL) return;
  forget_hidden_name(name_of(hidden));
  free(hidden);
}

int open_hidden(const char *hidden, int flags, const char *path, struct failure *failure) {
  /* The session may have put something else in its place. */
  int fd = open(hidden, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, NEW_HIDDEN);
  if (fd >= 0) return fd;
  if (errno == ENOENT) fail_no_place(failure, path);
  else fail_call(failure, errno, "open", hidden);
  return -1;
}

bool keep_owner(int fd, const struct place *place, struct failure *failure) {
  struct stat stats;
  if (!place->has_before) return true;
  if (fstat(fd, &stats) < 0) return fail_call(failure, errno, "fstat", NULL);
  /* Only if needed: an owner outside the session's own range cannot be set. */
  if (stats.st_uid == place->before.st_uid && stats.st_gid == place->before.st_gid) return true;
  if (fchown(fd, place->before.st_uid, place->before.st_gid) == 0) return true;
  return fail_call(failure, errno, "fchown", NULL);
}

bool write_all(int fd, const uint8_t *bytes, size_t size, struct failure *failure) {
  while (size > 0) {
    ssize_t count = write(fd, bytes, size);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return fail_call(failure, count < 0 ? errno : EIO, "write", NULL);
    bytes += count;
    size -= (size_t)count;
  }
  return true;
}
