/* Making directories, moving, and what a path is. */

#include "moves.h"
#include "asked.h"
#include "json.h"
#include "names.h"
#include "places.h"
#include "remove.h"
#include "walk.h"
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST_MODE = 07777 };

bool make_directory(const char *path, bool *created, struct failure *failure) {
  struct made made = {0};
  struct stat stats;
  bool is_made = make_parents(path, &made, failure);
  if (is_made && stat(path, &stats) < 0) is_made = fail_call(failure, errno, "stat", path);
  else if (is_made && !S_ISDIR(stats.st_mode)) is_made = fail_at(failure, EEXIST, path);
  *created = made.count > 0;
  if (is_made) made_forget(&made);
  else unmake(&made);
  return is_made;
}

/* Whether the failure of a move concerns its target. */
static bool is_of_target(int error) {
  return error == EEXIST || error == ENOTEMPTY || error == EISDIR || error == ENOTDIR;
}

/* Returns an errno, or 0. */
static int rename_path(const char *from, const char *to, bool overwrite) {
  struct stat stats;
  if (!overwrite && renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0) return 0;
  if (!overwrite && lstat(to, &stats) == 0) return EEXIST;
  if (!overwrite && errno != ENOENT) return errno;
  return rename(from, to) == 0 ? 0 : errno;
}

static bool may_move(const char *from, struct failure *failure) {
  struct stat stats;
  if (lstat(from, &stats) < 0) return fail_call(failure, errno, "lstat", from);
  int held = S_ISDIR(stats.st_mode) ? holds(from, &stats, settings.workspace) : 0;
  if (held < 0) return fail_call(failure, errno, "stat", settings.workspace);
  return held == 0 || fail_at(failure, EBUSY, from);
}

bool move_path(const char *from, const char *to, bool overwrite, struct failure *failure) {
  if (!may_move(from, failure)) return false;
  struct made made = {0};
  char *directory = above(to);
  int error;
  if (make_parents(directory, &made, failure)) {
    error = rename_path(from, to, overwrite);
  } else {
    error = failure->error;
    failure_free(failure);
  }
  free(directory);
  if (error == 0) return made_forget(&made), true;
  unmake(&made);
  return fail_at(failure, error, is_of_target(error) ? to : from);
}

static bool put_target(const char *path, struct bytes *into, struct failure *failure) {
  char target[PATH_MAX];
  ssize_t size = readlink(path, target, sizeof target);
  if (size < 0) return fail_call(failure, errno, "readlink", path);
  bytes_text(into, ",\"target\":\"");
  bytes_base64(into, target, (size_t)size);
  bytes_byte(into, '"');
  return true;
}

bool put_status(const char *path, struct bytes *into, struct failure *failure) {
  struct stat stats;
  if (lstat(path, &stats) < 0) return fail_call(failure, errno, "lstat", path);
  enum kind kind = kind_of_mode(stats.st_mode);
  bytes_format(into, "{\"type\":\"%s\",\"size\":", kind_name(kind));
  json_put_number(into, (double)stats.st_size);
  bytes_text(into, ",\"modified\":");
  json_put_number(into, (double)stats.st_mtim.tv_sec);
  bytes_format(into, ",\"mode\":%u", (unsigned)stats.st_mode & MOST_MODE);
  if (kind == KIND_SYMLINK && !put_target(path, into, failure)) return false;
  bytes_byte(into, '}');
  return true;
}
