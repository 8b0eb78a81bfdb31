/* The connections between kernels and the guest, over an abstract socket. Everything in the session can connect:
 * whoever does not say a secret that is expected is a stranger. A frame is judged by its first five bytes, before
 * more is kept. */

#include "context_line.h"
#include "frames.h"
#include "loop.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { LARGEST = 12 << 20 }; /* bytes of a frame */
enum { LARGEST_OF_STRANGER = 1000 };
enum { MOST_STRANGERS = 32 }; /* the oldest is sent away for the next one */
enum { FIRST_ROOM = 4 << 10, MOST_ROOM = 64 << 10 };
enum { LAST_WORDS = 1 << 20 }; /* bytes that are taken after the end of a kernel: more than its socket holds */
enum { REST = 100 };           /* ms without new connections, when the guest has no descriptor left */
#define PREFIX "buntime-contexts-"

struct line {
  struct watch watch;
  struct caller *caller; /* NULL: a stranger */
  struct line *next;     /* of strangers, the latest first */
  struct bytes arrived;
  struct bytes unsent;
  size_t sent;
};

static struct {
  char name[sizeof PREFIX + UUID];
  struct watch watch;
  bool is_listening;
  struct timer rest;
  struct line *strangers;
  struct caller *expected;
} lines;

/* --- Who calls --- */

static void leave_strangers(struct line *line) {
  for (struct line **at = &lines.strangers; *at != NULL; at = &(*at)->next)
    if (*at == line) {
      *at = line->next;
      return;
    }
}

static void close_line(struct line *line) {
  if (line->caller != NULL) line->caller->line = NULL;
  else leave_strangers(line);
  int fd = line->watch.fd;
  watch_end(&line->watch);
  close(fd);
  bytes_free(&line->arrived);
  bytes_free(&line->unsent);
  free(line);
}

void caller_expect(struct caller *caller) {
  make_uuid(caller->secret);
  caller->is_expected = true;
  caller->next = lines.expected;
  lines.expected = caller;
}

void caller_forget(struct caller *caller) {
  if (!caller->is_expected) return;
  caller->is_expected = false;
  for (struct caller **at = &lines.expected; *at != NULL; at = &(*at)->next)
    if (*at == caller) {
      *at = caller->next;
      return;
    }
}

/* False: nobody expects this. */
static bool meet(struct line *line, const uint8_t *secret, size_t size) {
  if (size != UUID) return false;
  struct caller *caller = lines.expected;
  while (caller != NULL && memcmp(caller->secret, secret, UUID) != 0) caller = caller->next;
  if (caller == NULL) return false;
  caller_forget(caller);
  leave_strangers(line);
  line->caller = caller;
  caller->line = line;
  caller->met(caller);
  return true;
}

/* --- What comes --- */

/* The connection ends because of what came. */
static bool refuse(struct line *line) {
  struct caller *caller = line->caller;
  close_line(line);
  if (caller != NULL) caller->wrong(caller);
  return false;
}

/* Room for what is still missing of the frame, step by step: who announces much has to send much. */
static size_t make_room(struct bytes *arrived) {
  size_t more = FIRST_ROOM;
  if (arrived->size >= FRAME_HEADER) {
    size_t missing = FRAME_HEADER + (size_t)number_at(arrived->data + 1) - arrived->size;
    size_t most = arrived->size > MOST_ROOM ? arrived->size : MOST_ROOM;
    more = missing < most ? missing : most;
  }
  if (arrived->room - arrived->size >= more) return more;
  uint8_t *larger = realloc(arrived->data, arrived->size + more);
  if (larger == NULL) return 0;
  arrived->data = larger;
  arrived->room = arrived->size + more;
  return more;
}

static bool pass(struct line *line, size_t at, size_t size) {
  struct bytes *arrived = &line->arrived;
  const uint8_t *frame = arrived->data + at;
  if (line->caller == NULL) return meet(line, frame + FRAME_HEADER, size - FRAME_HEADER) || refuse(line);
  line->caller->take(line->caller, frame, size, size == arrived->size ? arrived : NULL);
  return true;
}

/* Passes on the frames that have come as a whole. False: the line is gone. */
static bool pass_whole(struct line *line) {
  struct bytes *arrived = &line->arrived;
  size_t at = 0;
  while (arrived->size - at >= FRAME_HEADER) {
    size_t size = FRAME_HEADER + (size_t)number_at(arrived->data + at + 1);
    if (size > LARGEST || (line->caller == NULL && size > LARGEST_OF_STRANGER)) return refuse(line);
    if (arrived->size - at < size) break;
    if (!pass(line, at, size)) return false;
    if (arrived->size == 0) return true; /* its memory was taken */
    at += size;
  }
  arrived->size -= at;
  if (arrived->size == 0) bytes_free(arrived);
  else if (at > 0) memmove(arrived->data, arrived->data + at, arrived->size);
  return true;
}

/* Returns how many bytes have come. 0: none now, or the line is gone (then *is_gone). */
static size_t receive(struct line *line, bool *is_gone) {
  size_t room = make_room(&line->arrived);
  ssize_t count = room == 0 ? 0 : recv(line->watch.fd, line->arrived.data + line->arrived.size, room, 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) {
    if (line->arrived.size == 0) bytes_free(&line->arrived);
    return 0;
  }
  *is_gone = true;
  if (count <= 0) {
    if (room == 0) refuse(line);
    else close_line(line);
    return 0;
  }
  line->arrived.size += (size_t)count;
  *is_gone = !pass_whole(line);
  return (size_t)count;
}

/* --- What is sent --- */

static void send_more(struct line *line) {
  while (line->sent < line->unsent.size) {
    ssize_t count = send(line->watch.fd, line->unsent.data + line->sent, line->unsent.size - line->sent, MSG_NOSIGNAL);
    if (count < 0 && errno == EAGAIN) {
      watch_change(&line->watch, EPOLLIN | EPOLLOUT);
      return;
    }
    if (count < 0) break; /* it has hung up, which is told when it is read */
    line->sent += (size_t)count;
  }
  bytes_free(&line->unsent);
  watch_change(&line->watch, EPOLLIN);
}

void line_send(struct caller *caller, struct bytes *frame) {
  struct line *line = caller->line;
  if (line == NULL) {
    bytes_free(frame);
    return;
  }
  bytes_free(&line->unsent);
  line->unsent = *frame;
  line->sent = 0;
  *frame = (struct bytes){0};
  send_more(line);
}

void line_end(struct caller *caller) {
  bool is_gone = false;
  for (size_t moved = 0, count = 1; caller->line != NULL && count > 0 && moved < LAST_WORDS; moved += count)
    count = receive(caller->line, &is_gone);
  if (caller->line != NULL) close_line(caller->line);
}

/* --- The socket --- */

static void line_ready(struct watch *watch, uint32_t events) {
  struct line *line = MEMBER(watch, struct line, watch);
  if (events & EPOLLOUT) send_more(line);
  bool is_gone = false;
  if (events & ~(uint32_t)EPOLLOUT) receive(line, &is_gone);
}

static void send_oldest_away(void) {
  size_t count = 0;
  struct line *last = NULL;
  for (struct line *line = lines.strangers; line != NULL; line = line->next, count++) last = line;
  if (count >= MOST_STRANGERS) close_line(last);
}

static void listen_again(struct timer *timer) { watch_change(&lines.watch, EPOLLIN); }

static void called(struct watch *watch, uint32_t events) {
  int fd = accept4(watch->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
  if (fd < 0) {
    if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED) return;
    watch_change(watch, 0);
    timer_begin(&lines.rest, REST, listen_again);
    return;
  }
  send_oldest_away();
  struct line *line = memory(sizeof *line);
  line->next = lines.strangers;
  lines.strangers = line;
  watch_begin(&line->watch, fd, EPOLLIN, line_ready);
}

const char *line_address(struct failure *failure) {
  if (lines.is_listening) return lines.name;
  memcpy(lines.name, PREFIX, sizeof PREFIX - 1);
  make_uuid(lines.name + sizeof PREFIX - 1);
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  memcpy(address.sun_path + 1, lines.name, sizeof lines.name - 1);
  socklen_t size = offsetof(struct sockaddr_un, sun_path) + 1 + sizeof lines.name - 1;
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&address, size) != 0 || listen(fd, SOMAXCONN) != 0) {
    int error = errno;
    if (fd >= 0) close(fd);
    fail(failure, error, "no socket for contexts can be made");
    return NULL;
  }
  watch_begin(&lines.watch, fd, EPOLLIN, called);
  lines.is_listening = true;
  return lines.name;
}
