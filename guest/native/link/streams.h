/* Streams of a link (PROTOCOL.md): each carries a request and its answer, with credit both ways. A stream is what
 * handlers know as `struct asked`.
 *
 * It frees itself when it has ended for the link, is answered, and no source is left. */

#pragma once

#include "asked.h"

enum {
  LARGEST = 65536, /* bytes of a frame's payload */
  EXTRA = 256,     /* bytes that a part of a body costs beyond its length */
  FRAME = 9        /* bytes of a frame's head on the link */
};

struct link;

/* A part of a request's body. */
struct part {
  struct part *next;
  size_t size, cost;
  uint8_t data[];
};

struct stream {
  /* The link's own */
  struct stream *next, *previous;
  struct stream *wait_next, *wait_previous;
  bool is_waiting;

  struct link *link; /* NULL when the stream has ended */
  uint32_t number;
  bool is_answered;
  bool is_busy; /* its handler is being called, so it is not freed */

  /* The request */
  char *target, *operation;
  size_t target_size;
  struct bytes *texts; /* decoded parameters */
  size_t text_count;
  void *self;
  void (*gone)(struct asked *);
  bool has_left;

  /* Its body */
  struct part *first, **last;
  struct part *current;    /* being read */
  size_t current_from;     /* bytes of it that have been read */
  const uint8_t *borrowed; /* a part that lies in the link's memory while the handler is called first */
  size_t borrowed_size, borrowed_cost;
  bool is_whole, is_unwanted;
  void (*arrived)(struct asked *);
  struct whole *collecting;
  int64_t allowed; /* bytes that the host may send */
  int64_t read;    /* bytes that have been read and are not granted yet */
  bool is_receiving;

  /* The answer */
  int64_t credit;    /* bytes that the host takes */
  struct bytes head; /* until it is sent */
  bool has_head;
  struct bytes body;   /* an answer that is not made as the host takes it */
  const uint8_t *rest; /* of the piece that is being sent */
  size_t rest_size;
  struct source *source;
  bool is_pulling;
};

static inline struct asked *asked_of(struct stream *stream) { return (struct asked *)stream; }
static inline struct stream *stream_of(const struct asked *asked) { return (struct stream *)(uintptr_t)asked; }

/* `target`: bytes, copied. */
struct stream *stream_begin(struct link *link, uint32_t number, const uint8_t *target, size_t size);

/* --- What the link does with a stream --- */

/* Judges a `d` or `e` by the length of its payload. */
bool stream_admits(const struct stream *stream, bool is_end, size_t size);
/* Takes a part of the body. `frame_size`: of the frame's payload. */
void stream_receive(struct stream *stream, const uint8_t *part, size_t size, size_t frame_size);
/* The same during the handler's call: the memory is the link's until stream_called. */
void stream_lend(struct stream *stream, const uint8_t *part, size_t size, size_t frame_size, bool is_last);
/* The handler has been called, while `is_busy` was true. May free the stream. */
void stream_called(struct stream *stream);
void stream_complete(struct stream *stream);
void stream_grant(struct stream *stream, uint32_t bytes);
/* Sends what can be sent now. */
void stream_advance(struct stream *stream);
/* Ends the stream: the host wants no more of the answer. */
void stream_cancel(struct stream *stream);
/* The connection is closed. */
void stream_leave(struct stream *stream);

/* --- What a stream does with its link --- */

bool link_is_blocked(const struct link *link);
/* The frame leaves at the latest at the end of this turn. Its payload is `head` and `rest`. */
void link_send(struct link *link, char kind, uint32_t number, const void *head, size_t head_size, const void *rest,
               size_t rest_size);
/* Calls stream_advance when the connection is not blocked any more. */
void link_wait(struct link *link, struct stream *stream);
/* The stream has ended. */
void link_forget(struct link *link, struct stream *stream);
