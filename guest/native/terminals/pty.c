/* A pseudo-terminal. The guest holds the user's end of it.
 *
 * Nothing is read before it is wanted, so a slow client slows the program down. It hangs up whenever no program has
 * it open, and another one may open it later. It also says that it has room for input when it takes none. So the loop
 * tells only of changes (EPOLLET). The kernel does not always report that there is room again. */

#include "pty.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

enum { TURN = 256 << 10 };     /* bytes that one terminal may move before others get a turn */
enum { RETRY = 50 };           /* ms, in case the kernel does not report that there is room again */
enum { LAST_WORDS = 1 << 20 }; /* bytes that are still read after the end */

struct pty_input {
  struct pty_input *next;
  void (*taken)(void *self, size_t count);
  void (*dropped)(void *self);
  void *self;
  size_t at, size;
  uint8_t bytes[];
};

/* --- Making one --- */

/* A backspace deletes a whole character. */
static void expect_unicode(int fd) {
  struct termios termios;
  if (tcgetattr(fd, &termios) != 0) return;
  termios.c_iflag |= IUTF8;
  tcsetattr(fd, TCSANOW, &termios);
}

static void ready(struct watch *watch, uint32_t events);

bool pty_begin(struct pty *pty, unsigned cols, unsigned rows, struct audience *audience, struct failure *failure) {
  *pty = (struct pty){.fd = -1, .audience = audience, .last = &pty->first};
  int fd = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return fail(failure, EAGAIN, "no terminal can be made: %s", error_name(errno));
  int is_locked = 0;
  if (ioctl(fd, TIOCSPTLCK, &is_locked) != 0 || ioctl(fd, TIOCGPTN, &pty->number) != 0) {
    close(fd);
    return fail(failure, EAGAIN, "/dev/ptmx makes no terminals");
  }
  pty->fd = fd;
  expect_unicode(fd);
  pty_resize(pty, cols, rows);
  watch_begin(&pty->watch, fd, EPOLLET | EPOLLIN, ready);
  return true;
}

void pty_resize(struct pty *pty, unsigned cols, unsigned rows) {
  struct winsize size = {.ws_col = (unsigned short)cols, .ws_row = (unsigned short)rows};
  if (pty->fd >= 0) ioctl(pty->fd, TIOCSWINSZ, &size);
}

/* --- What it waits for --- */

/* Asks the loop for what can go on. Output is always looked at to its end, or until the audience asks again. */
static void wait_for_more(struct pty *pty) {
  if (pty->fd >= 0) watch_change(&pty->watch, EPOLLET | EPOLLIN | (pty->first != NULL ? EPOLLOUT : 0));
}

/* --- Input --- */

static void drop_first(struct pty *pty) {
  struct pty_input *input = pty->first;
  pty->first = input->next;
  if (pty->first == NULL) pty->last = &pty->first;
  input->dropped(input->self);
  free(input);
}

static void push_again(struct timer *timer);

/* Writes as much as is read now. */
static void push(struct pty *pty) {
  if (pty->is_pushing) return;
  pty->is_pushing = true;
  while (pty->first != NULL) {
    struct pty_input *input = pty->first;
    ssize_t count = write(pty->fd, input->bytes + input->at, input->size - input->at);
    if (count <= 0) break;
    input->at += (size_t)count;
    input->taken(input->self, (size_t)count);
    if (input->at == input->size) drop_first(pty);
  }
  pty->is_pushing = false;
  if (pty->first == NULL) timer_end(&pty->retry);
  else if (!timer_runs(&pty->retry)) timer_begin(&pty->retry, RETRY, push_again);
}

static void push_again(struct timer *timer) {
  struct pty *pty = MEMBER(timer, struct pty, retry);
  push(pty);
  wait_for_more(pty);
}

void pty_write(struct pty *pty, const uint8_t *bytes, size_t size, void (*taken)(void *self, size_t count),
               void (*dropped)(void *self), void *self) {
  if (pty->fd < 0 || size == 0) {
    dropped(self);
    return;
  }
  struct pty_input *input = memory(sizeof *input + size);
  *input = (struct pty_input){.taken = taken, .dropped = dropped, .self = self, .size = size};
  memcpy(input->bytes, bytes, size);
  bool is_first = pty->first == NULL;
  *pty->last = input;
  pty->last = &input->next;
  if (!is_first) return;
  push(pty);
  wait_for_more(pty);
}

/* --- Output --- */

/* Returns how many bytes came; 0: none now. */
static size_t pass(struct pty *pty) {
  uint8_t own[PTY_CHUNK];
  uint8_t *chunk = pty->audience->room(pty->audience);
  if (chunk == NULL) chunk = own;
  ssize_t count = read(pty->fd, chunk, PTY_CHUNK);
  if (count <= 0) return 0;
  pty->audience->take(pty->audience, chunk, (size_t)count);
  return (size_t)count;
}

static void take_turn(struct later *later) {
  struct pty *pty = MEMBER(later, struct pty, turn);
  pty_advance(pty);
}

/* Reads while more is wanted. */
static void pull(struct pty *pty) {
  if (pty->is_moving) return;
  size_t moved = 0;
  pty->is_moving = true;
  while (pty->fd >= 0 && moved < TURN && pty->audience->wants(pty->audience)) {
    size_t count = pass(pty);
    if (count == 0) break;
    moved += count;
  }
  pty->is_moving = false;
  if (pty->fd >= 0 && moved >= TURN) later_begin(&pty->turn, take_turn);
}

void pty_advance(struct pty *pty) {
  if (pty->fd < 0) return;
  push(pty);
  pull(pty);
  wait_for_more(pty);
}

static void ready(struct watch *watch, uint32_t events) { pty_advance(MEMBER(watch, struct pty, watch)); }

void pty_drain(struct pty *pty) {
  if (pty->is_moving) return;
  pty->is_moving = true;
  for (size_t moved = 0, count = 1; pty->fd >= 0 && moved < LAST_WORDS && count > 0; moved += count) count = pass(pty);
  pty->is_moving = false;
}

void pty_close(struct pty *pty) {
  if (pty->fd < 0) return;
  watch_end(&pty->watch);
  timer_end(&pty->retry);
  later_end(&pty->turn);
  close(pty->fd);
  pty->fd = -1;
  while (pty->first != NULL) drop_first(pty);
}
