/* Of a process with many threads, the last one to end takes the memory apart, closes the files, and only then is the
 * process over for its parent. With a Bun, that takes half a millisecond. So its threads are watched, too (Linux 6.9).
 * When one has ended, the kernel says whether all of them are ending: then nothing of the program runs any more, its
 * output is in the pipes, and its status is known. */

#include "ending.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  MOST = 4,        /* threads that are watched: the last one to end is of no use, and any of them may be that */
  MOST_LEFT = 500, /* ms that a request waits for what a program held */
  PIDFD_THREAD = O_EXCL,
  EXITING = 0x4,         /* a flag of a task: it is past its last instruction (PF_EXITING) */
  KILLED = 1 << (9 - 1), /* of its pending signals: it gets no further */
  FLAGS = 6,
  PENDING = 28, /* places in `/proc/PID/stat`, counted from the state, which is after the name */
  STATUS = 49
};

struct thread {
  struct watch watch; /* of its pidfd */
  struct ending *ending;
};

struct ending {
  pid_t pid;
  struct thread threads[MOST];
  size_t count;
  void (*over)(void *self, int status);
  void *self;
};

/* --- What the kernel says --- */

struct task {
  long flags, pending, status;
};

/* False with ENOENT or ESRCH when it is gone. */
static bool look_at(const char *stat, struct task *task) {
  char text[1024];
  int fd = open(stat, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t size = read(fd, text, sizeof text - 1);
  int error = errno;
  close(fd);
  errno = error;
  if (size <= 0) return false;
  text[size] = '\0';
  errno = 0;
  char *at = strrchr(text, ')'), *rest = NULL;
  int place = 0;
  if (at == NULL) return false;
  for (char *field = strtok_r(at + 1, " \n", &rest); field != NULL; field = strtok_r(NULL, " \n", &rest), place++) {
    if (place == FLAGS) task->flags = strtol(field, NULL, 10);
    if (place == PENDING) task->pending = strtol(field, NULL, 10);
    if (place == STATUS) task->status = strtol(field, NULL, 10);
  }
  return place > STATUS;
}

static bool is_exiting(const char *process, struct task *leader) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%s/stat", process);
  return look_at(path, leader) && (leader->flags & EXITING) != 0;
}

static bool ends(const char *process, const char *thread) {
  char path[64];
  struct task task;
  snprintf(path, sizeof path, "/proc/%.10s/task/%.10s/stat", process, thread);
  if (!look_at(path, &task)) return errno == ENOENT || errno == ESRCH;
  return (task.flags & EXITING) != 0 || (task.pending & KILLED) != 0;
}

static bool others_end(const char *process) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%s/task", process);
  DIR *tasks = opendir(path);
  bool all = tasks != NULL;
  for (struct dirent *task; all && (task = readdir(tasks)) != NULL;)
    all = task->d_name[0] == '.' || strcmp(task->d_name, process) == 0 || ends(process, task->d_name);
  if (tasks != NULL) closedir(tasks);
  return all;
}

/* The kernel hides the status of a process that has another user by now, for example, and says 0. It guards this file
 * in the same way. */
static bool shows_status(const char *process) {
  char path[64], byte;
  snprintf(path, sizeof path, "/proc/%s/io", process);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  bool shows = fd >= 0 && read(fd, &byte, 1) == 1;
  if (fd >= 0) close(fd);
  return shows;
}

/* Whether no thread runs any more. Then the status is known. If another thread than the main one executes a program, it
 * ends the others and becomes the main one. So the main one is looked at again behind the others. */
static bool all_end(pid_t pid, int *status) {
  char process[16];
  struct task leader;
  snprintf(process, sizeof process, "%d", (int)pid);
  if (!is_exiting(process, &leader) || !others_end(process)) return false;
  if (!shows_status(process) || !is_exiting(process, &leader)) return false;
  int how = (int)leader.status;
  *status = WIFSIGNALED(how) ? 128 + WTERMSIG(how) : WEXITSTATUS(how);
  return true;
}

/* --- Watching --- */

static void unwatch(struct watch *watch) {
  if (watch->fd < 0) return;
  int fd = watch->fd;
  watch_end(watch);
  close(fd);
}

static void thread_ended(struct watch *watch, uint32_t events) {
  struct ending *ending = MEMBER(watch, struct thread, watch)->ending;
  unwatch(watch);
  int status;
  if (all_end(ending->pid, &status)) ending->over(ending->self, status);
}

static void watch_threads(struct ending *ending, DIR *tasks) {
  for (struct dirent *task; ending->count < MOST && (task = readdir(tasks)) != NULL;) {
    pid_t thread = (pid_t)atoi(task->d_name);
    int fd = thread <= 0 || thread == ending->pid ? -1 : (int)syscall(SYS_pidfd_open, thread, PIDFD_THREAD);
    if (fd < 0) continue;
    struct thread *next = &ending->threads[ending->count++];
    next->ending = ending;
    watch_begin(&next->watch, fd, EPOLLIN, thread_ended);
  }
}

struct ending *ending_begin(pid_t pid, void (*over)(void *self, int status), void *self) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
  DIR *tasks = opendir(path);
  if (tasks == NULL) return NULL;
  struct ending *ending = memory(sizeof *ending);
  *ending = (struct ending){.pid = pid, .over = over, .self = self};
  watch_threads(ending, tasks);
  closedir(tasks);
  if (ending->count > 0) return ending;
  free(ending);
  return NULL;
}

void ending_free(struct ending *ending) {
  if (ending == NULL) return;
  for (size_t at = 0; at < ending->count; at++) unwatch(&ending->threads[at].watch);
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
