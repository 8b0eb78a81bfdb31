/* The guest's ends of pipes, non-blocking. Nothing is read before it is wanted, so a slow host slows a program down,
 * and at the end of a run exactly the content of the pipe can be taken. */

#pragma once

#include "loop.h"

/* Takes what a pipe brings. */
struct taker {
  size_t headroom; /* bytes left free before the data of each chunk */
  /* False while no more is wanted. Call `reader_advance` when it is wanted again. */
  bool (*wants)(struct taker *taker);
  /* Memory for the next chunk (headroom + data), or NULL as a whole: the reader's own, valid during `take`. */
  uint8_t *(*room)(struct taker *taker, size_t size);
  void (*take)(struct taker *taker, uint8_t *chunk, size_t size); /* size: headroom + data */
  void (*ended)(struct taker *taker);                             /* the pipe has ended. May be NULL */
};

struct reader {
  struct watch watch;
  struct taker *taker;
  struct timer resting;
  struct later turn;
  double read_at;
  bool is_large;
  void (*closed)(struct reader *reader); /* the pipe is closed, and the reader may be freed. May be NULL */
};

/* Reads the pipe for its taker to the end, and closes it. Each write to the pipe has the taker asked whether it wants
 * more. `closed` has to be set before. */
void reader_begin(struct reader *reader, int fd, struct taker *taker);
void reader_advance(struct reader *reader);
/* Takes everything that was written before this call, wanted or not. */
void reader_drain(struct reader *reader);
/* Discards everything from now on, to the end, so that programs that still write neither block nor fail. The reader
 * must live until `closed`. */
void reader_drop(struct reader *reader);
static inline bool reader_is_open(const struct reader *reader) {
  return reader->watch.fd >= 0 && reader->watch.ready != NULL;
}

/* Writes bytes into a pipe as it accepts them, then closes it. Ends quietly when the reader goes away. */
struct writer {
  struct watch watch;
  struct bytes bytes;
  size_t at;
};
/* Takes the memory of `bytes`, which is then empty. */
void writer_begin(struct writer *writer, int fd, struct bytes *bytes);
/* Gives up on what is not written yet. Nothing when it is closed. */
void writer_close(struct writer *writer);

/* Makes several pipes, close-on-exec. False with EMFILE, and then none is made. ends[n][0] reads, ends[n][1] writes. */
struct failure;
bool make_pipes(int ends[][2], size_t count, struct failure *failure);
size_t pipe_available(int fd); /* bytes that wait in it */
void make_nonblocking(int fd);
