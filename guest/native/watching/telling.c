/* Frames that tell what has changed. */

#include "json.h"
#include "watching.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum {
  TOGETHER = 500,            /* changes in a frame … */
  TOGETHER_BYTES = 64 << 10, /* … unless their paths are long */
};

/* A path is {"raw"} in base64 when it is not UTF-8. */
static void put_path(struct bytes *into, const char *path) {
  size_t size = strlen(path);
  if (is_utf8(path, size)) return json_put_string(into, path, size);
  bytes_text(into, "{\"raw\":\"");
  bytes_base64(into, path, size);
  bytes_text(into, "\"}");
}

/* What kind of file has this path, or NULL when it is gone. */
static const char *kind_at(const struct watching *watching, const char *path) {
  char *place = joined(watching->at, watching->only != NULL ? watching->only : path);
  struct stat found;
  bool is_there = lstat(place, &found) == 0;
  free(place);
  return is_there ? kind_name(kind_of_mode(found.st_mode)) : NULL;
}

/* Adds a change, if it is not of something that is gone. The kernel also reports files that never had a name. */
static void put_news(const struct watching *watching, struct bytes *into, const struct news *news) {
  static const char *const events[] = {"created", "changed", "deleted", "renamed"};
  const char *type = news->is_directory ? "directory" : NULL;
  if (type == NULL && news->event != EVENT_DELETED) type = kind_at(watching, news->path);
  if (type == NULL && news->event == EVENT_CHANGED) return;
  bytes_text(into, into->size == FRAME_HEADER ? "[" : ",");
  bytes_format(into, "{\"event\":\"%s\",\"path\":", events[news->event]);
  put_path(into, news->path);
  if (news->from != NULL) {
    bytes_text(into, ",\"from\":");
    put_path(into, news->from);
  }
  if (type != NULL) bytes_format(into, ",\"type\":\"%s\"", type);
  bytes_byte(into, '}');
}

static void frame_begin(struct bytes *frame) {
  bytes_room(frame, FRAME_HEADER);
  frame->size = FRAME_HEADER;
}

static void frame_push(struct watching *watching, struct bytes *frame, char type) {
  frame_seal(frame->data, frame->size, type);
  outbox_push(watching->outbox, frame->data, frame->size);
  frame->size = FRAME_HEADER;
}

static void tell_news(struct watching *watching, struct news *first) {
  struct bytes frame = {0};
  frame_begin(&frame);
  size_t count = 0, bytes = 0;
  for (struct news *each = first, *next; each != NULL; each = next) {
    next = each->next;
    put_news(watching, &frame, each);
    count++;
    bytes += strlen(each->path) + (each->from == NULL ? 0 : strlen(each->from));
    news_free(each);
    if (next != NULL && count < TOGETHER && bytes < TOGETHER_BYTES) continue;
    if (frame.size > FRAME_HEADER) {
      bytes_byte(&frame, ']');
      frame_push(watching, &frame, 'c');
    }
    count = bytes = 0;
  }
  bytes_free(&frame);
}

static void tell_unwatched(struct watching *watching) {
  struct bytes frame = {0};
  frame_begin(&frame);
  bytes_text(&frame, "{\"path\":");
  put_path(&frame, watching->unwatched);
  bytes_byte(&frame, '}');
  frame_push(watching, &frame, 'u');
  bytes_free(&frame);
  free(watching->unwatched);
  watching->unwatched = NULL;
}

static void tell_overflow(struct watching *watching) {
  struct bytes frame = {0};
  frame_add(&frame, 'l', "{}", 2);
  outbox_push(watching->outbox, frame.data, frame.size);
  bytes_free(&frame);
}

void watching_tell(struct watching *watching) {
  if (watching->is_busy || watching->is_over || watching->is_telling) return;
  if (!outbox_has_room(watching->outbox)) return;
  watching->is_telling = true; /* a push may call for more at once */
  if (watching->untold.overflown) tell_overflow(watching);
  if (watching->unwatched != NULL) tell_unwatched(watching);
  tell_news(watching, untold_take(&watching->untold));
  watching->is_telling = false;
}
