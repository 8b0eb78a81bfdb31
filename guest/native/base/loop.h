/* The event loop: descriptors, timers, later work and children. One thread, epoll. */

#pragma once

#include "bytes.h"
#include <sys/epoll.h>
#include <sys/types.h>

/* Makes the loop. To be called once, first. */
void loop_begin(void);
/* Runs for ever. */
_Noreturn void loop_run(void);

/* A descriptor that is watched. `fd` is -1 when it is not. */
struct watch {
  int fd;
  uint32_t events;
  void (*ready)(struct watch *watch, uint32_t events);
};

/* Calls `ready` for these events (EPOLLIN, EPOLLOUT; EPOLLHUP and EPOLLERR always), level-triggered, until unwatch.
 * `events` may be 0: then for EPOLLHUP and EPOLLERR alone. */
void watch_begin(struct watch *watch, int fd, uint32_t events, void (*ready)(struct watch *, uint32_t));
void watch_change(struct watch *watch, uint32_t events);
/* Does not close. Nothing is called any more, also not what was already due in this turn. Safe when not watched. */
void watch_end(struct watch *watch);

/* A timer. All zeros is a stopped one. */
struct timer {
  double due;
  size_t place; /* in the heap, from 1; 0: stopped */
  void (*over)(struct timer *timer);
};

/* Calls `over` once after so many milliseconds. Starts anew when it runs. */
void timer_begin(struct timer *timer, double milliseconds, void (*over)(struct timer *));
void timer_end(struct timer *timer);
static inline bool timer_runs(const struct timer *timer) { return timer->place != 0; }

/* Work for the next turn, after descriptors have had theirs. All zeros: none is due. */
struct later {
  struct later *next, *previous;
  void (*work)(struct later *later);
};

void later_begin(struct later *later, void (*work)(struct later *)); /* nothing when it is due already */
void later_end(struct later *later);

/* A child whose end is awaited. Other children, as process 1 inherits them, are reaped too. */
struct child {
  pid_t pid;
  struct child *next;
  void (*ended)(struct child *child, int status); /* 0 to 255, or 128 + signal; the child may be freed there */
};

/* To be called in the turn in which the child was started. */
void child_begin(struct child *child, pid_t pid, void (*ended)(struct child *, int));

/* Nothing is called any more, and the child may be freed. It is still reaped. */
void child_end(struct child *child);

/* In a child, before it executes a program: gives back the signals that the guest blocks and ignores. */
void child_signals_restore(void);

double now(void);        /* milliseconds of CLOCK_MONOTONIC */
int64_t wall_time(void); /* milliseconds since 1970 */
