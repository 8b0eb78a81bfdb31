/* A request's body as it arrives. The host may send more of it only as it is read. */

#include "body.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { WINDOW = 262144, GRANT = WINDOW / 4 /* bytes that are granted at once */ };

/* A body that is being collected as a whole. */
struct whole {
  struct bytes bytes;
  void (*then)(struct asked *, const uint8_t *bytes, size_t size);
  void (*then_json)(struct asked *, const struct json *body);
};

/* The host may send so much more. */
static void passed(struct stream *stream, size_t cost) {
  stream->read += (int64_t)cost;
  if (stream->link == NULL || !stream->is_receiving || stream->read < GRANT) return;
  uint8_t credit[4];
  put_number(credit, (uint32_t)stream->read);
  stream->allowed += stream->read;
  stream->read = 0;
  link_send(stream->link, 'w', stream->number, credit, sizeof credit, NULL, 0);
}

/* --- The link's side --- */

bool stream_admits(const struct stream *stream, bool is_end, size_t size) {
  return stream->is_receiving && (is_end || (int64_t)size + EXTRA <= stream->allowed);
}

static void tell_arrival(struct stream *stream) {
  void (*arrived)(struct asked *) = stream->arrived;
  stream->arrived = NULL;
  if (arrived != NULL) arrived(asked_of(stream));
}

static void add_part(struct stream *stream, const uint8_t *data, size_t size, size_t cost) {
  struct part *part = memory(sizeof *part + size);
  part->size = size;
  part->cost = cost;
  if (size > 0) memcpy(part->data, data, size);
  *stream->last = part;
  stream->last = &part->next;
}

void stream_receive(struct stream *stream, const uint8_t *data, size_t size, size_t frame_size) {
  size_t cost = frame_size + EXTRA;
  stream->allowed -= (int64_t)cost;
  if (stream->is_unwanted) passed(stream, cost);
  else add_part(stream, data, size, cost);
  tell_arrival(stream);
}

void stream_lend(struct stream *stream, const uint8_t *data, size_t size, size_t frame_size, bool is_last) {
  stream->borrowed = data;
  stream->borrowed_size = size;
  stream->borrowed_cost = is_last ? 0 : frame_size + EXTRA;
  stream->allowed -= (int64_t)stream->borrowed_cost;
  stream->is_whole = is_last;
  stream->is_receiving = !is_last;
}

void body_keep(struct stream *stream) {
  if (stream->borrowed == NULL) return;
  struct part *part = memory(sizeof *part + stream->borrowed_size);
  part->size = stream->borrowed_size;
  part->cost = stream->borrowed_cost;
  if (part->size > 0) memcpy(part->data, stream->borrowed, part->size);
  stream->borrowed = NULL;
  part->next = stream->first;
  if (stream->first == NULL) stream->last = &part->next;
  stream->first = part;
}

void stream_complete(struct stream *stream) {
  stream->is_receiving = false;
  stream->is_whole = true;
  tell_arrival(stream);
}

/* Nobody reads any more. */
static void discard(struct stream *stream) {
  size_t unread = stream->borrowed == NULL ? 0 : stream->borrowed_cost;
  stream->borrowed = NULL;
  if (stream->current != NULL) unread += stream->current->cost;
  free(stream->current);
  stream->current = NULL;
  for (struct part *part = stream->first, *next; part != NULL; part = next) {
    next = part->next;
    unread += part->cost;
    free(part);
  }
  stream->first = NULL;
  stream->last = &stream->first;
  stream->is_unwanted = true;
  stream->arrived = NULL;
  if (unread > 0) passed(stream, unread);
}

void body_discard(struct stream *stream) {
  if (!stream->is_unwanted) discard(stream);
  if (stream->collecting != NULL) bytes_free(&stream->collecting->bytes);
  free(stream->collecting);
  stream->collecting = NULL;
}

void body_fail(struct stream *stream) { tell_arrival(stream); }

/* --- The reader's side --- */

void body_on_arrival(struct asked *asked, void (*arrived)(struct asked *)) { stream_of(asked)->arrived = arrived; }

/* Makes the next part the current one. It has its own memory: what is borrowed is copied. */
static bool next_part(struct stream *stream) {
  body_keep(stream);
  struct part *part = stream->first;
  if (part == NULL) return false;
  stream->first = part->next;
  if (stream->first == NULL) stream->last = &stream->first;
  stream->current = part;
  stream->current_from = 0;
  return true;
}

enum arrived body_read(struct asked *asked, const uint8_t **part, size_t *size) {
  struct stream *stream = stream_of(asked);
  for (;;) {
    struct part *current = stream->current;
    if (current != NULL && stream->current_from < current->size) {
      *part = current->data + stream->current_from;
      *size = current->size - stream->current_from;
      stream->current_from = current->size;
      return BODY_PART;
    }
    if (current != NULL) { /* it has been read */
      size_t cost = current->cost;
      stream->current = NULL;
      free(current);
      if (cost > 0) passed(stream, cost);
    }
    if (next_part(stream)) continue;
    if (stream->is_whole) return BODY_END;
    return stream->has_left ? BODY_FAILED : BODY_WAIT;
  }
}

void body_return(struct asked *asked, size_t size) {
  struct stream *stream = stream_of(asked);
  if (stream->current != NULL && size <= stream->current_from) stream->current_from -= size;
}

/* --- All of it --- */

static void answer_too_large(struct asked *asked) {
  struct failure failure;
  fail_status(&failure, EINVAL, 413, "the body is too large");
  answer_failure(asked, &failure);
}

static void hand_over(struct asked *asked, struct whole *whole, const uint8_t *bytes, size_t size) {
  if (whole->then != NULL) return whole->then(asked, bytes, size);
  struct json *body = json_parse(bytes, size);
  if (body == NULL) return answer_error(asked, EINVAL, "the body is not JSON");
  whole->then_json(asked, body);
  json_free(body);
}

static void collect(struct asked *asked) {
  struct stream *stream = stream_of(asked);
  struct whole *whole = stream->collecting;
  const uint8_t *part;
  size_t size;
  enum arrived what;
  while ((what = body_read(asked, &part, &size)) == BODY_PART) {
    if (size > LARGEST_BODY - whole->bytes.size) return answer_too_large(asked);
    bytes_add(&whole->bytes, part, size);
  }
  if (what == BODY_WAIT) return body_on_arrival(asked, collect);
  if (what == BODY_FAILED) return answer_error(asked, EPIPE, "the host has left");
  stream->collecting = NULL;
  struct whole mine = *whole;
  free(whole);
  hand_over(asked, &mine, mine.bytes.data, mine.bytes.size);
  bytes_free(&mine.bytes);
}

static void whole_begin(struct asked *asked, struct whole whole) {
  struct stream *stream = stream_of(asked);
  /* Nearly every body comes with its request, and is read where it lies. */
  if (stream->borrowed != NULL && stream->is_whole && stream->first == NULL) {
    const uint8_t *bytes = stream->borrowed;
    stream->borrowed = NULL;
    return hand_over(asked, &whole, bytes, stream->borrowed_size);
  }
  stream->collecting = memory(sizeof whole);
  *stream->collecting = whole;
  collect(asked);
}

void asked_whole(struct asked *asked, void (*then)(struct asked *, const uint8_t *bytes, size_t size)) {
  whole_begin(asked, (struct whole){.then = then});
}

void asked_json(struct asked *asked, void (*then)(struct asked *, const struct json *body)) {
  whole_begin(asked, (struct whole){.then_json = then});
}
