/* The guest's ends of pipes: what reads them for a taker, and what writes into them (pipes.h). */

#include "pipes.h"
#include "failure.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
  CHUNK = 64 << 10,  /* bytes: what a pipe holds by default */
  LARGE = 256 << 10, /* bytes: what the pipe of a program holds that fills it, so that both sides wait less often */
  TURN = 1 << 20,    /* bytes that one pipe may move before others get a turn */
  CRUMBS = 16 << 10, /* bytes: a program that writes less at a time … */
  REST = 2 /* ms: … and again so soon would wake the guest for each write, so its pipe is left alone so long */
};

bool make_pipes(int ends[][2], size_t count, struct failure *failure) {
  for (size_t made = 0; made < count; made++) {
    if (pipe2(ends[made], O_CLOEXEC) == 0) continue;
    while (made-- > 0) {
      close(ends[made][0]);
      close(ends[made][1]);
    }
    return fail(failure, EMFILE, "no pipe can be made");
  }
  return true;
}

size_t pipe_available(int fd) {
  int size = 0;
  return ioctl(fd, FIONREAD, &size) == 0 && size > 0 ? (size_t)size : 0;
}

void make_nonblocking(int fd) { fcntl(fd, F_SETFL, O_NONBLOCK); }

/* --- Reading --- */

/* Memory for takers that have none of their own, and for what is discarded. */
static struct {
  uint8_t *chunk; /* shared: it is done with when `take` returns. NULL: none */
  size_t readers; /* that are open */
  struct later freeing;
} own;

static uint8_t *own_room(size_t size) {
  if (own.chunk == NULL) own.chunk = memory(CHUNK + 64);
  return size <= CHUNK + 64 ? own.chunk : NULL;
}

static void free_own_room(struct later *later) {
  if (own.readers > 0) return;
  free(own.chunk);
  own.chunk = NULL;
}

static bool wants(const struct reader *reader) {
  return reader->taker == NULL || reader->taker->wants == NULL || reader->taker->wants(reader->taker);
}

static void close_reader(struct reader *reader) {
  int fd = reader->watch.fd;
  struct taker *taker = reader->taker;
  watch_end(&reader->watch);
  timer_end(&reader->resting);
  later_end(&reader->turn);
  close(fd);
  /* Not at once: the last reader may close within the `take` of its own chunk. */
  if (--own.readers == 0 && own.chunk != NULL) later_begin(&own.freeing, free_own_room);
  reader->taker = NULL;
  void (*closed)(struct reader *) = reader->closed;
  if (taker != NULL && taker->ended != NULL) taker->ended(taker);
  if (closed != NULL) closed(reader);
}

/* Reads at most `size` bytes for the taker. The number of bytes, 0 at the end of the pipe, -1 when there is nothing. */
static ssize_t pass(struct reader *reader, size_t size) {
  struct taker *taker = reader->taker;
  size_t headroom = taker->headroom;
  if (size == 0 || size > CHUNK) size = size == 0 ? 1 : CHUNK; /* one byte tells "nothing now" from "the end" */
  uint8_t *chunk = taker->room == NULL ? NULL : taker->room(taker, headroom + size);
  if (chunk == NULL) chunk = own_room(headroom + size);
  ssize_t count = read(reader->watch.fd, chunk + headroom, size);
  if (count < 0) return errno == EAGAIN || errno == EINTR ? -1 : 0;
  if (count > 0) taker->take(taker, chunk, headroom + (size_t)count);
  return count;
}

static ssize_t discard(struct reader *reader) {
  ssize_t count = read(reader->watch.fd, own_room(CHUNK), CHUNK);
  return count >= 0 ? count : errno == EAGAIN || errno == EINTR ? -1 : 0;
}

/* Each write tells once, wanted or not; then the taker is asked. */
static const uint32_t NEWS = EPOLLIN | EPOLLET;

static void rested(struct timer *timer) {
  struct reader *reader = MEMBER(timer, struct reader, resting);
  watch_change(&reader->watch, NEWS);
  reader_advance(reader);
}

static void turned(struct later *later) { reader_advance(MEMBER(later, struct reader, turn)); }

/* No rest after the first crumb: it is passed on at once, and so is a crumb that comes alone. */
static void may_rest(struct reader *reader, size_t moved) {
  double before = reader->read_at;
  reader->read_at = now();
  if (moved >= CRUMBS || reader->read_at - before > REST) return;
  watch_change(&reader->watch, 0);
  timer_begin(&reader->resting, REST, rested);
}

/* The pipe was full. */
static void enlarge(struct reader *reader) {
  if (!reader->is_large) fcntl(reader->watch.fd, F_SETPIPE_SZ, LARGE);
  reader->is_large = true;
}

void reader_advance(struct reader *reader) {
  if (!reader_is_open(reader) || timer_runs(&reader->resting)) return;
  for (size_t moved = 0; wants(reader);) {
    ssize_t count = reader->taker == NULL ? discard(reader) : pass(reader, pipe_available(reader->watch.fd));
    if (!reader_is_open(reader)) return;
    if (count == 0) return close_reader(reader);
    if (count < 0 && moved > 0) may_rest(reader, moved);
    if (count < 0) return;
    moved += (size_t)count;
    if (count == CHUNK) enlarge(reader);
    if (moved >= TURN) return later_begin(&reader->turn, turned);
  }
}

static void readable(struct watch *watch, uint32_t events) {
  struct reader *reader = MEMBER(watch, struct reader, watch);
  if (timer_runs(&reader->resting)) { /* the end of the pipe is told while it rests, too */
    timer_end(&reader->resting);
    watch_change(watch, NEWS);
  }
  reader_advance(reader);
}

void reader_begin(struct reader *reader, int fd, struct taker *taker) {
  *reader = (struct reader){.taker = taker, .closed = reader->closed};
  own.readers++;
  make_nonblocking(fd);
  watch_begin(&reader->watch, fd, NEWS, readable);
}

void reader_drain(struct reader *reader) {
  size_t left = reader_is_open(reader) ? pipe_available(reader->watch.fd) : 0;
  while (left > 0 && reader_is_open(reader) && reader->taker != NULL) {
    ssize_t count = pass(reader, left);
    if (count <= 0) return;
    left -= (size_t)count < left ? (size_t)count : left;
  }
}

void reader_drop(struct reader *reader) {
  reader->taker = NULL;
  if (!reader_is_open(reader)) return;
  timer_end(&reader->resting);
  watch_change(&reader->watch, NEWS);
  reader_advance(reader);
}

/* --- Writing --- */

void writer_close(struct writer *writer) {
  int fd = writer->watch.fd;
  if (fd < 0) return;
  watch_end(&writer->watch);
  close(fd);
  bytes_free(&writer->bytes);
}

static void advance(struct writer *writer) {
  while (writer->at < writer->bytes.size) {
    ssize_t count = write(writer->watch.fd, writer->bytes.data + writer->at, writer->bytes.size - writer->at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return;
    if (count < 0) break;
    writer->at += (size_t)count;
  }
  writer_close(writer);
}

static void writable(struct watch *watch, uint32_t events) { advance(MEMBER(watch, struct writer, watch)); }

/* What fits at once, as nearly everything does, is written without a watch. */
static bool write_at_once(int fd, const struct bytes *bytes, size_t *at) {
  make_nonblocking(fd);
  while (*at < bytes->size) {
    ssize_t count = write(fd, bytes->data + *at, bytes->size - *at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return errno != EAGAIN;
    *at += (size_t)count;
  }
  return true;
}

void writer_begin(struct writer *writer, int fd, struct bytes *bytes) {
  *writer = (struct writer){.watch.fd = -1, .bytes = *bytes};
  *bytes = (struct bytes){0};
  if (write_at_once(fd, &writer->bytes, &writer->at)) {
    close(fd);
    bytes_free(&writer->bytes);
  } else watch_begin(&writer->watch, fd, EPOLLOUT, writable);
}
