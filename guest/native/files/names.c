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

void random_bytes(void *into, size_t size) {
  for (size_t have = 0; have < size;) {
    ssize_t count = getrandom((uint8_t *)into + have, size - have, 0);
    if (count > 0) have += (size_t)count;
    else if (errno != EINTR) abort(); /* the kernel always has some */
  }
}

char *new_uuid(void) {
  uint8_t id[16];
  random_bytes(id, sizeof id);
  id[6] = (uint8_t)((id[6] & 0x0f) | 0x40);
  id[8] = (uint8_t)((id[8] & 0x3f) | 0x80);
  struct bytes text = {0};
  for (size_t at = 0; at < sizeof id; at++) {
    if (at == 4 || at == 6 || at == 8 || at == 10) bytes_byte(&text, '-');
    bytes_format(&text, "%02x", id[at]);
  }
  return bytes_string(&text);
}

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
