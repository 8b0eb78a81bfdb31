/* Files that arrive in pieces and appear atomically when all have arrived.
 *
 * Until then such a file has no name, so nothing is left of it when the guest or the host ends. */

#include "uploads.h"
#include "bodies.h"
#include "hidden.h"
#include "loop.h"
#include "names.h"
#include "places.h"
#include "uuid.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  MOST = 64,
  PATIENCE = 180000, /* ms between two pieces, after which the host counts as gone */
};

/* It is freed when it has ended and the edge brings no more. */
struct upload {
  struct upload *next;
  char *id;
  struct made made;
  struct place place;
  int mode;
  int fd;       /* -1: it has ended */
  char *hidden; /* its name, if it has one */
  int64_t size;
  bool has_edge;
  int64_t promised;          /* bytes that the edge brings */
  struct arriving *arriving; /* NULL: it brings none, or no more */
  bool has_failed;
  struct failure failure; /* of what the edge brought */
  struct timer timer;
};

static struct {
  struct upload *first;
  size_t count;
} uploads;

static void take_out(struct upload *upload) {
  for (struct upload **at = &uploads.first; *at != NULL; at = &(*at)->next) {
    if (*at != upload) continue;
    *at = upload->next;
    uploads.count--;
    return;
  }
}

static void free_upload(struct upload *upload) {
  free(upload->place.target);
  free(upload->id);
  if (upload->has_failed) failure_free(&upload->failure);
  free(upload);
}

/* Ends the upload and removes what is left of it. Afterwards it may not be touched. */
static void forget(struct upload *upload) {
  timer_end(&upload->timer);
  take_out(upload);
  if (upload->fd >= 0) close(upload->fd);
  upload->fd = -1;
  if (upload->hidden != NULL) unlink(upload->hidden);
  hidden_forget(upload->hidden);
  upload->hidden = NULL;
  unmake(&upload->made);
  if (upload->arriving != NULL) arriving_stop(upload->arriving); /* `over` frees the upload */
  else free_upload(upload);
}

static void tire(struct timer *timer) { forget(MEMBER(timer, struct upload, timer)); }

static void be_patient(struct upload *upload) { timer_begin(&upload->timer, PATIENCE, tire); }

/* Bytes from the edge. Not more after a failure, which `upload_end` tells. */
static enum taken take(void *self, const uint8_t *bytes, size_t size) {
  struct upload *upload = self;
  if (upload->fd < 0 || upload->has_failed) return TAKEN_ENOUGH;
  be_patient(upload);
  upload->has_failed = !write_all(upload->fd, bytes, size, &upload->failure);
  if (upload->has_failed) return TAKEN_ENOUGH;
  upload->size += (int64_t)size;
  return TAKEN_MORE;
}

static void over(void *self, int64_t missing) {
  struct upload *upload = self;
  upload->arriving = NULL;
  if (upload->fd < 0) free_upload(upload);
}

static const struct arriving_target target = {.take = take, .over = over};

/* Whether the file system knows no files without a name. */
static bool needs_name(int error) { return error == EOPNOTSUPP || error == EISDIR || error == EINVAL; }

static bool open_nameless(struct upload *upload, const char *path, struct failure *failure) {
  char *directory = above(upload->place.target);
  upload->fd = open(directory, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600);
  bool is_done = upload->fd >= 0 || (!needs_name(errno) && !fail_call(failure, errno, "open", directory));
  free(directory);
  if (is_done) return upload->fd >= 0;
  upload->hidden = hidden_beside(upload->place.target);
  upload->fd = open_hidden(upload->hidden, O_WRONLY | O_CREAT | O_EXCL, path, failure);
  return upload->fd >= 0;
}

const char *upload_begin(const char *path, int mode, const char *ticket, int64_t size, struct failure *failure) {
  if (uploads.count >= MOST) {
    fail(failure, EAGAIN, "too many uploads");
    return NULL;
  }
  struct upload *upload = memory(sizeof *upload);
  *upload = (struct upload){.id = new_uuid(), .mode = mode, .fd = -1, .has_edge = ticket != NULL, .promised = size};
  if (!locate(path, &upload->made, &upload->place, failure) || !open_nameless(upload, path, failure)) {
    forget(upload);
    return NULL;
  }
  if (ticket != NULL) upload->arriving = arriving_begin(ticket, size, &target, upload);
  upload->next = uploads.first;
  uploads.first = upload;
  uploads.count++;
  be_patient(upload);
  return upload->id;
}

static struct upload *find(const char *id) {
  struct upload *upload = uploads.first;
  while (upload != NULL && (id == NULL || strcmp(upload->id, id) != 0)) upload = upload->next;
  return upload;
}

static bool fail_missing(struct failure *failure) { return fail(failure, ETIME, "there is no such upload"); }

bool upload_add(const char *id, const uint8_t *bytes, size_t size, struct failure *failure) {
  struct upload *upload = find(id);
  if (upload == NULL) return fail_missing(failure);
  be_patient(upload);
  if (!write_all(upload->fd, bytes, size, failure)) {
    forget(upload);
    return false;
  }
  upload->size += (int64_t)size;
  return true;
}

/* Gives this name to a file without a name. */
static bool link_opened(int fd, const char *path) {
  /* Since Linux 6.10 this needs no /proc, which a session may have unmounted. */
  if (linkat(fd, "", AT_FDCWD, path, AT_EMPTY_PATH) == 0) return true;
  char opened[32];
  snprintf(opened, sizeof opened, "/proc/self/fd/%d", fd);
  return linkat(AT_FDCWD, opened, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0;
}

/* Makes sure that the complete file has a hidden name. */
static bool give_name(struct upload *upload, struct failure *failure) {
  if (upload->hidden != NULL) return true;
  upload->hidden = hidden_beside(upload->place.target);
  if (link_opened(upload->fd, upload->hidden)) return true;
  char *directory = above(upload->place.target);
  struct stat stats;
  if (lstat(directory, &stats) < 0) fail_call(failure, errno, "lstat", directory); /* it was removed meanwhile */
  else fail_no_place(failure, upload->place.target);
  free(directory);
  return false;
}

/* Whether all has come. */
static bool is_whole(struct upload *upload, struct failure *failure) {
  if (upload->has_failed) {
    *failure = upload->failure;
    upload->failure.path = NULL;
    return false;
  }
  return !upload->has_edge || upload->size == upload->promised || fail(failure, ETIME, "not all has come");
}

static bool put_in_place(struct upload *upload, struct failure *failure) {
  if (!is_whole(upload, failure) || !keep_owner(upload->fd, &upload->place, failure)) return false;
  mode_t mode = upload->mode >= 0 ? (mode_t)upload->mode : mode_of(&upload->place);
  if (fchmod(upload->fd, mode) < 0) return fail_call(failure, errno, "fchmod", NULL);
  if (!give_name(upload, failure)) return false;
  if (upload->place.has_before) will_replace(name_of(upload->hidden));
  if (rename(upload->hidden, upload->place.target) < 0) return fail_call(failure, errno, "rename", upload->hidden);
  hidden_forget(upload->hidden);
  upload->hidden = NULL;
  made_forget(&upload->made);
  return true;
}

bool upload_end(const char *id, int64_t *size, struct failure *failure) {
  struct upload *upload = find(id);
  if (upload == NULL) return fail_missing(failure);
  bool is_done = put_in_place(upload, failure);
  *size = upload->size;
  forget(upload);
  return is_done;
}

void upload_drop(const char *id) {
  struct upload *upload = find(id);
  if (upload != NULL) forget(upload);
}
