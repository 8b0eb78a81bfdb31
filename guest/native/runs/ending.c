/* Of a process with many threads, the last one to end takes the memory apart, closes the files, and only then is the
 * process over for its parent. With a Bun, that takes half a millisecond. So its threads are watched, too (Linux 6.9).
 * When the main one and all others but one have ended, nothing of the program runs any more, and its output is in the
 * pipes.
 *
 * Nothing here looks into `/proc/PID/task`. What the kernel remembers of a thread from there, it clears when the thread
 * has ended, and whoever reaps the process meanwhile spins until then: for milliseconds, on one processor.
 */

#include "ending.h"
#include "proc.h"
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  MOST = 4,        /* threads that are watched */
  NEAR = 16,       /* a program's first threads have the pids behind its own */
  TRIES = 4,       /* looks in turns of the loop: an ended thread is still counted for some microseconds */
  MOST_LEFT = 500, /* ms that a request waits for what a program held */
  PIDFD_THREAD = O_EXCL,
  STATUS = 49 /* place in `/proc/PID/stat`, counted from the state, which is after the name */
};

struct thread {
  struct watch watch; /* of its pidfd */
  struct ending *ending;
  pid_t pid;
};

struct ending {
  pid_t pid;
  struct thread threads[MOST];
  int count, tries;
  struct later later;
  void (*over)(void *self, int status);
  void *self;
};

/* --- What the kernel says --- */

/* Whether all four ids are the guest's. */
static bool is_ours(const char *status, const char *name, unsigned own) {
  unsigned real, effective, saved, files;
  const char *line = strstr(status, name);
  if (line == NULL || sscanf(line + strlen(name), "%u %u %u %u", &real, &effective, &saved, &files) != 4) return false;
  return real == own && effective == own && saved == own && files == own;
}

/* Whether the main thread has ended, and how many threads there are. To a process of another user, the kernel gives the
 * exit status 0. So such a one counts as running. */
static bool main_has_ended(pid_t pid, int *threads) {
  char *status = proc_text_of(pid, "status");
  const char *count = strstr(status, "\nThreads:\t");
  bool has_ended = proc_state(status) == 'Z' && count != NULL && is_ours(status, "\nUid:\t", getuid()) &&
                   is_ours(status, "\nGid:\t", getgid());
  if (has_ended) *threads = atoi(count + 10);
  free(status);
  return has_ended;
}

static bool status_of(pid_t pid, int *status) {
  char *stat = proc_text_of(pid, "stat"), *rest = NULL;
  char *at = strrchr(stat, ')'), *field = at == NULL ? NULL : strtok_r(at + 1, " \n", &rest);
  for (int place = 0; field != NULL && place < STATUS; place++) field = strtok_r(NULL, " \n", &rest);
  bool is_there = field != NULL;
  if (is_there) {
    int how = atoi(field);
    *status = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
  }
  free(stat);
  return is_there;
}

/* --- Watching --- */

static void unwatch(struct watch *watch) {
  if (watch->fd < 0) return;
  int fd = watch->fd;
  watch_end(watch);
  close(fd);
}

static bool is_thread_of(pid_t pid, pid_t thread) { return syscall(SYS_tgkill, pid, thread, 0) == 0; }

static int still_there(const struct ending *ending) {
  int count = 0;
  for (int at = 0; at < ending->count; at++) count += is_thread_of(ending->pid, ending->threads[at].pid);
  return count;
}

/* Others than the watched threads may go on, or one of them may be about to execute a program. Those that are there
 * after the count were counted. */
static void look(struct later *later) {
  struct ending *ending = MEMBER(later, struct ending, later);
  int threads, status, there;
  if (!main_has_ended(ending->pid, &threads)) return;
  there = still_there(ending);
  if (there > 1 || threads > 1 + there) {
    if (++ending->tries < TRIES) later_begin(&ending->later, look);
  } else if (status_of(ending->pid, &status)) ending->over(ending->self, status);
}

static void thread_ended(struct watch *watch, uint32_t events) {
  struct ending *ending = MEMBER(watch, struct thread, watch)->ending;
  unwatch(watch);
  ending->tries = 0;
  look(&ending->later);
}

struct ending *ending_begin(pid_t pid, void (*over)(void *self, int status), void *self) {
  struct ending *ending = memory(sizeof *ending);
  *ending = (struct ending){.pid = pid, .over = over, .self = self};
  for (pid_t thread = pid + 1; thread <= pid + NEAR && ending->count < MOST; thread++) {
    int fd = is_thread_of(pid, thread) ? (int)syscall(SYS_pidfd_open, thread, PIDFD_THREAD) : -1;
    if (fd < 0) continue;
    struct thread *next = &ending->threads[ending->count++];
    next->ending = ending;
    next->pid = thread;
    watch_begin(&next->watch, fd, EPOLLIN, thread_ended);
  }
  if (ending->count > 1) return ending;
  ending_free(ending);
  return NULL;
}

void ending_free(struct ending *ending) {
  if (ending == NULL) return;
  for (int at = 0; at < ending->count; at++) unwatch(&ending->threads[at].watch);
  later_end(&ending->later);
  free(ending);
}

/* --- What is over, but not reaped --- */

struct waiting {
  struct asked *asked;
  void (*handler)(struct asked *);
  struct waiting *next;
};

/* A program that is not reaped. */
struct left {
  struct child child;
  int round;
};

static struct {
  int left;  /* programs of this round */
  int round; /* one ends when all are reaped, or patience is over */
  struct waiting *first, **last;
  struct timer patience;
} over = {.last = &over.first};

static void go_on(struct timer *timer) {
  over.left = 0;
  over.round++;
  timer_end(timer);
  while (over.first != NULL) {
    struct waiting *waiting = over.first;
    over.first = waiting->next;
    if (over.first == NULL) over.last = &over.first;
    waiting->handler(waiting->asked);
    free(waiting);
  }
}

static void reaped(struct child *child, int status) {
  struct left *left = MEMBER(child, struct left, child);
  bool is_last = left->round == over.round && --over.left == 0;
  free(left);
  if (is_last) go_on(&over.patience);
}

void ending_leave(pid_t pid) {
  struct left *left = memory(sizeof *left);
  over.left++;
  left->round = over.round;
  child_begin(&left->child, pid, reaped);
}

void ending_wait(struct asked *asked, void (*handler)(struct asked *)) {
  if (over.left == 0) return handler(asked);
  struct waiting *waiting = memory(sizeof *waiting);
  *waiting = (struct waiting){asked, handler, NULL};
  *over.last = waiting;
  over.last = &waiting->next;
  if (!timer_runs(&over.patience)) timer_begin(&over.patience, MOST_LEFT, go_on);
}
