/* Writes files, all or none. Readers see the old content or the new, never a part.
 *
 * Each file is first written beside its target under a hidden name. When all are complete they are renamed. The
 * contents come one behind the other and are written as they arrive. */

#include "write.h"
#include "copying.h"
#include "loop.h"
#include "names.h"
#include "specs.h"
#include "staged.h"
#include "walk.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum {
  LARGEST_HEAD = 16 << 20, /* bytes */
  SIZE_OF_SIZE = 4,
};

enum step { HEAD_SIZE, HEAD, NEXT_FILE, COPY, CONTENT, END };
enum progress { GO_ON, WAIT, FAILED, DONE };

/* It frees itself when it has answered. */
struct writing {
  struct later later;
  struct writing *next; /* in the queue of appends */
  bool is_queued;
  struct asked *asked;
  enum step step;
  struct bytes head;
  size_t head_size;
  struct specs specs;
  size_t at;              /* the file that is written */
  int64_t left;           /* bytes of it that have not come */
  int fd;                 /* of it, or -1 */
  struct copying copying; /* of its old content */
  struct stage stage;
  struct made made; /* directories */
  struct pace pace;
};

/* Writes that append go one at a time: an append begins with a copy of the old content, and would lose what another one
 * adds meanwhile. The first one is at work. */
static struct {
  struct writing *first, *last;
} appends;

static void work(struct writing *writing);
static void work_later(struct later *later) { work(MEMBER(later, struct writing, later)); }
static void arrived(struct asked *asked) { work(asked_self(asked)); }

/* The next part of the body. DONE: it has ended. */
static enum progress read_part_of_body(struct writing *writing, const uint8_t **part, size_t *size,
                                       struct failure *failure) {
  switch (body_read(writing->asked, part, size)) {
    case BODY_PART: return GO_ON;
    case BODY_END: return DONE;
    case BODY_WAIT: body_on_arrival(writing->asked, arrived); return WAIT;
    default: fail(failure, EPIPE, "the host has left"); return FAILED;
  }
}

/* The same, where the body must not end yet, and at most `most` bytes of it. */
static enum progress read_most(struct writing *writing, size_t most, const uint8_t **part, size_t *size,
                               struct failure *failure) {
  enum progress progress = read_part_of_body(writing, part, size, failure);
  if (progress == DONE) {
    fail(failure, EINVAL, "the body is shorter than it says");
    return FAILED;
  }
  if (progress != GO_ON || *size <= most) return progress;
  body_return(writing->asked, *size - most);
  *size = most;
  return GO_ON;
}

/* Reads on until `head` has so many bytes. DONE: it has. */
static enum progress read_head(struct writing *writing, size_t wanted, struct failure *failure) {
  while (writing->head.size < wanted) {
    const uint8_t *part;
    size_t size;
    enum progress progress = read_most(writing, wanted - writing->head.size, &part, &size, failure);
    if (progress != GO_ON) return progress;
    bytes_add(&writing->head, part, size);
  }
  return DONE;
}

static enum progress take_head_size(struct writing *writing, struct failure *failure) {
  enum progress progress = read_head(writing, SIZE_OF_SIZE, failure);
  if (progress != DONE) return progress;
  writing->head_size = number_at(writing->head.data);
  writing->head.size = 0;
  writing->step = HEAD;
  if (writing->head_size <= LARGEST_HEAD) return GO_ON;
  fail(failure, EINVAL, "the head is too large");
  return FAILED;
}

/* Waits for other appends. */
static enum progress queue(struct writing *writing) {
  struct writing *before = appends.last;
  writing->is_queued = true;
  appends.last = writing;
  if (before == NULL) appends.first = writing;
  else before->next = writing;
  return before == NULL ? GO_ON : WAIT;
}

static enum progress take_head(struct writing *writing, struct failure *failure) {
  enum progress progress = read_head(writing, writing->head_size, failure);
  if (progress != DONE) return progress;
  bool is_parsed = specs_parse(&writing->head, &writing->specs, failure);
  bytes_free(&writing->head);
  if (!is_parsed) return FAILED;
  writing->step = NEXT_FILE;
  return specs_append(&writing->specs) ? queue(writing) : GO_ON;
}

/* Opens the file under its hidden name, which other content of this write may have already. */
static bool open_staged(struct writing *writing, const struct spec *spec, bool is_new, struct failure *failure) {
  const struct staged *staged = spec->staged;
  writing->step = CONTENT;
  if (is_new && spec->append && staged->place.has_before) {
    writing->step = COPY;
    bool is_begun = copying_begin(&writing->copying, staged->place.target, staged->hidden, failure);
    writing->fd = writing->copying.to;
    return is_begun;
  }
  int flags = spec->append ? O_CREAT | O_APPEND : is_new ? O_CREAT | O_EXCL : O_TRUNC;
  writing->fd = open_hidden(staged->hidden, O_WRONLY | flags, spec->path, failure);
  return writing->fd >= 0;
}

static enum progress begin_file(struct writing *writing, struct failure *failure) {
  if (writing->at == writing->specs.count) {
    writing->step = END;
    return GO_ON;
  }
  struct spec *spec = &writing->specs.items[writing->at];
  struct place place;
  bool is_new;
  if (!locate(spec->path, &writing->made, &place, failure)) return FAILED;
  spec->staged = stage_take(&writing->stage, &place, &is_new);
  writing->left = spec->size;
  return open_staged(writing, spec, is_new, failure) ? GO_ON : FAILED;
}

static enum progress copy_old(struct writing *writing, struct failure *failure) {
  if (writing->copying.from >= 0) return copying_step(&writing->copying, failure) ? GO_ON : FAILED;
  writing->step = CONTENT;
  return GO_ON;
}

/* All of the file has been written. */
static enum progress end_file(struct writing *writing, struct failure *failure) {
  const struct spec *spec = &writing->specs.items[writing->at++];
  struct staged *staged = spec->staged;
  if (!keep_owner(writing->fd, &staged->place, failure)) return FAILED;
  if (spec->mode >= 0) staged->mode = (mode_t)spec->mode;
  struct stat stats;
  if (fchmod(writing->fd, staged->mode) < 0) return fail_call(failure, errno, "fchmod", NULL), FAILED;
  if (fstat(writing->fd, &stats) < 0) return fail_call(failure, errno, "fstat", NULL), FAILED;
  staged->size = stats.st_size;
  close(writing->fd);
  writing->fd = -1;
  writing->step = NEXT_FILE;
  return GO_ON;
}

static enum progress take_content(struct writing *writing, struct failure *failure) {
  if (writing->left == 0) return end_file(writing, failure);
  const uint8_t *part;
  size_t size, most = writing->left < (int64_t)(SIZE_MAX / 4) ? (size_t)writing->left : SIZE_MAX / 4;
  enum progress progress = read_most(writing, most, &part, &size, failure);
  if (progress != GO_ON) return progress;
  if (!write_all(writing->fd, part, size, failure)) return FAILED;
  writing->left -= (int64_t)size;
  return GO_ON;
}

static enum progress take_end(struct writing *writing, struct failure *failure) {
  const uint8_t *part;
  size_t size;
  enum progress progress = read_part_of_body(writing, &part, &size, failure);
  if (progress == DONE) return stage_replace(&writing->stage, failure) ? DONE : FAILED;
  if (progress != GO_ON || size == 0) return progress;
  fail(failure, EINVAL, "the body is longer than it says");
  return FAILED;
}

static enum progress take_step(struct writing *writing, struct failure *failure) {
  switch (writing->step) {
    case HEAD_SIZE: return take_head_size(writing, failure);
    case HEAD: return take_head(writing, failure);
    case NEXT_FILE: return begin_file(writing, failure);
    case COPY: return copy_old(writing, failure);
    case CONTENT: return take_content(writing, failure);
    default: return take_end(writing, failure);
  }
}

static void answer_sizes(struct writing *writing) {
  struct bytes answer = {0};
  bytes_text(&answer, "{\"sizes\":[");
  for (size_t at = 0; at < writing->specs.count; at++)
    bytes_format(&answer, "%s%lld", at > 0 ? "," : "", (long long)writing->specs.items[at].staged->size);
  bytes_text(&answer, "]}");
  answer_json(writing->asked, &answer);
}

/* The next append begins in a later turn. */
static void leave_queue(struct writing *writing) {
  if (!writing->is_queued) return;
  appends.first = writing->next;
  if (appends.first == NULL) appends.last = NULL;
  else later_begin(&appends.first->later, work_later);
}

static void finish(struct writing *writing, struct failure *failure) {
  copying_end(&writing->copying);
  if (writing->fd >= 0) close(writing->fd);
  if (failure != NULL) {
    stage_undo(&writing->stage);
    unmake(&writing->made);
    answer_failure(writing->asked, failure);
  } else {
    answer_sizes(writing);
  }
  leave_queue(writing);
  made_forget(&writing->made);
  stage_free(&writing->stage);
  specs_free(&writing->specs);
  bytes_free(&writing->head);
  free(writing);
}

static void work(struct writing *writing) {
  struct failure failure;
  pace_rested(&writing->pace);
  for (;;) {
    enum progress progress = take_step(writing, &failure);
    if (progress == WAIT) return;
    if (progress == FAILED) return finish(writing, &failure);
    if (progress == DONE) return finish(writing, NULL);
    if (pace_is_due(&writing->pace)) return later_begin(&writing->later, work_later);
  }
}

void write_files(struct asked *asked) {
  struct writing *writing = memory(sizeof *writing);
  writing->asked = asked;
  writing->fd = writing->copying.from = -1;
  asked_keep(asked, writing);
  pace_begin(&writing->pace, 0);
  work(writing);
}
