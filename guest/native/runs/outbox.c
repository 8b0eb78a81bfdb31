/* Frames on their way to the host: in one piece when the run is short, otherwise as a stream (frames.h).
 *
 * They wait in one of two buffers while the other is sent. The writer and the answer each keep the outbox until they
 * are done with it; who is done last frees it. */

#include "frames.h"
#include <stdlib.h>

enum {
  PATIENCE = 5,     /* ms that the first output waits, so that a short run is sent in one piece */
  PIECE = 64 << 10, /* bytes that are worth sending at once */
  ROOM = 256 << 10  /* bytes that may wait for a slow host */
};

struct outbox {
  struct source source;
  struct asked *asked; /* until it is answered */
  struct bytes waiting;
  struct bytes sent; /* until the host asks for more */
  struct timer timer;
  bool is_live, is_streaming, is_finished, is_abandoned;
  bool is_pulled;   /* the answer waits for source_ready */
  bool is_answered; /* whole, or its source has ended */
  void (*on_room)(void *self);
  void *self;
  void (*gone)(void *self);
  void *gone_self;
};

static void free_if_done(struct outbox *outbox) {
  if (!outbox->is_finished || !outbox->is_answered) return;
  bytes_free(&outbox->waiting);
  bytes_free(&outbox->sent);
  free(outbox);
}

static void tell_gone(struct outbox *outbox) {
  void (*gone)(void *) = outbox->gone;
  outbox->gone = NULL;
  if (gone != NULL && !outbox->is_finished) gone(outbox->gone_self);
}

static void host_left(struct asked *asked) {
  struct outbox *outbox = asked_self(asked);
  outbox_abandon(outbox);
  tell_gone(outbox);
}

static enum pulled pull(struct source *source, const uint8_t **piece, size_t *size, const char **why) {
  struct outbox *outbox = MEMBER(source, struct outbox, source);
  outbox->is_pulled = false;
  if (outbox->waiting.size > 0 && !outbox->is_abandoned) {
    struct bytes full = outbox->waiting;
    outbox->waiting = outbox->sent; /* the host has taken what was sent before */
    outbox->waiting.size = 0;
    outbox->sent = full;
    *piece = full.data;
    *size = full.size;
    if (!outbox->is_finished && outbox->on_room != NULL) outbox->on_room(outbox->self);
    return PULLED_PIECE;
  }
  if (outbox->is_finished || outbox->is_abandoned) {
    outbox->is_answered = true;
    free_if_done(outbox);
    return PULLED_END;
  }
  bytes_free(&outbox->sent);
  outbox->is_pulled = true;
  return PULLED_LATER;
}

static void drop(struct source *source) {
  struct outbox *outbox = MEMBER(source, struct outbox, source);
  outbox->is_answered = true;
  outbox_abandon(outbox);
  tell_gone(outbox);
  free_if_done(outbox);
}

static void stream(struct outbox *outbox) {
  timer_end(&outbox->timer);
  outbox->is_streaming = true;
  struct asked *asked = outbox->asked;
  outbox->asked = NULL;
  asked_on_gone(asked, NULL);
  answer_source(asked, NULL, &outbox->source);
}

static void waited(struct timer *timer) { stream(MEMBER(timer, struct outbox, timer)); }

struct outbox *outbox_begin(struct asked *asked, bool live, void (*on_room)(void *self), void *self) {
  struct outbox *outbox = memory(sizeof *outbox);
  *outbox = (struct outbox){
      .source = {.next = pull, .drop = drop},
        .asked = asked, .is_live = live, .on_room = on_room, .self = self
  };
  asked_keep(asked, outbox);
  asked_on_gone(asked, host_left);
  return outbox;
}

bool outbox_has_room(const struct outbox *outbox) { return outbox->is_abandoned || outbox->waiting.size < ROOM; }

uint8_t *outbox_room(struct outbox *outbox, size_t size) { return bytes_room(&outbox->waiting, size); }

static void add(struct outbox *outbox, const uint8_t *frame, size_t size) {
  struct bytes *waiting = &outbox->waiting;
  if (waiting->data != NULL && frame == waiting->data + waiting->size) waiting->size += size;
  else bytes_add(waiting, frame, size);
}

/* May free the outbox when it is finished. */
static void wake(struct outbox *outbox) {
  if (outbox->is_pulled) source_ready(&outbox->source);
}

void outbox_push(struct outbox *outbox, const uint8_t *frame, size_t size) {
  if (outbox->is_abandoned) return;
  add(outbox, frame, size);
  if (outbox->is_streaming) wake(outbox);
  else if (outbox->is_live || outbox->waiting.size >= PIECE) stream(outbox);
  else if (!timer_runs(&outbox->timer)) timer_begin(&outbox->timer, PATIENCE, waited);
}

void outbox_finish(struct outbox *outbox, const uint8_t *frame, size_t size) {
  timer_end(&outbox->timer);
  if (!outbox->is_abandoned) add(outbox, frame, size);
  outbox->is_finished = true;
  outbox->on_room = NULL;
  if (outbox->is_answered) return free_if_done(outbox);
  if (outbox->is_streaming) return wake(outbox);
  struct asked *asked = outbox->asked;
  outbox->is_answered = true;
  asked_on_gone(asked, NULL);
  answer_bytes(asked, NULL, &outbox->waiting);
  free_if_done(outbox);
}

void outbox_abandon(struct outbox *outbox) {
  if (outbox->is_abandoned) return;
  outbox->is_abandoned = true;
  timer_end(&outbox->timer);
  bytes_free(&outbox->waiting); /* but not `sent`, which the stream may hold */
  if (outbox->on_room != NULL) outbox->on_room(outbox->self);
}

void outbox_on_gone(struct outbox *outbox, void (*gone)(void *self), void *self) {
  outbox->gone = gone;
  outbox->gone_self = self;
  if (outbox->is_abandoned) tell_gone(outbox);
}
