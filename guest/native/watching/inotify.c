/* What the kernel reports about changes in directories. */

#include "inotify.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { BATCH = 64 << 10 }; /* bytes of notices in one read */

static const uint32_t WANTED = IN_MODIFY | IN_ATTRIB | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE |
                               IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR | IN_DONT_FOLLOW | IN_EXCL_UNLINK;

static void gathered(struct timer *timer) {
  struct inotify *inotify = MEMBER(timer, struct inotify, gathering);
  inotify->notices(inotify);
}

static void first_has_come(struct watch *watch, uint32_t events) {
  struct inotify *inotify = MEMBER(watch, struct inotify, watch);
  watch_change(watch, 0);
  timer_begin(&inotify->gathering, inotify->gather, gathered);
}

bool inotify_begin(struct inotify *inotify, void (*notices)(struct inotify *), double gather, struct failure *failure) {
  *inotify = (struct inotify){.watch = {.fd = -1}, .gather = gather, .notices = notices};
  int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (fd < 0) return fail(failure, EMFILE, "no more can be watched");
  watch_begin(&inotify->watch, fd, EPOLLIN, first_has_come);
  return true;
}

int inotify_add(struct inotify *inotify, const char *path) {
  return inotify_add_watch(inotify->watch.fd, path, WANTED);
}

void inotify_remove(struct inotify *inotify, int watch) {
  if (inotify->watch.fd >= 0) inotify_rm_watch(inotify->watch.fd, watch);
}

bool inotify_has_more(const struct inotify *inotify) {
  int size = 0;
  return inotify->watch.fd >= 0 && ioctl(inotify->watch.fd, FIONREAD, &size) == 0 && size > 0;
}

void inotify_read(struct inotify *inotify) {
  inotify->at = inotify->size = 0;
  if (inotify->watch.fd < 0) return;
  if (inotify->batch == NULL) inotify->batch = memory(BATCH);
  ssize_t size = read(inotify->watch.fd, inotify->batch, BATCH);
  if (size > 0) inotify->size = (size_t)size;
}

bool inotify_next(struct inotify *inotify, struct notice *notice) {
  struct inotify_event event;
  if (inotify->size - inotify->at < sizeof event) return false;
  memcpy(&event, inotify->batch + inotify->at, sizeof event);
  const char *name = (const char *)inotify->batch + inotify->at + sizeof event; /* with NULs behind it */
  inotify->at += sizeof event + event.len;
  *notice = (struct notice){event.wd, event.mask, event.cookie, event.len == 0 ? "" : name};
  return true;
}

static void free_batch(struct inotify *inotify) {
  free(inotify->batch);
  inotify->batch = NULL;
  inotify->at = inotify->size = 0;
}

void inotify_rearm(struct inotify *inotify) {
  free_batch(inotify);
  timer_end(&inotify->gathering);
  watch_change(&inotify->watch, EPOLLIN); /* also for notices that arrived in between */
}

void inotify_end(struct inotify *inotify) {
  int fd = inotify->watch.fd;
  if (fd < 0) return;
  watch_end(&inotify->watch);
  timer_end(&inotify->gathering);
  free_batch(inotify);
  close(fd);
}
