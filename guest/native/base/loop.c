/* The event loop. A turn: descriptors, children that have ended, timers that are over, and the work that was put off.
 */

#include "loop.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BATCH = 64, FEW_TIMERS = 16 };

static struct {
  int epoll;
  struct watch signals;
  bool has_child_ended;

  /* The events of this turn: those from `at` on are still due. */
  struct epoll_event *events;
  int at, count;

  struct timer **timers; /* a heap, the first to be over at 1 */
  size_t timer_count, timer_room;

  struct later due;     /* the head of a ring, or all zeros */
  struct later working; /* likewise: what is due in this turn */
  struct child *children;
} loop = {.epoll = -1};

static _Noreturn void end_for(const char *call) {
  perror(call);
  _exit(71);
}

/* --- Descriptors --- */

void watch_begin(struct watch *watch, int fd, uint32_t events, void (*ready)(struct watch *, uint32_t)) {
  *watch = (struct watch){.fd = fd, .events = events, .ready = ready};
  struct epoll_event event = {.events = events, .data.ptr = watch};
  if (epoll_ctl(loop.epoll, EPOLL_CTL_ADD, fd, &event) == 0) return;
  /* EEXIST: somebody closed it without watch_end, while a child still held it. */
  if (errno == EEXIST && epoll_ctl(loop.epoll, EPOLL_CTL_MOD, fd, &event) == 0) return;
  end_for("epoll_ctl");
}

void watch_change(struct watch *watch, uint32_t events) {
  if (watch->fd < 0 || watch->events == events) return;
  watch->events = events;
  struct epoll_event event = {.events = events, .data.ptr = watch};
  epoll_ctl(loop.epoll, EPOLL_CTL_MOD, watch->fd, &event);
}

void watch_end(struct watch *watch) {
  if (watch->fd < 0 || watch->ready == NULL) return; /* all zeros is not watched, either */
  epoll_ctl(loop.epoll, EPOLL_CTL_DEL, watch->fd, NULL);
  for (int at = loop.at; at < loop.count; at++)
    if (loop.events[at].data.ptr == watch) loop.events[at].data.ptr = NULL;
  watch->fd = -1;
  watch->ready = NULL;
}

static void run_descriptors(int timeout) {
  struct epoll_event events[BATCH];
  int count = epoll_wait(loop.epoll, events, BATCH, timeout);
  if (count < 0 && errno != EINTR) end_for("epoll_wait");
  loop.events = events;
  loop.count = count;
  for (loop.at = 0; loop.at < loop.count;) {
    struct epoll_event event = events[loop.at++];
    struct watch *watch = event.data.ptr;
    if (watch == NULL) continue;
    /* It may have changed what it waits for since the events were fetched. */
    uint32_t wanted = event.events & (watch->events | EPOLLHUP | EPOLLERR);
    if (wanted != 0) watch->ready(watch, wanted);
  }
  loop.events = NULL;
  loop.at = loop.count = 0;
}

/* --- Timers --- */

static void timer_put(size_t place, struct timer *timer) {
  loop.timers[place] = timer;
  timer->place = place;
}

static void timer_rise(size_t place, struct timer *timer) {
  for (; place > 1 && loop.timers[place / 2]->due > timer->due; place /= 2) timer_put(place, loop.timers[place / 2]);
  timer_put(place, timer);
}

static void timer_sink(size_t place, struct timer *timer) {
  for (;;) {
    size_t below = 2 * place;
    if (below > loop.timer_count) break;
    if (below < loop.timer_count && loop.timers[below + 1]->due < loop.timers[below]->due) below++;
    if (loop.timers[below]->due >= timer->due) break;
    timer_put(place, loop.timers[below]);
    place = below;
  }
  timer_rise(place, timer);
}

void timer_begin(struct timer *timer, double milliseconds, void (*over)(struct timer *)) {
  timer_end(timer);
  timer->due = now() + (milliseconds > 0 ? milliseconds : 0);
  timer->over = over;
  if (++loop.timer_count >= loop.timer_room) {
    loop.timer_room = loop.timer_room > 0 ? 2 * loop.timer_room : FEW_TIMERS;
    loop.timers = more_memory(loop.timers, loop.timer_room * sizeof *loop.timers);
  }
  timer_rise(loop.timer_count, timer);
}

void timer_end(struct timer *timer) {
  size_t place = timer->place;
  if (place == 0) return;
  timer->place = 0;
  struct timer *last = loop.timers[loop.timer_count--];
  if (last != timer) timer_sink(place, last);
  if (loop.timer_count > 0 || loop.timer_room <= FEW_TIMERS) return;
  free(loop.timers); /* once there were many */
  loop.timers = NULL;
  loop.timer_room = 0;
}

static void run_timers(void) {
  if (loop.timer_count == 0) return;
  double time = now();
  while (loop.timer_count > 0 && loop.timers[1]->due <= time) {
    struct timer *timer = loop.timers[1];
    timer_end(timer);
    timer->over(timer);
  }
}

/* --- Later work --- */

static void ring_add(struct later *ring, struct later *later) {
  if (ring->next == NULL) ring->next = ring->previous = ring;
  later->next = ring;
  later->previous = ring->previous;
  ring->previous->next = later;
  ring->previous = later;
}

static bool ring_is_empty(const struct later *ring) { return ring->next == NULL || ring->next == ring; }

void later_begin(struct later *later, void (*work)(struct later *)) {
  if (later->next != NULL) return;
  later->work = work;
  ring_add(&loop.due, later);
}

void later_end(struct later *later) {
  if (later->next == NULL) return;
  later->next->previous = later->previous;
  later->previous->next = later->next;
  later->next = later->previous = NULL;
}

/* What this work puts off is for the next turn. */
static void run_later(void) {
  if (ring_is_empty(&loop.due)) return;
  loop.working.next = loop.due.next;
  loop.working.previous = loop.due.previous;
  loop.working.next->previous = loop.working.previous->next = &loop.working;
  loop.due.next = loop.due.previous = NULL;
  while (!ring_is_empty(&loop.working)) {
    struct later *later = loop.working.next;
    later_end(later);
    later->work(later);
  }
}

/* --- Children --- */

void child_begin(struct child *child, pid_t pid, void (*ended)(struct child *, int)) {
  *child = (struct child){.pid = pid, .next = loop.children, .ended = ended};
  loop.children = child;
}

void child_end(struct child *child) {
  struct child **at = &loop.children;
  while (*at != NULL && *at != child) at = &(*at)->next;
  if (*at != NULL) *at = child->next;
}

static struct child *take_child(pid_t pid) {
  for (struct child **at = &loop.children; *at != NULL; at = &(*at)->next) {
    struct child *child = *at;
    if (child->pid != pid) continue;
    *at = child->next;
    return child;
  }
  return NULL;
}

static void signal_ready(struct watch *watch, uint32_t events) {
  struct signalfd_siginfo info[4];
  while (read(watch->fd, info, sizeof info) > 0) {
  }
  loop.has_child_ended = true;
}

/* After the descriptors, so that whoever started a child has begun to await it. */
static void run_children(void) {
  if (!loop.has_child_ended) return;
  loop.has_child_ended = false;
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    struct child *child = take_child(pid);
    if (child != NULL) child->ended(child, WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status));
  }
}

void child_signals_restore(void) {
  sigset_t none;
  sigemptyset(&none);
  signal(SIGPIPE, SIG_DFL);
  signal(SIGXFSZ, SIG_DFL);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

/* --- The loop --- */

void loop_begin(void) {
  loop.epoll = epoll_create1(EPOLL_CLOEXEC);
  if (loop.epoll < 0) end_for("epoll_create1");
  sigset_t children;
  sigemptyset(&children);
  sigaddset(&children, SIGCHLD);
  signal(SIGCHLD, SIG_DFL); /* ignored, children would end without a word */
  sigprocmask(SIG_SETMASK, &children, NULL);
  int signals = signalfd(-1, &children, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signals < 0) end_for("signalfd");
  watch_begin(&loop.signals, signals, EPOLLIN, signal_ready);
  loop.has_child_ended = true; /* perhaps, before this program was executed */
}

static int patience(void) {
  if (loop.has_child_ended || !ring_is_empty(&loop.due)) return 0;
  if (loop.timer_count == 0) return -1;
  double left = loop.timers[1]->due - now();
  return left <= 0 ? 0 : left < 1e9 ? (int)left + 1 : 1000000000;
}

_Noreturn void loop_run(void) {
  for (;;) {
    run_descriptors(patience());
    run_children();
    run_timers();
    run_later();
  }
}

double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

int64_t wall_time(void) {
  struct timespec time;
  clock_gettime(CLOCK_REALTIME, &time);
  return (int64_t)time.tv_sec * 1000 + time.tv_nsec / 1000000;
}
