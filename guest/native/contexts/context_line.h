/* The connections between kernels and the guest (context_line.c). Frames: one byte of kind, four of length, the
 * payload. The guest sends `r` (code to run), a kernel `h` (hello, once), `d` (a displayed value) and `v` (the result
 * of a run). */

#pragma once

#include "context_records.h"
#include "failure.h"
#include "uuid.h"

/* Who expects a call. */
struct caller {
  struct caller *next; /* expected */
  char secret[UUID + 1];
  bool is_expected;
  struct line *line; /* NULL: it has not called, or its connection has ended */
  /* It has called. */
  void (*met)(struct caller *caller);
  /* A whole frame has come. `memory`: what holds it, if it holds nothing else. It may be taken, and is then to be left
   * empty. */
  void (*take)(struct caller *caller, const uint8_t *frame, size_t size, struct bytes *memory);
  /* It sends what no kernel does, and its connection has been ended. */
  void (*wrong)(struct caller *caller);
};

/* The name of the abstract socket to call at, or NULL. */
const char *line_address(struct failure *failure);
/* Makes a secret. Who says it is taken for this caller. */
void caller_expect(struct caller *caller);
void caller_forget(struct caller *caller);
/* Sends the frame, whose memory it takes. What was not sent yet is given up. */
void line_send(struct caller *caller, struct bytes *frame);
/* Takes what has come, then ends the connection. */
void line_end(struct caller *caller);
