/* One output stream of a context's program (context_stream.c). */

#pragma once

#include "frames.h"
#include "pipes.h"

struct context_stream {
  struct taker taker;
  char type;
  bool is_truncated, is_ending;
  int64_t left;          /* bytes that are still taken */
  struct outbox *outbox; /* of the run under way, or NULL */
  struct bytes kept;     /* for the next run */
};

void context_stream_begin(struct context_stream *stream, char type);
/* A run begins. What was kept is the beginning of its output. */
void context_stream_into(struct context_stream *stream, struct outbox *outbox, int64_t limit);
/* Lets the run end: a program that waits for a slow reader would not notice an interrupt. */
void context_stream_end(struct context_stream *stream);
/* The run has ended. */
void context_stream_keep(struct context_stream *stream);
