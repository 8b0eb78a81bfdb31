/* Connections of the edge (bodies.h): their heads, which name tickets, and their ends. */

#include "edge.h"
#include "asked.h"
#include "tickets.h"
#include <errno.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  PATIENCE = 10000,    /* ms that a connection may take for its head, and that one that has ended is kept */
  LARGEST_HEAD = 4096, /* bytes of a request's head */
  DISCARD = 4096,      /* bytes that are discarded at once … */
  DISCARDS = 64,       /* … so many times in a turn */
};

static const char VERSION[] = " HTTP/1.1\r\n";

/* --- Heads --- */

/* A connection whose head is arriving. It frees itself with the end of the head or of the connection. */
struct edge {
  struct watch watch;
  struct timer timer;
  size_t size;
  uint8_t head[LARGEST_HEAD];
};

/* Stops to wait. Returns the connection. */
static int edge_release(struct edge *edge) {
  int fd = edge->watch.fd;
  watch_end(&edge->watch);
  timer_end(&edge->timer);
  return fd;
}

static void edge_hang_up(struct edge *edge) {
  edge_break_off(edge_release(edge));
  free(edge);
}

/* The transfer that a complete head asks for, or NULL. */
static struct transfer *transfer_of(const uint8_t *head, size_t size) {
  const char *text = (const char *)head;
  bool brings = size > 5 && memcmp(text, "PUT /", 5) == 0;
  if (!brings && (size <= 5 || memcmp(text, "GET /", 5) != 0)) return NULL;
  if (size < 5 + TICKET + sizeof VERSION - 1) return NULL;
  if (memcmp(text + 5 + TICKET, VERSION, sizeof VERSION - 1) != 0) return NULL;
  return ticket_redeem(brings, text + 5);
}

/* Where what follows the head begins; 0 when the head is not complete. */
static size_t end_of_head(const uint8_t *arrived, size_t size) {
  const uint8_t *found = memmem(arrived, size < LARGEST_HEAD ? size : LARGEST_HEAD, "\r\n\r\n", 4);
  return found == NULL ? 0 : (size_t)(found - arrived) + 4;
}

/* Hands the connection to what its ticket opens. */
static void open_transfer(int fd, const uint8_t *arrived, size_t size, size_t head) {
  struct transfer *transfer = transfer_of(arrived, head);
  if (transfer == NULL) edge_break_off(fd);
  else transfer->begin(transfer, fd, arrived + head, size - head);
}

static void too_late(struct timer *timer) { edge_hang_up(MEMBER(timer, struct edge, timer)); }

static void head_arrives(struct watch *watch, uint32_t events) {
  struct edge *edge = MEMBER(watch, struct edge, watch);
  ssize_t count = recv(watch->fd, edge->head + edge->size, LARGEST_HEAD - edge->size, 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {
    edge_leave(edge_release(edge));
    free(edge);
    return;
  }
  edge->size += (size_t)count;
  size_t head = end_of_head(edge->head, edge->size);
  if (head == 0 && edge->size < LARGEST_HEAD) return;
  if (head == 0) return edge_hang_up(edge);
  open_transfer(edge_release(edge), edge->head, edge->size, head);
  free(edge);
}

void body_connection(int fd, const uint8_t *arrived, size_t size) {
  int yes = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  size_t head = end_of_head(arrived, size);
  if (head > 0) return open_transfer(fd, arrived, size, head);
  if (size >= LARGEST_HEAD) return edge_break_off(fd);
  struct edge *edge = memory(sizeof *edge);
  memcpy(edge->head, arrived, size);
  edge->size = size;
  timer_begin(&edge->timer, PATIENCE, too_late);
  watch_begin(&edge->watch, fd, EPOLLIN, head_arrives);
}

/* --- Bytes --- */

int64_t edge_send(int fd, const void *bytes, size_t size, bool more) {
  ssize_t sent = send(fd, bytes, size, MSG_NOSIGNAL | (more ? MSG_MORE : 0));
  if (sent >= 0) return sent;
  return errno == EAGAIN || errno == EINTR || errno == ENOBUFS ? 0 : -1;
}

bool edge_discard(int fd) {
  uint8_t nothing[DISCARD];
  for (int times = 0; times < DISCARDS; times++) {
    ssize_t count = recv(fd, nothing, sizeof nothing, 0);
    if (count < 0) return errno == EAGAIN || errno == EINTR;
    if (count == 0) return false;
  }
  return true;
}

/* --- Ends --- */

/* A connection on which nothing more is sent. A close with bytes of the edge unread would reset it, and the edge would
 * lose what it has not read yet. So it is kept until the edge has closed its side; and a client that reads slowly has
 * all the time it wants, which the kernel does not grant to a connection that is closed here. */
struct parting {
  struct watch watch;
  struct timer timer;
};

static void parting_over(struct parting *parting) {
  int fd = parting->watch.fd;
  watch_end(&parting->watch);
  timer_end(&parting->timer);
  free(parting);
  close(fd);
}

static void parting_hears(struct watch *watch, uint32_t events) {
  if ((events & (EPOLLHUP | EPOLLERR)) || !edge_discard(watch->fd)) parting_over(MEMBER(watch, struct parting, watch));
}

static void parting_waited(struct timer *timer) {
  struct parting *parting = MEMBER(timer, struct parting, timer);
  int unread = 0; /* bytes that the edge has yet to take */
  if (ioctl(parting->watch.fd, SIOCOUTQ, &unread) == 0 && unread > 0) timer_begin(timer, PATIENCE, parting_waited);
  else parting_over(parting);
}

void edge_part(int fd) {
  if (shutdown(fd, SHUT_WR) != 0 || !edge_discard(fd)) {
    close(fd);
    return;
  }
  struct parting *parting = memory(sizeof *parting);
  watch_begin(&parting->watch, fd, EPOLLIN | EPOLLRDHUP, parting_hears);
  timer_begin(&parting->timer, PATIENCE, parting_waited);
}

void edge_leave(int fd) { close(fd); }

void edge_break_off(int fd) {
  struct linger reset = {.l_onoff = 1, .l_linger = 0};
  setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  close(fd);
}
