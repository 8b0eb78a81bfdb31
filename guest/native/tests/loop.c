/* Checks of the event loop: timers, later work, watches and children. */

#include "loop.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static int failures;

static void check(bool holds, const char *what) {
  if (holds) return;
  printf("loop: %s\n", what);
  failures++;
}

static void make_pipe(int ends[2]) {
  if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) exit(2);
}

static void put(int fd) {
  if (write(fd, "x", 1) != 1) exit(2);
}

/* --- Timers --- */

enum { TIMERS = 300 };
static struct counted {
  struct timer timer;
  bool is_over, is_stopped;
} timers[TIMERS];
static double last_due;
static int timers_over;

static void timer_over(struct timer *timer) {
  struct counted *counted = MEMBER(timer, struct counted, timer);
  check(!counted->is_stopped && !counted->is_over, "a stopped timer, or one twice");
  check(!timer_runs(timer), "a timer that is over runs");
  check(timer->due >= last_due && now() >= timer->due, "a timer out of order or too early");
  last_due = timer->due;
  counted->is_over = true;
  timers_over++;
}

static void begin_timers(void) {
  unsigned state = 7;
  for (int at = 0; at < TIMERS; at++) {
    state = state * 1103515245 + 12345;
    timer_begin(&timers[at].timer, state / 65536 % 40, timer_over);
  }
  for (int at = 0; at < TIMERS; at += 3) {
    timer_end(&timers[at].timer);
    timer_end(&timers[at].timer); /* nothing */
    timers[at].is_stopped = true;
  }
  for (int at = 1; at < TIMERS; at += 6) timer_begin(&timers[at].timer, 50, timer_over); /* anew */
}

/* A timer that starts itself again does not keep the turn from ending. */
static struct timer again;
static int again_count;
static bool is_ended;
static void again_over(struct timer *timer) {
  if (++again_count < 1000 && !is_ended) timer_begin(timer, 0, again_over);
}

/* --- Later work --- */

static struct later first, second, third, cancelled;
static char order[16];

static void work_third(struct later *later) { strcat(order, "3"); }

static void work_first(struct later *later) {
  strcat(order, "1");
  later_begin(&third, work_third); /* for the next turn */
  later_begin(&first, work_third); /* the same again */
  later_end(&first);
  later_end(&cancelled); /* due in this turn */
}

static void work_second(struct later *later) {
  strcat(order, "2");
  free(memory(1));
}

static void work_cancelled(struct later *later) { check(false, "work that was cancelled"); }

/* --- Watches --- */

/* Two pipes are readable in the same turn. The first that is served ends the other's watch and frees it. */
static struct watch *watches[2];
static int pipes[2][2], served;

static void either_ready(struct watch *watch, uint32_t events) {
  served++;
  struct watch *other = watches[watches[0] == watch];
  watch_end(other);
  free(other);
  watch_end(watch);
  watch_end(watch); /* nothing */
}

/* One begins anew for another descriptor in the same turn: the event of the old one is not its own. */
static struct watch renewed;
static int renewed_count;

static void renewed_ready(struct watch *watch, uint32_t events) {
  char byte;
  check(read(watch->fd, &byte, 1) == 1, "an event of another descriptor");
  renewed_count++;
}

static struct watch renewer;
static int silent[2];

static void renewer_ready(struct watch *watch, uint32_t events) {
  watch_end(watch);
  if (renewed.fd >= 0) watch_end(&renewed);
  watch_begin(&renewed, silent[0], EPOLLIN, renewed_ready);
}

/* What is no longer wanted in this turn is not told. */
static struct watch pausing[2];
static int paused_count;

static void pausing_ready(struct watch *watch, uint32_t events) {
  paused_count++;
  watch_change(&pausing[0], 0);
  watch_change(&pausing[1], 0);
}

/* The end of a pipe is told also when nothing is wanted. */
static struct watch hung_up;
static bool has_hung_up;

static void hung_up_ready(struct watch *watch, uint32_t events) {
  check((events & EPOLLHUP) != 0, "EPOLLHUP");
  has_hung_up = true;
  watch_end(watch);
}

static void begin_watches(void) {
  int ends[2];
  struct watch never = {0};
  watch_end(&never);
  never.fd = -1;
  watch_end(&never);
  for (int at = 0; at < 2; at++) {
    watches[at] = memory(sizeof *watches[at]);
    make_pipe(pipes[at]);
    put(pipes[at][1]);
    watch_begin(watches[at], pipes[at][0], EPOLLIN, either_ready);
  }
  make_pipe(silent);
  make_pipe(ends);
  put(ends[1]);
  watch_begin(&renewer, ends[0], EPOLLIN, renewer_ready);
  make_pipe(ends);
  put(ends[1]);
  watch_begin(&renewed, ends[0], EPOLLIN, renewed_ready);
  for (int at = 0; at < 2; at++) {
    make_pipe(ends);
    put(ends[1]);
    watch_begin(&pausing[at], ends[0], EPOLLIN, pausing_ready);
  }
  make_pipe(ends);
  watch_begin(&hung_up, ends[0], 0, hung_up_ready);
  close(ends[1]);
}

/* --- Children --- */

enum { CHILDREN = 20 };
static struct child *children[CHILDREN];
static int children_ended;

static void child_ended(struct child *child, int status) {
  for (int at = 0; at < CHILDREN; at++) {
    if (children[at] != child) continue;
    check(status == (at % 2 == 0 ? at : 128 + SIGKILL), "the status of a child");
    children_ended++;
    free(child);
  }
}

static pid_t start(int at) {
  pid_t pid = fork();
  if (pid != 0) return pid;
  sigset_t mask;
  child_signals_restore();
  sigprocmask(SIG_BLOCK, NULL, &mask);
  if (sigismember(&mask, SIGCHLD) || signal(SIGPIPE, SIG_IGN) != SIG_DFL) _exit(99);
  if (at % 2 == 0) _exit(at);
  kill(getpid(), SIGKILL);
  _exit(98);
}

static void begin_children(void) {
  for (int at = 0; at < CHILDREN; at++) {
    children[at] = memory(sizeof *children[at]);
    child_begin(children[at], start(at), child_ended);
  }
  start(0); /* which nobody awaits */
}

/* --- The end --- */

static struct timer end;

static void judge(struct timer *timer) {
  is_ended = true;
  check(timers_over == TIMERS - TIMERS / 3, "timers that are not over");
  check(again_count > 10, "a timer that starts itself again");
  check(strcmp(order, "123") == 0, "the order of later work");
  check(served == 1, "a watch that was ended in its turn");
  check(paused_count == 1, "an event that was no longer wanted");
  check(has_hung_up, "the end of a pipe");
  check(children_ended == CHILDREN, "children");
  check(waitpid(-1, NULL, WNOHANG) < 0, "a child that was not reaped");
  check(renewed_count <= 1, "events of a watch that began anew");
  exit(failures > 0);
}

int main(void) {
  signal(SIGPIPE, SIG_IGN);
  loop_begin();
  begin_timers();
  timer_begin(&again, 0, again_over);
  later_begin(&first, work_first);
  later_begin(&first, work_first); /* nothing */
  later_begin(&second, work_second);
  later_begin(&cancelled, work_cancelled);
  begin_watches();
  begin_children();
  timer_begin(&end, 500, judge);
  loop_run();
}
