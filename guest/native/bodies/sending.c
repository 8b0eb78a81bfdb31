/* Parts of files for the edge (bodies.h). The bytes go from the file to the connection without a copy here.
 *
 * It breaks off when the edge does not come, leaves early, or the file becomes shorter. It frees itself when the answer
 * that it is the source of has been told of its end, or drops it. */

#include "bodies.h"
#include "edge.h"
#include "tickets.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <unistd.h>

enum {
  TURN = 4 << 20,   /* bytes that are sent before other work gets a turn */
  PIECE = 64 << 10, /* bytes that are copied at once */
};

struct sending {
  struct source source;
  struct transfer transfer;
  struct watch watch; /* the connection */
  struct later turn;
  int file; /* -1 when it is over */
  int64_t at, end;
  bool is_copied;  /* the file system cannot send */
  bool is_awaited; /* by the link */
  const char *why; /* it broke off; NULL: it did not */
};

static const char EDGE_HAS_LEFT[] = "the edge has left";
static const char SHORTER[] = "the file became shorter";

/* The end, with the reason why it broke off, or NULL. The object may be gone after it. */
static void finish(struct sending *sending, const char *why) {
  if (sending->file < 0) return;
  int connection = sending->watch.fd;
  sending->why = why;
  ticket_withdraw(&sending->transfer);
  watch_end(&sending->watch);
  later_end(&sending->turn);
  close(sending->file);
  sending->file = -1;
  if (connection < 0) {
  } /* nobody has come */
  else if (why == NULL)
    edge_part(connection);
  else if (why == EDGE_HAS_LEFT) edge_leave(connection);
  else edge_break_off(connection);
  if (sending->is_awaited) source_ready(&sending->source);
}

/* --- To the edge --- */

/* Sends a piece by way of a buffer. As `send_piece`. */
static int64_t copy_piece(struct sending *sending, size_t size) {
  if (size > PIECE) size = PIECE;
  uint8_t *piece = memory(size);
  ssize_t count = pread(sending->file, piece, size, sending->at);
  int64_t sent = count;
  if (count < 0) sending->why = strerror(errno);
  else if (count == 0) sending->why = SHORTER;
  else if ((sent = edge_send(sending->watch.fd, piece, (size_t)count, false)) < 0) sending->why = EDGE_HAS_LEFT;
  free(piece);
  return sending->why == NULL ? sent : -1;
}

/* Sends a piece. The number of bytes, 0 when there is no room, or -1 with the reason in `why`. */
static int64_t send_piece(struct sending *sending, size_t size) {
  if (sending->is_copied) return copy_piece(sending, size);
  off_t at = sending->at;
  ssize_t sent = sendfile(sending->watch.fd, sending->file, &at, size);
  if (sent > 0) return sent;
  if (sent == 0) sending->why = SHORTER;
  else if (errno == EAGAIN || errno == EINTR) return 0;
  else if (errno == EPIPE || errno == ECONNRESET || errno == ENOTCONN) sending->why = EDGE_HAS_LEFT;
  else {
    sending->is_copied = true; /* which also tells a file that cannot be read */
    return copy_piece(sending, size);
  }
  return -1;
}

static void send_more(struct sending *sending);

static void turn_has_come(struct later *later) { send_more(MEMBER(later, struct sending, turn)); }

static void send_more(struct sending *sending) {
  for (int64_t stop = sending->at + TURN; sending->at < sending->end;) {
    if (sending->at >= stop) {
      watch_change(&sending->watch, EPOLLIN | EPOLLRDHUP);
      later_begin(&sending->turn, turn_has_come);
      return;
    }
    int64_t left = sending->end - sending->at;
    int64_t sent = send_piece(sending, (size_t)(left < TURN ? left : TURN));
    if (sent < 0) return finish(sending, sending->why);
    if (sent == 0) return watch_change(&sending->watch, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
    sending->at += sent;
  }
  finish(sending, NULL);
}

static void edge_is_ready(struct watch *watch, uint32_t events) {
  struct sending *sending = MEMBER(watch, struct sending, watch);
  bool has_left = (events & (EPOLLHUP | EPOLLERR | EPOLLRDHUP)) != 0;
  if (has_left || ((events & EPOLLIN) && !edge_discard(watch->fd))) return finish(sending, EDGE_HAS_LEFT);
  if ((events & EPOLLOUT) && sending->turn.next == NULL) send_more(sending);
}

static void edge_has_come(struct transfer *transfer, int fd, const uint8_t *rest, size_t size) {
  struct sending *sending = MEMBER(transfer, struct sending, transfer);
  watch_begin(&sending->watch, fd, EPOLLIN | EPOLLRDHUP, edge_is_ready);
  char *head = format_text("HTTP/1.1 200 OK\r\nContent-Length: %lld\r\nConnection: close\r\n\r\n",
                           (long long)(sending->end - sending->at));
  size_t length = strlen(head);
  bool is_sent = edge_send(fd, head, length, sending->at < sending->end) == (int64_t)length;
  free(head);
  if (is_sent) send_more(sending);
  else finish(sending, EDGE_HAS_LEFT);
}

static void nobody_came(struct transfer *transfer) {
  finish(MEMBER(transfer, struct sending, transfer), EDGE_HAS_LEFT);
}

/* --- To the host --- */

static enum pulled next(struct source *source, const uint8_t **piece, size_t *size, const char **why) {
  struct sending *sending = MEMBER(source, struct sending, source);
  sending->is_awaited = sending->file >= 0;
  if (sending->is_awaited) return PULLED_LATER;
  enum pulled pulled = sending->why == NULL ? PULLED_END : PULLED_FAILED;
  if (pulled == PULLED_FAILED) *why = sending->why;
  free(sending);
  return pulled;
}

static void drop(struct source *source) {
  struct sending *sending = MEMBER(source, struct sending, source);
  sending->is_awaited = false;
  finish(sending, "the host has left");
  free(sending);
}

struct source *sending_begin(const char *ticket, int fd, int64_t at, int64_t end) {
  struct sending *sending = memory(sizeof *sending);
  *sending = (struct sending){
      .source = {.next = next, .drop = drop},
      .transfer = {.begin = edge_has_come, .leave = nobody_came},
      .watch = {.fd = -1},
      .file = fd,
      .at = at,
      .end = end,
  };
  ticket_issue(&sending->transfer, ticket);
  return &sending->source;
}
