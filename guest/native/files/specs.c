/* The head of a write: which files follow. */

#include "specs.h"
#include "json.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_MODE = 07777 };

static bool fail_form(struct failure *failure) { return fail(failure, EINVAL, "the head has the wrong form"); }

static bool number_in(const struct json *value, int64_t most, int64_t *into) {
  return json_integer(value, into) && *into >= 0 && *into <= most;
}

static bool is_absolute(const void *path, size_t size) {
  return size > 0 && *(const char *)path == '/' && memchr(path, 0, size) == NULL;
}

/* A path that is not UTF-8, from base64, takes the place of the other one. */
static bool parse_raw(const struct json *raw, struct spec *spec, struct failure *failure) {
  if (!json_is(raw, JSON_STRING)) return true;
  struct bytes path = {0};
  bytes_from_base64(&path, raw->text, raw->size);
  if (!is_absolute(path.data, path.size)) {
    bytes_free(&path);
    return fail(failure, EINVAL, "raw");
  }
  free(spec->path);
  spec->path = bytes_string(&path);
  return true;
}

static bool parse_mode(const struct json *mode, struct spec *spec) {
  int64_t bits = -1;
  bool has_mode = mode != NULL && !json_is(mode, JSON_NULL);
  if (has_mode && !number_in(mode, MOST_MODE, &bits)) return false;
  spec->mode = (int)bits;
  return true;
}

static bool parse_append(const struct json *append, struct spec *spec) {
  spec->append = json_is(append, JSON_TRUE);
  return append == NULL || spec->append || json_is(append, JSON_FALSE);
}

static bool parse_spec(const struct json *file, struct spec *spec, struct failure *failure) {
  const struct json *path = json_get(file, "path");
  if (!json_is(path, JSON_STRING) || !is_absolute(path->text, path->size)) return fail_form(failure);
  if (!number_in(json_get(file, "size"), INT64_MAX, &spec->size)) return fail_form(failure);
  if (!parse_append(json_get(file, "append"), spec)) return fail_form(failure);
  if (!parse_mode(json_get(file, "mode"), spec)) return fail_form(failure);
  spec->path = copy_bytes(path->text, path->size);
  return parse_raw(json_get(file, "raw"), spec, failure);
}

static bool parse_files(const struct json *files, struct specs *specs, struct failure *failure) {
  if (!json_is(files, JSON_ARRAY)) return fail_form(failure);
  specs->items = memory(files->count * sizeof *specs->items);
  for (size_t at = 0; at < files->count; at++) {
    specs->count = at + 1; /* also one that is wrong may have a path to be freed */
    if (!parse_spec(&files->items[at], &specs->items[at], failure)) return false;
  }
  return true;
}

bool specs_parse(const struct bytes *head, struct specs *specs, struct failure *failure) {
  struct json *value = json_parse(head->data, head->size);
  if (value == NULL) return fail_form(failure);
  bool is_parsed = parse_files(json_get(value, "files"), specs, failure);
  json_free(value);
  return is_parsed;
}

bool specs_append(const struct specs *specs) {
  for (size_t at = 0; at < specs->count; at++)
    if (specs->items[at].append) return true;
  return false;
}

void specs_free(struct specs *specs) {
  for (size_t at = 0; at < specs->count; at++) free(specs->items[at].path);
  free(specs->items);
  *specs = (struct specs){0};
}
