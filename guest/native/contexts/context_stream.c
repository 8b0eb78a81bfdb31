/* One output stream of a context's program. Output goes into the run under way, or is kept for the next one. */

#include "context_stream.h"
#include <string.h>

enum { KEPT = 256 << 10 }; /* bytes of each stream that are kept between runs */
enum { PIECE = 64 << 10 }; /* bytes of one frame of what was kept */

static bool wants(struct taker *taker) {
  struct context_stream *stream = MEMBER(taker, struct context_stream, taker);
  return stream->outbox == NULL || stream->is_ending || outbox_has_room(stream->outbox);
}

static uint8_t *room(struct taker *taker, size_t size) {
  struct context_stream *stream = MEMBER(taker, struct context_stream, taker);
  return stream->outbox == NULL ? NULL : outbox_room(stream->outbox, size);
}

static void take(struct taker *taker, uint8_t *chunk, size_t whole) {
  struct context_stream *stream = MEMBER(taker, struct context_stream, taker);
  size_t size = whole - FRAME_HEADER;
  if (stream->left <= 0 || size > (uint64_t)stream->left) {
    stream->is_truncated = true;
    size = stream->left > 0 ? (size_t)stream->left : 0;
  }
  if (size == 0) return;
  stream->left -= (int64_t)size;
  if (stream->outbox == NULL) {
    bytes_add(&stream->kept, chunk + FRAME_HEADER, size);
    return;
  }
  frame_seal(chunk, FRAME_HEADER + size, stream->type);
  outbox_push(stream->outbox, chunk, FRAME_HEADER + size);
}

void context_stream_begin(struct context_stream *stream, char type) {
  struct taker taker = {.headroom = FRAME_HEADER, .wants = wants, .room = room, .take = take};
  *stream = (struct context_stream){.taker = taker, .type = type, .left = KEPT};
}

void context_stream_into(struct context_stream *stream, struct outbox *outbox, int64_t limit) {
  struct bytes kept = stream->kept;
  stream->kept = (struct bytes){0};
  stream->outbox = outbox;
  stream->is_ending = stream->is_truncated = false;
  stream->left = limit;
  for (size_t at = 0; at < kept.size;) {
    size_t size = kept.size - at < PIECE ? kept.size - at : PIECE;
    uint8_t *chunk = outbox_room(outbox, FRAME_HEADER + size);
    memcpy(chunk + FRAME_HEADER, kept.data + at, size);
    take(&stream->taker, chunk, FRAME_HEADER + size);
    at += size;
  }
  bytes_free(&kept);
}

void context_stream_end(struct context_stream *stream) {
  if (stream->is_ending || stream->outbox == NULL) return;
  stream->is_ending = true;
  if (stream->left > KEPT) stream->left = KEPT;
}

void context_stream_keep(struct context_stream *stream) {
  stream->outbox = NULL;
  stream->left = KEPT;
}
