/* The guest's end of the link to the server: connections and their frames (link.h, PROTOCOL.md). */

#include "link.h"
#include "loop.h"
#include "streams.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
  PATIENCE = 10000,     /* ms to wait for the secret */
  SOONER = 128 << 10,   /* bytes that are sent before the end of the turn */
  ARRIVING = 128 << 10, /* bytes that are read at once */
  SMALL = 8 << 10,      /* bytes of it that stay in memory */
  KEPT = 1000,          /* ms for which the rest stays */
  CROWDED = 100,        /* ms until connections are taken again when there are no descriptors for them */
  BACKLOG = 512
};

struct link {
  struct watch watch;
  struct timer patience;
  struct later flush;
  bool is_welcome, is_closed, is_reading, is_blocked;

  /* The frame that is arriving */
  uint8_t head[FRAME];
  size_t head_size;
  char kind;
  uint32_t number;
  size_t size;
  struct bytes payload; /* what has come, if it came in pieces */
  bool is_wanted;
  size_t skipped; /* of a payload that nobody wants */

  struct stream *streams;                      /* that have not ended */
  struct stream *first_waiting, *last_waiting; /* for the host to read */
  uint32_t latest;                             /* number of a stream */

  struct bytes leaving;
  size_t sent; /* of it */
};

static struct {
  struct watch listener;
  struct timer crowded;
  void (*answer)(struct asked *asked);
  uint8_t *arriving; /* what was read, of one connection at a time */
  struct timer kept;
} all;

/* --- The end of a connection --- */

static void free_link(struct link *link) {
  if (link->is_reading) return; /* `readable` frees it */
  later_end(&link->flush);
  bytes_free(&link->payload);
  bytes_free(&link->leaving);
  free(link);
}

static void close_link(struct link *link) {
  if (link->is_closed) return;
  link->is_closed = true;
  timer_end(&link->patience);
  int fd = link->watch.fd;
  watch_end(&link->watch);
  if (fd >= 0) close(fd);
  for (struct stream *stream; (stream = link->streams) != NULL;) {
    link_forget(link, stream);
    stream_leave(stream);
  }
  free_link(link);
}

/* --- Leaving --- */

/* Gives up what has left, when that is most of it: a host that reads slowly and asks on may never take all. */
static void forget_sent(struct link *link) {
  if (link->sent < link->leaving.size / 2) return;
  link->leaving.size -= link->sent;
  memmove(link->leaving.data, link->leaving.data + link->sent, link->leaving.size);
  link->sent = 0;
}

static void flush(struct link *link) {
  while (link->sent < link->leaving.size && !link->is_closed) {
    ssize_t count =
        send(link->watch.fd, link->leaving.data + link->sent, link->leaving.size - link->sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      /* A broken connection is told by its event. */
      link->is_blocked = true;
      watch_change(&link->watch, EPOLLIN | EPOLLOUT);
      return forget_sent(link);
    }
    link->sent += (size_t)count;
  }
  bytes_free(&link->leaving);
  link->sent = 0;
}

static void flush_later(struct later *later) { flush(MEMBER(later, struct link, flush)); }

bool link_is_blocked(const struct link *link) { return link->is_blocked; }

void link_send(struct link *link, char kind, uint32_t number, const void *head, size_t head_size, const void *rest,
               size_t rest_size) {
  if (link->is_closed) return;
  uint8_t *frame = bytes_room(&link->leaving, FRAME + head_size + rest_size);
  frame[0] = (uint8_t)kind;
  put_number(frame + 1, number);
  put_number(frame + 5, (uint32_t)(head_size + rest_size));
  if (head_size > 0) memcpy(frame + FRAME, head, head_size);
  if (rest_size > 0) memcpy(frame + FRAME + head_size, rest, rest_size);
  link->leaving.size += FRAME + head_size + rest_size;
  if (link->is_blocked) return;
  if (link->leaving.size - link->sent >= SOONER) flush(link);
  else later_begin(&link->flush, flush_later);
}

void link_wait(struct link *link, struct stream *stream) {
  if (stream->is_waiting) return;
  stream->is_waiting = true;
  stream->wait_next = NULL;
  stream->wait_previous = link->last_waiting;
  if (link->last_waiting == NULL) link->first_waiting = stream;
  else link->last_waiting->wait_next = stream;
  link->last_waiting = stream;
}

static void stop_waiting(struct link *link, struct stream *stream) {
  if (!stream->is_waiting) return;
  stream->is_waiting = false;
  if (stream->wait_previous == NULL) link->first_waiting = stream->wait_next;
  else stream->wait_previous->wait_next = stream->wait_next;
  if (stream->wait_next == NULL) link->last_waiting = stream->wait_previous;
  else stream->wait_next->wait_previous = stream->wait_previous;
}

void link_forget(struct link *link, struct stream *stream) {
  stop_waiting(link, stream);
  if (stream->previous == NULL) link->streams = stream->next;
  else stream->previous->next = stream->next;
  if (stream->next != NULL) stream->next->previous = stream->previous;
  stream->next = stream->previous = NULL;
}

/* The host has read. The streams take turns. */
static void writable(struct link *link) {
  link->is_blocked = false;
  flush(link);
  while (!link->is_blocked && link->first_waiting != NULL) {
    struct stream *stream = link->first_waiting;
    stop_waiting(link, stream);
    stream_advance(stream);
  }
  if (!link->is_blocked) watch_change(&link->watch, EPOLLIN);
}

/* --- Arriving --- */

static struct stream *stream_numbered(struct link *link, uint32_t number) {
  struct stream *stream = link->streams;
  while (stream != NULL && stream->number != number) stream = stream->next;
  return stream;
}

/* Judges a frame by its head. */
static bool is_proper(struct link *link) {
  if (link->size > LARGEST) return false;
  if (!link->is_welcome) return link->kind == 'h' && link->number == 0 && link->size == strlen(settings.secret);
  if (link->kind == 'q' || link->kind == 'b') return link->number > link->latest && link->size >= 2;
  if (link->number == 0 || link->number > link->latest) return false;
  struct stream *stream = stream_numbered(link, link->number);
  if (link->kind == 'd') return stream == NULL || stream_admits(stream, false, link->size);
  if (link->kind == 'e') return link->size == 0 && (stream == NULL || stream_admits(stream, true, 0));
  return link->kind == 'c' ? link->size == 0 : link->kind == 'w' && link->size == 4;
}

static bool welcome(struct link *link, const uint8_t *secret) {
  static const char hello[] = "{\"protocol\":2}";
  _Static_assert(PROTOCOL == 2, "hello says it too");
  unsigned difference = link->size == 0; /* in a time that does not depend on where they differ */
  for (size_t at = 0; at < link->size; at++) difference |= secret[at] ^ (uint8_t)settings.secret[at];
  if (difference != 0) return false;
  link->is_welcome = true;
  timer_end(&link->patience);
  link_send(link, 'h', 0, hello, sizeof hello - 1, NULL, 0);
  return true;
}

static bool begin(struct link *link, const uint8_t *payload) {
  size_t target = (size_t)payload[0] << 8 | payload[1];
  if (target + 2 > link->size) return false;
  struct stream *stream = stream_begin(link, link->number, payload + 2, target);
  link->latest = link->number;
  stream->next = link->streams;
  if (link->streams != NULL) link->streams->previous = stream;
  link->streams = stream;
  stream->is_busy = true;
  stream_lend(stream, payload + 2 + target, link->size - 2 - target, link->size, link->kind == 'q');
  all.answer(asked_of(stream));
  stream_called(stream);
  return true;
}

static bool act(struct link *link, const uint8_t *payload) {
  if (link->kind == 'h') return welcome(link, payload);
  if (link->kind == 'q' || link->kind == 'b') return begin(link, payload);
  struct stream *stream = stream_numbered(link, link->number);
  if (stream == NULL) return true;
  if (link->kind == 'd') stream_receive(stream, payload, link->size, link->size);
  else if (link->kind == 'e') stream_complete(stream);
  else if (link->kind == 'c') stream_cancel(stream);
  else stream_grant(stream, number_at(payload));
  return true;
}

/* Takes the head of a frame, as far as it has come. False for a violation. */
static bool take_head(struct link *link, const uint8_t **at, size_t *left) {
  size_t size = FRAME - link->head_size < *left ? FRAME - link->head_size : *left;
  memcpy(link->head + link->head_size, *at, size);
  link->head_size += size;
  *at += size;
  *left -= size;
  if (link->head_size < FRAME) return true;
  link->kind = (char)link->head[0];
  link->number = number_at(link->head + 1);
  link->size = number_at(link->head + 5);
  link->is_wanted = link->kind != 'd' || stream_numbered(link, link->number) != NULL;
  link->skipped = 0;
  return is_proper(link);
}

/* Takes the payload, as far as it has come. NULL until it is complete. It lies in `at` or in link->payload. */
static const uint8_t *take_payload(struct link *link, const uint8_t **at, size_t *left) {
  size_t come = link->is_wanted ? link->payload.size : link->skipped, missing = link->size - come;
  size_t size = missing < *left ? missing : *left;
  const uint8_t *part = *at;
  *at += size;
  *left -= size;
  if (!link->is_wanted) {
    link->skipped += size;
    return size == missing ? part : NULL;
  }
  if (come == 0 && size == link->size) return part;
  bytes_add(&link->payload, part, size);
  return size == missing ? link->payload.data : NULL;
}

/* False for a violation. */
static bool parse(struct link *link, const uint8_t *at, size_t left) {
  while (!link->is_closed) {
    if (link->head_size < FRAME) {
      if (!take_head(link, &at, &left)) return false;
      if (link->head_size < FRAME) return true;
    }
    const uint8_t *payload = take_payload(link, &at, &left);
    if (payload == NULL) return true;
    struct bytes mine = link->payload; /* what is done with it may close the link */
    link->payload = (struct bytes){0};
    link->head_size = 0;
    bool is_fine = act(link, payload);
    bytes_free(&mine);
    if (!is_fine) return false;
  }
  return true;
}

/* --- Connections --- */

static void forget_arriving(struct timer *timer) {
  free(all.arriving);
  all.arriving = NULL;
}

/* Whether a connection that begins with this byte carries a body. A link begins with `h`. */
static bool carries_body(const struct link *link, uint8_t first) {
  return !link->is_welcome && link->head_size == 0 && (first == 'G' || first == 'P');
}

static void hand_to_bodies(struct link *link, size_t size) {
  int fd = link->watch.fd;
  watch_end(&link->watch);
  close_link(link);
  body_connection(fd, all.arriving, size);
}

static bool read_some(struct link *link) {
  if (all.arriving == NULL && (all.arriving = try_memory(ARRIVING)) == NULL) return false;
  ssize_t count = recv(link->watch.fd, all.arriving, ARRIVING, 0);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) return false;
  if (count > SMALL && !timer_runs(&all.kept)) timer_begin(&all.kept, KEPT, forget_arriving);
  if (carries_body(link, all.arriving[0])) {
    hand_to_bodies(link, (size_t)count);
    return true;
  }
  return parse(link, all.arriving, (size_t)count);
}

static void ready(struct watch *watch, uint32_t events) {
  struct link *link = MEMBER(watch, struct link, watch);
  link->is_reading = true;
  if (events & EPOLLOUT) writable(link);
  if (!link->is_closed && (events & (EPOLLIN | EPOLLHUP | EPOLLERR)) && !read_some(link)) close_link(link);
  link->is_reading = false;
  if (link->is_closed) free_link(link);
}

static void no_secret(struct timer *timer) { close_link(MEMBER(timer, struct link, patience)); }

static void link_begin(int fd) {
  const int on = 1;
  struct link *link = memory(sizeof *link);
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  watch_begin(&link->watch, fd, EPOLLIN, ready);
  timer_begin(&link->patience, PATIENCE, no_secret);
}

static void listen_again(struct timer *timer) { watch_change(&all.listener, EPOLLIN); }

static void incoming(struct watch *watch, uint32_t events) {
  for (;;) {
    int fd = accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0) link_begin(fd);
    else if (errno == EAGAIN) return;
    else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS) {
      watch_change(watch, 0);
      return timer_begin(&all.crowded, CROWDED, listen_again);
    } else if (errno != EINTR && errno != ECONNABORTED) return;
  }
}

static socklen_t address_of(struct sockaddr_storage *address) {
  struct sockaddr_in *four = (struct sockaddr_in *)address;
  struct sockaddr_in6 *six = (struct sockaddr_in6 *)address;
  if (inet_pton(AF_INET, settings.address, &four->sin_addr) == 1) {
    four->sin_family = AF_INET;
    four->sin_port = htons((uint16_t)settings.port);
    return sizeof *four;
  }
  if (inet_pton(AF_INET6, settings.address, &six->sin6_addr) != 1) return 0;
  six->sin6_family = AF_INET6;
  six->sin6_port = htons((uint16_t)settings.port);
  return sizeof *six;
}

/* Without SO_REUSEPORT: otherwise a program of the session may listen here, too. */
bool link_listen(void (*answer)(struct asked *asked)) {
  const int on = 1;
  struct sockaddr_storage address = {0};
  socklen_t size = address_of(&address);
  errno = EINVAL;
  if (size == 0) return false;
  int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, BACKLOG) != 0) return false;
  all.answer = answer;
  watch_begin(&all.listener, fd, EPOLLIN, incoming);
  return true;
}
