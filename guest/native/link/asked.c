/* A request as handlers see it: what it is, and its parameters. */

#include "streams.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define LARGEST_NUMBER 9007199254740991 /* JavaScript's Number.MAX_SAFE_INTEGER */

struct settings settings;

const char *asked_operation(const struct asked *asked) { return stream_of(asked)->operation; }

void *asked_self(struct asked *asked) { return stream_of(asked)->self; }

void asked_keep(struct asked *asked, void *self) { stream_of(asked)->self = self; }

bool asked_is_gone(const struct asked *asked) { return stream_of(asked)->has_left; }

void asked_on_gone(struct asked *asked, void (*gone)(struct asked *)) {
  struct stream *stream = stream_of(asked);
  if (stream->has_left && gone != NULL) gone(asked);
  else stream->gone = gone;
}

/* --- Parameters --- */

static int digit(uint8_t byte) {
  if (byte >= '0' && byte <= '9') return byte - '0';
  byte |= 0x20;
  return byte >= 'a' && byte <= 'f' ? byte - 'a' + 10 : -1;
}

/* The value as it was sent, decoded: + is a space, and %41 an A. */
static void decode(struct bytes *into, const char *value, size_t size) {
  for (size_t at = 0; at < size; at++) {
    uint8_t byte = (uint8_t)value[at];
    if (byte == '%' && at + 2 < size && digit((uint8_t)value[at + 1]) >= 0 && digit((uint8_t)value[at + 2]) >= 0) {
      byte = (uint8_t)(digit((uint8_t)value[at + 1]) << 4 | digit((uint8_t)value[at + 2]));
      at += 2;
    } else if (byte == '+') byte = ' ';
    bytes_byte(into, byte);
  }
}

/* Finds the first parameter of this name. False when there is none. */
static bool find(struct stream *stream, const char *name, const char **value, size_t *size) {
  size_t name_size = strlen(name);
  const char *end = stream->target + stream->target_size, *at = memchr(stream->target, '?', stream->target_size);
  while (at != NULL && ++at <= end) {
    const char *next = memchr(at, '&', (size_t)(end - at));
    size_t pair = (size_t)((next == NULL ? end : next) - at);
    if (pair >= name_size && memcmp(at, name, name_size) == 0 && (pair == name_size || at[name_size] == '=')) {
      *value = at + name_size + (pair > name_size);
      *size = pair - name_size - (pair > name_size);
      return true;
    }
    at = next;
  }
  return false;
}

/* Keeps the text with the request. */
static const char *keep(struct stream *stream, struct bytes *text) {
  stream->texts = more_memory(stream->texts, (stream->text_count + 1) * sizeof *stream->texts);
  stream->texts[stream->text_count++] = *text;
  return bytes_string(&stream->texts[stream->text_count - 1]);
}

const char *asked_text(struct asked *asked, const char *name) {
  struct stream *stream = stream_of(asked);
  struct bytes raw = {0}, text = {0};
  const char *value;
  size_t size;
  if (!find(stream, name, &value, &size)) return NULL;
  decode(&raw, value, size);
  for (size_t at = 0; at < raw.size; at++)
    if (raw.data[at] == 0) raw.data[at] = 0xff; /* no text of ours has it: U+FFFD instead */
  bytes_utf8(&text, raw.data, raw.size);
  bytes_free(&raw);
  return keep(stream, &text);
}

bool asked_flag(struct asked *asked, const char *name) {
  const char *value = asked_text(asked, name);
  return value != NULL && strcmp(value, "1") == 0;
}

bool asked_number(struct asked *asked, const char *name, int64_t otherwise, int64_t *into, struct failure *failure) {
  const char *value = asked_text(asked, name);
  int64_t number = 0;
  *into = otherwise;
  if (value == NULL || *value == '\0') return true;
  for (; *value != '\0'; value++) {
    if (*value < '0' || *value > '9') return fail(failure, EINVAL, "%s", name);
    number = number * 10 + (*value - '0');
    if (number > LARGEST_NUMBER) return fail(failure, EINVAL, "%s", name);
  }
  *into = number;
  return true;
}

const char *asked_path(struct asked *asked, const char *name, struct failure *failure) {
  struct stream *stream = stream_of(asked);
  struct bytes path = {0};
  const char *value;
  size_t size;
  if (find(stream, name, &value, &size)) decode(&path, value, size);
  if (path.size > 0 && path.data[0] == '/' && memchr(path.data, 0, path.size) == NULL) return keep(stream, &path);
  bytes_free(&path);
  fail(failure, EINVAL, "%s", name);
  return NULL;
}
