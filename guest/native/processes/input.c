/* The standard input of a background process (input.h). */

#include "input.h"
#include "pipes.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_WAITING = 1 << 20 }; /* unread bytes, beyond which no more input is taken */

void input_begin(struct input *input, int fd) {
  *input = (struct input){.fd = fd, .watch.fd = -1};
  make_nonblocking(fd);
}

void input_close(struct input *input) {
  if (input->fd < 0) return;
  watch_end(&input->watch);
  close(input->fd);
  free(input->waiting);
  *input = (struct input){.fd = -1, .watch.fd = -1};
}

/* Writes what the pipe takes, and returns how much. Closes the input when nobody reads any more. */
static size_t write_some(struct input *input, const uint8_t *bytes, size_t size) {
  size_t at = 0;
  while (input->fd >= 0 && at < size) {
    ssize_t count = write(input->fd, bytes + at, size - at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) break;
    if (count < 0) input_close(input);
    else at += (size_t)count;
  }
  return at;
}

static void writable(struct watch *watch, uint32_t events);

static void advance(struct input *input) {
  size_t written = write_some(input, input->waiting + input->at, input->size - input->at);
  if (input->fd < 0) return;
  input->at += written;
  if (input->at < input->size) {
    if (input->watch.fd < 0) watch_begin(&input->watch, input->fd, EPOLLOUT, writable);
    return;
  }
  watch_end(&input->watch);
  free(input->waiting);
  input->waiting = NULL;
  input->at = input->size = input->room = 0;
  if (input->is_closing) input_close(input);
}

static void writable(struct watch *watch, uint32_t events) { advance(MEMBER(watch, struct input, watch)); }

/* Room for so many more bytes. What was written goes first. False when there is no memory. */
static bool make_room(struct input *input, size_t more) {
  size_t left = input->size - input->at;
  if (more <= input->room - input->size) return true;
  size_t room = left + more + (left + more) / 2;
  uint8_t *all = try_memory(room);
  if (all == NULL) return false;
  if (left > 0) memcpy(all, input->waiting + input->at, left);
  free(input->waiting);
  input->waiting = all;
  input->at = 0;
  input->size = left;
  input->room = room;
  return true;
}

static bool keep(struct input *input, const uint8_t *bytes, size_t size) {
  if (size == 0) return true;
  if (!make_room(input, size)) return false;
  memcpy(input->waiting + input->size, bytes, size);
  input->size += size;
  return true;
}

const char *input_send(struct input *input, const void *bytes, size_t size, bool close) {
  if (input->fd >= 0) advance(input);
  if (input->fd < 0 || input->is_closing) return "closed";
  size_t waiting = input->size - input->at;
  if (waiting > 0 && size > MOST_WAITING - (waiting < MOST_WAITING ? waiting : MOST_WAITING)) return "busy";
  size_t written = waiting > 0 ? 0 : write_some(input, bytes, size);
  if (input->fd < 0) return close ? "sent" : "closed";
  if (!keep(input, (const uint8_t *)bytes + written, size - written)) {
    input_close(input); /* a part of it may be in the pipe already */
    return "closed";
  }
  input->is_closing = close;
  advance(input);
  return input->fd < 0 && !close ? "closed" : "sent";
}
