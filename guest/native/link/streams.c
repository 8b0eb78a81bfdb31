/* The answers of streams (streams.h). */

#include "streams.h"
#include "body.h"
#include <stdlib.h>
#include <string.h>

enum {
  WINDOW = 262144, /* bytes that may be sent before the receiver grants more */
  WORTH = 4096,    /* bytes of credit that are waited for: more will come, and crumbs are dear */
  REASON = 900     /* bytes */
};

struct stream *stream_begin(struct link *link, uint32_t number, const uint8_t *target, size_t size) {
  struct stream *stream = memory(sizeof *stream);
  const uint8_t *query = memchr(target, '?', size);
  stream->link = link;
  stream->number = number;
  stream->target = copy_bytes(target, size);
  stream->target_size = size;
  size_t operation_size = query == NULL ? size : (size_t)(query - target);
  /* With a NUL in it, it is no operation, also not the one before the NUL. */
  if (memchr(target, 0, operation_size) != NULL) operation_size = 0;
  stream->operation = copy_bytes(target, operation_size);
  stream->last = &stream->first;
  stream->allowed = stream->credit = WINDOW;
  stream->is_receiving = true;
  return stream;
}

static void free_if_over(struct stream *stream) {
  if (stream->link != NULL || !stream->is_answered || stream->source != NULL || stream->is_busy) return;
  body_discard(stream);
  for (size_t at = 0; at < stream->text_count; at++) bytes_free(&stream->texts[at]);
  free(stream->texts);
  bytes_free(&stream->head);
  bytes_free(&stream->body);
  free(stream->target);
  free(stream->operation);
  free(stream);
}

void stream_called(struct stream *stream) {
  body_keep(stream);
  stream->is_busy = false;
  free_if_over(stream);
}

/* --- The end --- */

static void end(struct stream *stream, char kind, const void *head, size_t head_size, const void *rest,
                size_t rest_size) {
  struct link *link = stream->link;
  stream->link = NULL;
  link_forget(link, stream);
  link_send(link, kind, stream->number, head, head_size, rest, rest_size);
}

/* Nobody waits for the answer. */
static void leave(struct stream *stream) {
  struct source *source = stream->source;
  stream->source = NULL;
  stream->rest_size = 0;
  stream->has_left = true;
  if (source != NULL) {
    source->stream = NULL;
    source->drop(source);
  }
  if (stream->is_answered) return;
  bool was_busy = stream->is_busy;
  stream->is_busy = true;
  void (*gone)(struct asked *) = stream->gone;
  stream->gone = NULL;
  if (gone != NULL) gone(asked_of(stream));
  if (!stream->is_answered) body_fail(stream);
  stream->is_busy = was_busy;
}

static void break_off(struct stream *stream, const char *why) {
  size_t size = strlen(why);
  while (size > REASON) size--;
  while (size > 0 && !is_utf8(why, size)) size--;
  if (stream->link != NULL) end(stream, 'r', why, size, NULL, 0);
  leave(stream);
}

void stream_cancel(struct stream *stream) {
  break_off(stream, "cancelled");
  free_if_over(stream);
}

void stream_leave(struct stream *stream) {
  stream->link = NULL;
  leave(stream);
  free_if_over(stream);
}

/* --- Sending --- */

static size_t smaller(size_t one, size_t other) { return one < other ? one : other; }

/* Sends a part of the answer, with its head if it is the first one. */
static void send_part(struct stream *stream, size_t size) {
  size_t head_size = stream->has_head ? stream->head.size : 0;
  link_send(stream->link, stream->has_head ? 's' : 'd', stream->number, stream->head.data, head_size, stream->rest,
            size);
  stream->credit -= (int64_t)(head_size + size + EXTRA);
  stream->rest += size;
  stream->rest_size -= size;
  stream->has_head = false;
  bytes_free(&stream->head);
}

static void pull(struct stream *stream) {
  const char *why = "";
  struct source *source = stream->source;
  source->stream = NULL; /* `next` may end it, and who calls source_ready then must not find the stream */
  enum pulled pulled = source->next(source, &stream->rest, &stream->rest_size, &why);
  if (pulled == PULLED_PIECE) return;
  stream->rest_size = 0;
  if (pulled == PULLED_LATER) {
    stream->is_pulling = true;
    source->stream = stream;
    if (stream->has_head) send_part(stream, 0);
    return;
  }
  stream->source = NULL;
  if (pulled == PULLED_FAILED) break_off(stream, why);
}

static void advance(struct stream *stream) {
  while (stream->link != NULL && !stream->is_pulling) {
    size_t head_size = stream->has_head ? stream->head.size : 0;
    if (stream->rest_size == 0 && stream->source == NULL) {
      struct bytes head = stream->head;
      stream->head = (struct bytes){0};
      end(stream, stream->has_head ? 'a' : 'e', head.data, head_size, NULL, 0);
      bytes_free(&head);
      return;
    }
    int64_t room = stream->credit - (int64_t)head_size - EXTRA;
    size_t wanted = smaller(stream->rest_size == 0 ? WORTH : stream->rest_size, WORTH);
    if (room < (int64_t)wanted) return;
    if (link_is_blocked(stream->link)) return link_wait(stream->link, stream);
    if (stream->rest_size == 0) pull(stream);
    else send_part(stream, smaller(smaller(stream->rest_size, LARGEST - head_size), (size_t)room));
  }
}

void stream_advance(struct stream *stream) {
  advance(stream);
  free_if_over(stream);
}

void stream_grant(struct stream *stream, uint32_t bytes) {
  stream->credit += bytes;
  if (stream->is_answered) stream_advance(stream);
}

void source_ready(struct source *source) {
  struct stream *stream = source->stream;
  if (stream == NULL || !stream->is_pulling) return;
  stream->is_pulling = false;
  stream_advance(stream);
}

/* --- Answering --- */

/* The head of an answer: the status and the fields, which may be NULL. */
static void put_head(struct stream *stream, int status, const char *fields) {
  size_t size = fields == NULL ? 0 : strlen(fields);
  const uint8_t numbers[4] = {(uint8_t)(status >> 8), (uint8_t)status, (uint8_t)(size >> 8), (uint8_t)size};
  bytes_add(&stream->head, numbers, sizeof numbers);
  bytes_add(&stream->head, fields, size);
  stream->has_head = true;
}

/* Whether somebody waits for the answer. */
static bool begin_answer(struct stream *stream) {
  stream->is_answered = true;
  stream->gone = NULL;
  if (stream->link == NULL) return false;
  body_discard(stream);
  return true;
}

/* Takes the memory of `body`. */
static void answer_whole(struct asked *asked, int status, const char *fields, struct bytes *body) {
  struct stream *stream = stream_of(asked);
  if (begin_answer(stream)) {
    put_head(stream, status, fields);
    if (stream->head.size + body->size <= LARGEST) {
      end(stream, 'a', stream->head.data, stream->head.size, body->data, body->size);
    } else {
      stream->body = *body;
      *body = (struct bytes){0};
      stream->rest = stream->body.data;
      stream->rest_size = stream->body.size;
      advance(stream);
    }
  }
  bytes_free(body);
  free_if_over(stream);
}

void answer_json(struct asked *asked, struct bytes *body) { answer_whole(asked, 200, NULL, body); }

void answer_bytes(struct asked *asked, const char *fields, struct bytes *body) {
  answer_whole(asked, 200, fields, body);
}

void answer_format(struct asked *asked, const char *format, ...) {
  struct bytes body = {0};
  va_list arguments;
  va_start(arguments, format);
  bytes_arguments(&body, format, arguments);
  va_end(arguments);
  answer_json(asked, &body);
}

void answer_empty(struct asked *asked) { answer_format(asked, "{}"); }

void answer_failure(struct asked *asked, struct failure *failure) {
  struct bytes body = {0};
  int status = failure_json(failure, &body);
  failure_free(failure);
  answer_whole(asked, status, NULL, &body);
}

void answer_error(struct asked *asked, int error, const char *message) {
  struct failure failure;
  fail(&failure, error, "%s", message == NULL ? "" : message);
  answer_failure(asked, &failure);
}

void answer_source(struct asked *asked, const char *fields, struct source *source) {
  struct stream *stream = stream_of(asked);
  source->stream = NULL;
  if (begin_answer(stream)) {
    put_head(stream, 200, fields);
    stream->source = source;
    advance(stream);
  } else source->drop(source);
  free_if_over(stream);
}
