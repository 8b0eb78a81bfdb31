/* Bodies that go straight between the edge and the guest, past the server (PROTOCOL.md).
 *
 * A ticket opens one connection of the edge. Each object here frees itself: what calls of it a user may still make is
 * said at each function. */

#pragma once

#include "asked.h"
#include "pipes.h"

bool is_ticket(const char *text, size_t size); /* 32 hexadecimal digits, lower case */
/* The `ticket` of a request: NULL when it has none, or with a failure (EINVAL, EAGAIN when there are too many; then
 * *failed is true). */
const char *ticket_in(struct asked *asked, bool *failed, struct failure *failure);

/* Bytes `at` to `end` of the open file, which it takes, for the edge. As the source of an answer it is empty, ends when
 * the edge has them all, and fails when that has become impossible. */
struct source *sending_begin(const char *ticket, int fd, int64_t at, int64_t end);

/* `size` bytes that the edge brings. */
struct arriving;
struct arriving_target {
  /* Takes more of them. TAKEN_LATER: arriving_taken will be called, and then what was given is no longer needed. The
   * bytes are valid until then. */
  enum taken { TAKEN_MORE, TAKEN_ENOUGH, TAKEN_LATER } (*take)(void *self, const uint8_t *bytes, size_t size);
  /* No more comes: so many bytes were not taken. Called once, in a later turn than arriving_begin. The arriving is
   * freed after it. */
  void (*over)(void *self, int64_t missing);
};
struct arriving *arriving_begin(const char *ticket, int64_t size, const struct arriving_target *target, void *self);
void arriving_taken(struct arriving *arriving, bool wants);
/* Nothing more shall come; the connection ends. `over` follows. */
void arriving_stop(struct arriving *arriving);
/* Nothing more is wanted, and the edge is told to ask the server. `over` follows. */
void arriving_finish(struct arriving *arriving);

/* The standard output of a run, for the edge: a taker. `on_first` is called with the first bytes, when the ticket
 * becomes good. `on_room` is called when its `wants` has become true again. It exists until piping_release; after that
 * no call is made. */
struct piping;
struct piping *piping_begin(const char *ticket, void (*on_first)(void *self), void (*on_room)(void *self), void *self);
struct taker *piping_taker(struct piping *piping);
void piping_leave(struct piping *piping); /* the host has left */
void piping_release(
    struct piping *piping); /* its run has ended, and its reader reads no more; what is unsent is sent */
/* POST /output/end: false when there is none with this ticket. */
bool piping_end(const char *ticket, bool is_whole);
