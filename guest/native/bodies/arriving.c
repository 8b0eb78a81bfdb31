/* Bytes that the edge brings (bodies.h). They are read only as fast as the target takes them.
 *
 * An arriving frees itself after it has called `over`, for which it takes a turn of its own: the target may end it from
 * within `take`, and never loses it there. */

#include "bodies.h"
#include "edge.h"
#include "tickets.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum {
  ROOM = 256 << 10, /* bytes that are read at once */
  READS = 4,        /* in a turn */
};

/* To an upload, whether it has come whole or not: nginx turns an error into a question to the server. */
static const char ASK[] = "HTTP/1.1 502 Ask the server\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

struct arriving {
  struct transfer transfer;
  struct watch watch; /* the connection */
  struct later end;
  const struct arriving_target *target;
  void *self;
  int64_t left;    /* bytes to arrive */
  int64_t missing; /* that the target has not taken */
  uint8_t *room;   /* NULL when nothing arrives any more and the target holds nothing */
  size_t part;     /* bytes in it that the target is taking */
  bool is_taking, has_left;
};

static void end(struct later *later) {
  struct arriving *arriving = MEMBER(later, struct arriving, end);
  arriving->target->over(arriving->self, arriving->missing);
  free(arriving);
}

/* Nothing more comes. Returns the connection, or -1. */
static int leave(struct arriving *arriving) {
  int fd = arriving->watch.fd;
  ticket_withdraw(&arriving->transfer);
  watch_end(&arriving->watch);
  arriving->has_left = true;
  if (arriving->is_taking) return fd; /* it still needs the bytes */
  free(arriving->room);
  arriving->room = NULL;
  later_begin(&arriving->end, end);
  return fd;
}

void arriving_stop(struct arriving *arriving) {
  int fd = leave(arriving);
  if (fd >= 0) edge_break_off(fd);
}

void arriving_finish(struct arriving *arriving) {
  int fd = leave(arriving);
  if (fd < 0) return;
  if (edge_send(fd, ASK, sizeof ASK - 1, false) < 0) edge_break_off(fd);
  else edge_part(fd);
}

/* The target has taken the part, or wants no more. */
static void taken(struct arriving *arriving, bool wants) {
  arriving->is_taking = false;
  if (wants) arriving->missing -= (int64_t)arriving->part;
  arriving->part = 0;
  if (arriving->has_left) leave(arriving);
  else if (!wants || arriving->missing == 0) arriving_finish(arriving);
  else watch_change(&arriving->watch, EPOLLIN);
}

void arriving_taken(struct arriving *arriving, bool wants) {
  if (arriving->is_taking) taken(arriving, wants);
}

/* Gives the target what has arrived in `room`. Whether more can be read now. */
static bool pass(struct arriving *arriving, size_t size) {
  arriving->left -= (int64_t)size;
  arriving->part = size;
  arriving->is_taking = true;
  enum taken answer = arriving->target->take(arriving->self, arriving->room, size);
  if (answer == TAKEN_LATER && arriving->is_taking) watch_change(&arriving->watch, 0);
  if (answer == TAKEN_LATER) return !arriving->is_taking && !arriving->has_left;
  taken(arriving, answer == TAKEN_MORE);
  return !arriving->has_left;
}

static size_t room_for(int64_t left) { return left < ROOM ? (size_t)left : ROOM; }

static void edge_is_ready(struct watch *watch, uint32_t events) {
  struct arriving *arriving = MEMBER(watch, struct arriving, watch);
  if (arriving->is_taking) return arriving_stop(arriving); /* it was reset: nothing else is watched now */
  for (int reads = 0; reads < READS; reads++) {
    ssize_t count = recv(watch->fd, arriving->room, room_for(arriving->left), 0);
    if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (count <= 0) return edge_leave(leave(arriving));
    if (!pass(arriving, (size_t)count)) return;
  }
}

/* More than was announced is discarded when it ends. */
static void edge_has_come(struct transfer *transfer, int fd, const uint8_t *rest, size_t size) {
  struct arriving *arriving = MEMBER(transfer, struct arriving, transfer);
  watch_begin(&arriving->watch, fd, EPOLLIN, edge_is_ready);
  if (arriving->left == 0) return arriving_finish(arriving);
  if ((uint64_t)size > (uint64_t)arriving->left) size = (size_t)arriving->left;
  size_t room = room_for(arriving->left);
  arriving->room = memory(size > room ? size : room);
  memcpy(arriving->room, rest, size);
  if (size > 0) pass(arriving, size);
}

static void nobody_came(struct transfer *transfer) { leave(MEMBER(transfer, struct arriving, transfer)); }

struct arriving *arriving_begin(const char *ticket, int64_t size, const struct arriving_target *target, void *self) {
  struct arriving *arriving = memory(sizeof *arriving);
  *arriving = (struct arriving){
      .transfer = {.brings = true, .begin = edge_has_come, .leave = nobody_came},
      .watch = {.fd = -1},
      .target = target,
      .self = self,
      .left = size,
      .missing = size,
  };
  ticket_issue(&arriving->transfer, ticket);
  return arriving;
}
