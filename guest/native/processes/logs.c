/* Logs as they are written, and as they are found on disk (logs.h). */

#include "logs.h"
#include "all_logs.h"
#include "frames.h"
#include "loop.h"
#include "records.h"
#include "volume.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  SEGMENTS = 4,           /* of one log at least, so that only a part of it is dropped at a time */
  PAUSE = 250,            /* ms after a failed write before the next try */
  LONGEST_NAME = 16,      /* digits */
  MOST_SEGMENTS = 1 << 16 /* of one log: only the session can have made more */
};
#define LARGEST_SIZE ((int64_t)1 << 40) /* bytes of a log: what is more is not counted, and is the session's lie */

/* --- Life --- */

struct log *log_new(const char *id, int64_t largest) {
  struct log *log = memory(sizeof *log);
  memcpy(log->id, id, PROCESS_ID);
  log->references = 1;
  log->fd = -1;
  log->largest = largest;
  log->segment_size = largest / SEGMENTS < 1                 ? 1
                      : largest / SEGMENTS < LARGEST_SEGMENT ? largest / SEGMENTS
                                                             : LARGEST_SEGMENT;
  log->hint.cursor = log->hint.segment = -1;
  return log;
}

struct log *log_keep(struct log *log) {
  log->references++;
  return log;
}

void log_release(struct log *log) {
  if (log == NULL || --log->references > 0) return;
  log_close(log);
  free(log->segments);
  free(log);
}

void log_close(struct log *log) {
  if (log->fd >= 0) close(log->fd);
  log->fd = -1;
}

/* --- Who waits --- */

void log_wait(struct log *log, struct log_waiter *waiter) {
  struct log_waiter *ring = &log->waiting;
  if (ring->next == NULL) ring->next = ring->previous = ring;
  waiter->next = ring;
  waiter->previous = ring->previous;
  ring->previous->next = waiter;
  ring->previous = waiter;
}

void log_leave(struct log_waiter *waiter) {
  if (waiter->next == NULL) return;
  waiter->next->previous = waiter->previous;
  waiter->previous->next = waiter->next;
  waiter->next = waiter->previous = NULL;
}

void log_wake(struct log *log) {
  while (log->waiting.next != NULL && log->waiting.next != &log->waiting) {
    struct log_waiter *waiter = log->waiting.next;
    log_leave(waiter);
    waiter->look(waiter);
  }
}

/* --- Segments --- */

static struct segment *last_segment(const struct log *log) {
  return log->count == 0 ? NULL : &log->segments[log->first + log->count - 1];
}

char *log_path(const struct log *log, const struct segment *segment) {
  char name[32];
  struct bytes text = {0};
  bytes_format(&text, "%lld.log", (long long)segment->start);
  memcpy(name, bytes_string(&text), text.size + 1);
  bytes_free(&text);
  return records_path(log->id, name);
}

static void add_segment(struct log *log, const struct segment *segment) {
  if (log->first + log->count == log->room) {
    if (log->count > 0) memmove(log->segments, log->segments + log->first, log->count * sizeof *log->segments);
    log->first = 0;
    if (log->count > log->room / 2 || log->room == 0) {
      log->room = log->room == 0 ? 2 : 2 * log->room;
      log->segments = more_memory(log->segments, log->room * sizeof *log->segments);
    }
  }
  log->segments[log->first + log->count++] = *segment;
  log->size += segment->size;
}

bool log_drop(struct log *log) {
  if (log->count < (log->fd < 0 ? 1u : 2u)) return false;
  struct segment oldest = log->segments[log->first++];
  log->count--;
  log->size -= oldest.size;
  char *path = log_path(log, &oldest);
  unlink(path); /* the session may have removed it already */
  free(path);
  return true;
}

/* --- Writing --- */

/* It is a file of ours, or what the session has put there: a pipe or device is not written to. */
static int open_regular(const char *path) {
  int flags = O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC;
  int fd = open(path, flags, 0600);
  struct stat stat;
  if (fd < 0 || (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode))) return fd;
  close(fd);
  errno = EINVAL;
  return -1;
}

static int open_segment(struct log *log, const struct segment *segment) {
  char *path = log_path(log, segment), *directory = records_path(log->id, NULL);
  int fd = open_regular(path);
  if (fd < 0 && errno == ENOENT && make_directories(directory))
    fd = open_regular(path); /* the session had removed it */
  free(path);
  free(directory);
  return fd;
}

/* Begins a segment. */
static bool roll(struct log *log) {
  log_close(log);
  while (log->count > 0 && log->size + log->segment_size > log->largest)
    if (!log_drop(log)) break;
  all_logs_make_room();
  struct segment segment = {.start = log->end, .end = log->end};
  log->fd = open_segment(log, &segment);
  if (log->fd < 0) return false;
  struct segment *before = last_segment(log);
  if (before != NULL && before->start == log->end) { /* it stayed empty */
    log->size -= before->size;
    log->count--;
  }
  add_segment(log, &segment);
  return true;
}

static bool try_write(struct log *log, const uint8_t *entry, size_t size) {
  struct segment *segment = last_segment(log);
  if ((log->fd < 0 || segment->size + (int64_t)size > log->segment_size) && !roll(log)) return false;
  segment = last_segment(log);
  ssize_t written = write(log->fd, entry, size);
  if (written == (ssize_t)size) {
    segment->size += written;
    log->size += written;
    return true;
  }
  /* The disk is full. Half an entry would be the end of the segment. */
  if (written > 0 && ftruncate(log->fd, segment->size) != 0) return false;
  return false;
}

/* A disk that is full may still have room for names: each attempt would leave an empty file. */
static void forget_empty_segment(struct log *log) {
  struct segment *last = last_segment(log);
  if (last == NULL || last->size > 0) return;
  char *path = log_path(log, last);
  unlink(path);
  free(path);
  log->count--;
}

static bool write_entry(struct log *log, const uint8_t *entry, size_t size) {
  if (log->not_before > 0 && now() < log->not_before) return false;
  log->not_before = 0;
  if (try_write(log, entry, size)) return true;
  log_close(log); /* later output goes into a new segment, after a gap */
  forget_empty_segment(log);
  log->not_before = now() + PAUSE;
  return false;
}

static void seal(uint8_t *entry, char kind, size_t size) {
  int64_t time = wall_time();
  frame_seal(entry, size, kind);
  entry[FRAME_HEADER] = (uint8_t)(time >> 40);
  entry[FRAME_HEADER + 1] = (uint8_t)(time >> 32);
  put_number(entry + FRAME_HEADER + 2, (uint32_t)time);
}

void log_append(struct log *log, char kind, uint8_t *entry, size_t size) {
  seal(entry, kind, size);
  bool is_written = write_entry(log, entry, size);
  log->end += (int64_t)size - ENTRY_HEADER;
  if (is_written) last_segment(log)->end = log->end;
  log_wake(log);
}

/* --- On disk --- */

/* The cursor that a file is named by; -1 for other files. */
static int64_t start_of_file(const char *name) {
  size_t digits = strspn(name, "0123456789");
  if (digits == 0 || digits > LONGEST_NAME || strcmp(name + digits, ".log") != 0) return -1;
  int64_t start = strtoll(name, NULL, 10);
  return start <= LARGEST_CURSOR ? start : -1;
}

/* Without following a link that the session has put there. */
static int64_t size_of_file(const struct log *log, const struct segment *segment) {
  struct stat stat;
  char *path = log_path(log, segment);
  int64_t size = lstat(path, &stat) == 0 && S_ISREG(stat.st_mode) ? stat.st_size : 0;
  free(path);
  return size < 0 ? 0 : size;
}

static int compare(const void *one, const void *other) {
  const struct segment *left = one, *right = other;
  return left->start < right->start ? -1 : left->start > right->start;
}

/* Finds the segments, each of which ends where the next one begins. */
static void find_segments(struct log *log) {
  char *path = records_path(log->id, NULL);
  DIR *directory = opendir(path);
  free(path);
  if (directory == NULL) return;
  for (struct dirent *entry; log->count < MOST_SEGMENTS && (entry = readdir(directory)) != NULL;) {
    struct segment segment = {.start = start_of_file(entry->d_name)};
    if (segment.start >= 0) add_segment(log, &segment);
  }
  closedir(directory);
  if (log->count > 0) qsort(log->segments, log->count, sizeof *log->segments, compare);
  for (size_t at = 0; at < log->count; at++) {
    struct segment *segment = &log->segments[at];
    int64_t size = size_of_file(log, segment), left = LARGEST_SIZE - log->size;
    segment->end = at + 1 < log->count ? log->segments[at + 1].start : segment->start;
    segment->size = size < left ? size : left;
    log->size += segment->size;
  }
}

struct log *log_stored(const char *id, int64_t output) {
  struct log *log = log_new(id, LARGEST_SEGMENT);
  find_segments(log);
  log->end = output > 0 ? output : 0;
  struct segment *last = last_segment(log);
  if (last == NULL) return log;
  int64_t end = log_last_end(log);
  last->end = end > log->end ? end : log->end;
  log->end = last->end;
  return log;
}

int64_t log_size_of(const char *id) {
  struct log *log = log_new(id, LARGEST_SEGMENT);
  find_segments(log);
  int64_t size = log->size;
  log_release(log);
  return size;
}
