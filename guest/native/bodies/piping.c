/* The standard output of a run, for the edge, which gets it in chunks (bodies.h). Only the host knows whether it is
 * whole.
 *
 * Two keep a piping: its run, until piping_release, and the output, until it has been sent or given up. */

#include "bodies.h"
#include "edge.h"
#include "tickets.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
  CHUNK_HEAD = 12,   /* bytes: the end of the chunk before, and a length */
  UNCLAIMED = 60000, /* ms that the end of the output waits for the host's word */
};

static const char HEAD[] = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
static const char LAST_CHUNK[] = "\r\n0\r\n\r\n";

struct piping {
  struct taker taker;
  struct transfer transfer;
  char ticket[TICKET + 1];
  struct piping *next; /* that the host can end */
  struct watch watch;  /* the connection */
  struct timer timer;
  struct bytes unsent; /* from `at` on */
  size_t at;
  bool has_begun, is_complete, is_over, is_released;
  void (*on_first)(void *self);
  void (*on_room)(void *self);
  void *self;
};

static struct piping *pipings;

static void forget(struct piping *piping) {
  struct piping **at = &pipings;
  while (*at != NULL && *at != piping) at = &(*at)->next;
  if (*at != NULL) *at = piping->next;
}

/* Ends it; `end_connection` takes the connection if there is one. It may be gone after this. */
static void finish(struct piping *piping, void (*end_connection)(int fd)) {
  if (piping->is_over) return;
  int connection = piping->watch.fd;
  piping->is_over = true;
  forget(piping);
  timer_end(&piping->timer);
  ticket_withdraw(&piping->transfer);
  watch_end(&piping->watch);
  bytes_free(&piping->unsent);
  if (connection >= 0) end_connection(connection);
  if (piping->is_released) free(piping);
  else piping->on_room(piping->self); /* whatever comes is discarded */
}

/* --- To the edge --- */

/* Sends what can be sent now. False when the edge has left. */
static bool send_unsent(struct piping *piping) {
  while (piping->at < piping->unsent.size) {
    size_t left = piping->unsent.size - piping->at;
    int64_t sent = edge_send(piping->watch.fd, piping->unsent.data + piping->at, left, false);
    if (sent < 0) return false;
    if (sent == 0) {
      watch_change(&piping->watch, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
      return true;
    }
    piping->at += (size_t)sent;
  }
  bytes_free(&piping->unsent);
  piping->at = 0;
  watch_change(&piping->watch, EPOLLIN | EPOLLRDHUP);
  return true;
}

static void drain(struct piping *piping) {
  if (!send_unsent(piping)) finish(piping, edge_leave);
  else if (piping->unsent.size > 0) return;
  else if (piping->is_complete) finish(piping, edge_part);
  else if (!piping->is_released) piping->on_room(piping->self);
}

/* Sends the bytes now if nothing waits before them, and keeps the rest. When the edge has left, the loop will tell:
 * nothing may end within `take`, from which the reader goes on. */
static void send_or_keep(struct piping *piping, const void *bytes, size_t size) {
  int64_t sent = 0;
  if (piping->unsent.size == 0 && piping->watch.fd >= 0) sent = edge_send(piping->watch.fd, bytes, size, false);
  if (sent < 0) sent = 0;
  if ((size_t)sent == size) return;
  bytes_add(&piping->unsent, (const uint8_t *)bytes + sent, size - (size_t)sent);
  if (piping->watch.fd >= 0) watch_change(&piping->watch, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
}

static void edge_is_ready(struct watch *watch, uint32_t events) {
  struct piping *piping = MEMBER(watch, struct piping, watch);
  bool has_left = (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0;
  if (has_left || ((events & EPOLLIN) && !edge_discard(watch->fd))) finish(piping, edge_leave);
  else if (events & EPOLLOUT) drain(piping);
}

static void edge_has_come(struct transfer *transfer, int fd, const uint8_t *rest, size_t size) {
  struct piping *piping = MEMBER(transfer, struct piping, transfer);
  watch_begin(&piping->watch, fd, EPOLLIN | EPOLLRDHUP, edge_is_ready);
  if (edge_send(fd, HEAD, sizeof HEAD - 1, piping->unsent.size > 0) == (int64_t)sizeof HEAD - 1) drain(piping);
  else finish(piping, edge_leave);
}

static void nobody_came(struct transfer *transfer) { finish(MEMBER(transfer, struct piping, transfer), NULL); }

/* --- From the run --- */

static bool wants(struct taker *taker) { return MEMBER(taker, struct piping, taker)->unsent.size == 0; }

static void take(struct taker *taker, uint8_t *chunk, size_t size) {
  struct piping *piping = MEMBER(taker, struct piping, taker);
  if (piping->is_over || size <= CHUNK_HEAD) return;
  char head[CHUNK_HEAD + 1];
  snprintf(head, sizeof head, "\r\n%08zx\r\n", (size - CHUNK_HEAD) & 0xffffffff);
  memcpy(chunk, head, CHUNK_HEAD);
  size_t skipped = piping->has_begun ? 0 : 2; /* no chunk ends before the first one */
  send_or_keep(piping, chunk + skipped, size - skipped);
  if (piping->has_begun) return;
  piping->has_begun = true;
  ticket_issue(&piping->transfer, piping->ticket);
  piping->on_first(piping->self);
}

static void unclaimed(struct timer *timer) { finish(MEMBER(timer, struct piping, timer), edge_break_off); }

static void ended(struct taker *taker) {
  struct piping *piping = MEMBER(taker, struct piping, taker);
  if (!piping->is_over && !piping->is_complete) timer_begin(&piping->timer, UNCLAIMED, unclaimed);
}

struct piping *piping_begin(const char *ticket, void (*on_first)(void *self), void (*on_room)(void *self), void *self) {
  struct piping *piping = memory(sizeof *piping);
  *piping = (struct piping){
      .taker = {.headroom = CHUNK_HEAD, .wants = wants, .take = take, .ended = ended},
      .transfer = {.begin = edge_has_come, .leave = nobody_came},
      .next = pipings,
      .watch = {.fd = -1},
      .on_first = on_first,
      .on_room = on_room,
      .self = self,
  };
  memcpy(piping->ticket, ticket, strnlen(ticket, TICKET));
  return pipings = piping;
}

struct taker *piping_taker(struct piping *piping) { return &piping->taker; }

void piping_leave(struct piping *piping) { finish(piping, edge_break_off); }

void piping_release(struct piping *piping) {
  piping->is_released = true;
  if (piping->is_over) free(piping);
  else if (!timer_runs(&piping->timer)) ended(&piping->taker);
}

/* --- The host's word --- */

/* The output has ended, and is whole. From here on, the edge waits for a slow client as long as it likes. */
static void complete(struct piping *piping) {
  if (piping->is_complete) return;
  if (!piping->has_begun) return finish(piping, NULL); /* the host knows of no output, and nobody can fetch it */
  piping->is_complete = true;
  timer_end(&piping->timer);
  send_or_keep(piping, LAST_CHUNK, sizeof LAST_CHUNK - 1);
  if (piping->watch.fd >= 0 && piping->unsent.size == 0) finish(piping, edge_part);
}

bool piping_end(const char *ticket, bool is_whole) {
  struct piping *piping = pipings;
  while (piping != NULL && strcmp(piping->ticket, ticket) != 0) piping = piping->next;
  if (piping == NULL) return false;
  if (is_whole) complete(piping);
  else finish(piping, edge_break_off);
  return true;
}
