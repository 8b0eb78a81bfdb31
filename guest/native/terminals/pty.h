/* A pseudo-terminal (pty.c). The guest holds the user's end of it. */

#pragma once

#include "failure.h"
#include "loop.h"

enum { PTY_CHUNK = 4 << 10 }; /* bytes: what the kernel keeps of a terminal's output, and so returns at once */

/* Takes what is printed. */
struct audience {
  /* False while no more is wanted. Call `pty_advance` when it is wanted again. */
  bool (*wants)(struct audience *audience);
  /* Memory for the next chunk of PTY_CHUNK bytes, or NULL: the terminal's own. */
  uint8_t *(*room)(struct audience *audience);
  /* The chunk, which is in that memory, is only valid during the call. */
  void (*take)(struct audience *audience, uint8_t *chunk, size_t size);
};

/* One piece of input on its way to the program. */
struct pty_input;

struct pty {
  struct watch watch;
  struct audience *audience;
  int fd; /* -1: closed */
  int number;
  bool is_moving, is_pushing; /* in the midst of that; its audience may ask again */
  struct timer retry;         /* when it took no more input */
  struct later turn;
  struct pty_input *first, **last;
};

/* Makes one; the program has to open /dev/pts/`number`. Fails with EAGAIN when the system has no more terminals. */
bool pty_begin(struct pty *pty, unsigned cols, unsigned rows, struct audience *audience, struct failure *failure);
void pty_resize(struct pty *pty, unsigned cols, unsigned rows);
/* Writes a copy of the input as the program reads it. `taken` is called with the number of bytes that were read.
 * `self` must live until `dropped`, which is called once for each pty_write, also when all of it was read or the pty
 * is closed. Neither may close the pty. */
void pty_write(struct pty *pty, const uint8_t *bytes, size_t size, void (*taken)(void *self, size_t count),
               void (*dropped)(void *self), void *self);
void pty_advance(struct pty *pty);
/* Takes everything that was printed so far, wanted or not. */
void pty_drain(struct pty *pty);
/* Hangs up: programs at the terminal get SIGHUP. Nothing when it is closed. */
void pty_close(struct pty *pty);
