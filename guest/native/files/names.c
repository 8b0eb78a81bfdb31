/* Paths of any bytes, identifiers, and failures of calls on files. */

#include "names.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

char *above(const char *path) {
  const char *slash = strrchr(path, '/');
  if (slash == NULL || slash == path) return copy_text("/");
  return copy_bytes(path, (size_t)(slash - path));
}

const char *name_of(const char *path) {
  const char *slash = strrchr(path, '/');
  return slash == NULL ? path : slash + 1;
}

char *inside(const char *directory, const char *name) {
  size_t size = strlen(directory);
  bool has_slash = size > 0 && directory[size - 1] == '/';
  return format_text("%s%s%s", directory, has_slash ? "" : "/", name);
}

bool starts_with(const char *path, const char *text) { return strncmp(path, text, strlen(text)) == 0; }

bool fail_call(struct failure *failure, int error, const char *call, const char *path) {
  char text[128];
  snprintf(text, sizeof text, "%s", strerrordesc_np(error) != NULL ? strerrordesc_np(error) : "unknown error");
  if (text[0] >= 'A' && text[0] <= 'Z') text[0] = (char)(text[0] - 'A' + 'a');
  if (path == NULL) return fail(failure, error, "%s: %s, %s", error_name(error), text, call);
  fail(failure, error, "%s: %s, %s '%s'", error_name(error), text, call, path);
  failure->path = copy_text(path);
  return false;
}

bool fail_not_regular(struct failure *failure, const char *path) {
  fail_status(failure, EINVAL, 409, "not a regular file");
  failure->path = copy_text(path);
  return false;
}

bool fail_no_place(struct failure *failure, const char *path) {
  fail(failure, EPERM, "no file can be made here");
  failure->path = copy_text(path);
  return false;
}
