/* What the kernel reports about changes in directories. Each watcher has its own descriptor.
 *
 * After the first notice, what follows in the next moment is gathered, without being told of it: a session that changes
 * a million files does not drown the guest. */

#pragma once

#include "failure.h"
#include "loop.h"

struct notice {
  int watch;
  uint32_t mask, cookie;
  const char *name; /* "" for the watched directory itself */
};

struct inotify {
  struct watch watch;
  struct timer gathering;
  double gather;
  void (*notices)(struct inotify *inotify);
  uint8_t *batch; /* notices that were read, or NULL */
  size_t at, size;
};

/* `notices` is called `gather` ms after the first notice, and not again before inotify_rearm. Fails with EMFILE. */
bool inotify_begin(struct inotify *inotify, void (*notices)(struct inotify *), double gather, struct failure *failure);
/* A number for the directory, the same one if it is watched already, or -1 on failure. */
int inotify_add(struct inotify *inotify, const char *path);
void inotify_remove(struct inotify *inotify, int watch);
/* Whether notices wait in the kernel. */
bool inotify_has_more(const struct inotify *inotify);
/* Reads some of them: a batch. The one before must have been taken. */
void inotify_read(struct inotify *inotify);
/* The next notice of the batch, valid until the next call. False when there is none. */
bool inotify_next(struct inotify *inotify, struct notice *notice);
/* Everything has been taken: tell again. */
void inotify_rearm(struct inotify *inotify);
/* Closes it. Also when it is closed. */
void inotify_end(struct inotify *inotify);
