/* Parked shells, each ready to become the program of one run.
 *
 * The host moves a spare into the run's cgroup before it starts anything. So the kernel counts everything that the run
 * does, from its first instruction. */

#include "spares.h"
#include "asked.h"
#include "ending.h"
#include "pipes.h"
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 32, ENDS = 5, FIRST_FREE = 10 };

/* So that the kernel kills it before the guest. Its stderr is the run's, so nothing may be written there meanwhile. */
static const char PARK[] = "{ echo 500 >/proc/self/oom_score_adj; } 2>&-\n";
static char *const BASE_ENV[] = {
    "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME=/root",
    "LANG=C.UTF-8",
    "USER=root",
    NULL,
};

static struct {
  struct spare *parked;
  int count;
  int nothing; /* /dev/null, opened before a session could remove it; 0: not yet */
} spares;

static int nothing(void) {
  if (spares.nothing == 0) {
    int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    spares.nothing = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, FIRST_FREE);
    if (fd >= 0) close(fd);
  }
  return spares.nothing;
}

/* In the child, which shares the guest's memory: puts the ends in place and becomes the shell. */
static _Noreturn void become_shell(const int *theirs, volatile int *error) {
  setsid(); /* a process group of its own: `kill 0` in a run must not reach the guest */
  int moved[ENDS + 1];
  for (int at = 0; at <= ENDS; at++) moved[at] = fcntl(theirs[at], F_DUPFD_CLOEXEC, FIRST_FREE);
  for (int at = 0; at <= ENDS; at++)
    if (dup2(moved[at], at) < 0) goto failed;
  if (chdir("/") != 0) goto failed;
  child_signals_restore();
  execve(settings.shell[0], settings.shell, BASE_ENV);
failed:
  *error = errno;
  _exit(127);
}

/* -1 with errno when it cannot be started. */
static pid_t start_shell(const int *theirs) {
  volatile int error = 0;
  sigset_t all, before;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, &before); /* no handler may run in the child, which shares this memory */
  pid_t pid = vfork();
  if (pid == 0) become_shell(theirs, &error);
  if (pid < 0) error = errno;
  sigprocmask(SIG_SETMASK, &before, NULL);
  errno = error;
  return error == 0 ? pid : -1; /* the loop reaps what did not become a shell */
}

static void close_end(int *end) {
  if (*end >= 0) close(*end);
  *end = -1;
}

void spare_free(struct spare *spare) {
  int *const ends[] = {&spare->script, &spare->input, &spare->text, &spare->output, &spare->errors};
  for (size_t at = 0; at < COUNT(ends); at++) close_end(ends[at]);
  later_end(&spare->later);
  ending_free(spare->ending);
  free(spare);
}

static bool unpark(struct spare *spare) {
  for (struct spare **at = &spares.parked; *at != NULL; at = &(*at)->next) {
    if (*at != spare) continue;
    *at = spare->next;
    spares.count--;
    return true;
  }
  return false;
}

static void ended(struct child *child, int status) {
  struct spare *spare = MEMBER(child, struct spare, child);
  spare->has_ended = true;
  spare->status = status;
  if (unpark(spare)) spare_free(spare);
  else if (spare->ended != NULL) spare->ended(spare, spare->self);
}

static void is_over(void *self, int status) {
  struct spare *spare = self;
  child_end(&spare->child);
  ending_leave(spare->pid);
  ended(&spare->child, status);
}

void spare_watch(struct spare *spare) { spare->ending = ending_begin(spare->pid, is_over, spare); }

static struct spare *spare_new(pid_t pid, int ends[][2]) {
  struct spare *spare = memory(sizeof *spare);
  spare->pid = pid;
  spare->script = ends[0][1];
  spare->input = ends[1][1];
  spare->text = ends[2][1];
  spare->output = ends[3][0];
  spare->errors = ends[4][0];
  spare->next = spares.parked;
  spares.parked = spare;
  spares.count++;
  child_begin(&spare->child, pid, ended);
  return spare;
}

pid_t spare_park(struct failure *failure) {
  int ends[ENDS][2]; /* script, input, text, output, errors */
  if (spares.count >= MOST) {
    fail_status(failure, EAGAIN, 409, "too many spares are parked");
    return -1;
  }
  if (!make_pipes(ends, ENDS, failure)) return -1;
  int theirs[] = {ends[0][0], ends[3][1], ends[4][1], ends[1][0], ends[2][0], nothing()};
  pid_t pid = start_shell(theirs);
  int error = errno;
  for (int at = 0; at < ENDS; at++) close(theirs[at]);
  if (pid > 0) {
    struct spare *spare = spare_new(pid, ends);
    ssize_t written = write(spare->script, PARK, sizeof PARK - 1); /* a new pipe has room */
    (void)written;
    return pid;
  }
  int ours[] = {ends[0][1], ends[1][1], ends[2][1], ends[3][0], ends[4][0]};
  for (int at = 0; at < ENDS; at++) close(ours[at]);
  fail_status(failure, error != 0 ? error : EAGAIN, 503, "no process can be started");
  return -1;
}

struct spare *spare_take(int64_t pid, struct failure *failure) {
  for (struct spare *spare = spares.parked; spare != NULL; spare = spare->next) {
    if (spare->pid != pid) continue;
    unpark(spare);
    return spare;
  }
  fail(failure, ESRCH, "there is no such spare");
  return NULL;
}

static void tell_of_end(struct later *later) {
  struct spare *spare = MEMBER(later, struct spare, later);
  spare->ended(spare, spare->self);
}

void spare_on_end(struct spare *spare, void (*then)(struct spare *, void *self), void *self) {
  spare->ended = then;
  spare->self = self;
  if (spare->has_ended) later_begin(&spare->later, tell_of_end);
}
