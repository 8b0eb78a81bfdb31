/* Logs as they are read, in pages (logs.h). The session can have written anything into their files. */

#include "frames.h"
#include "logs.h"
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  TIME = 6,                /* bytes */
  LARGEST_ENTRY = 1 << 17, /* bytes of output */
  BLOCK = 256 << 10,       /* bytes that are read at once */
  MOST_ENTRIES = 4096      /* in one page */
};
#define MOST_READ (2 * LARGEST_SEGMENT) /* of a segment: only the session can have made it larger */

/* Finds the entries of a page in blocks of a segment. */
struct finder {
  struct bytes *entries;
  int64_t cursor, limit;
  int64_t end;  /* of the segment */
  int64_t at;   /* the cursor of the next entry */
  int64_t size; /* bytes of output that were taken */
  int count;
  bool is_done, is_improper;
};

static bool is_full(const struct finder *finder, int64_t more) {
  return finder->count >= MOST_ENTRIES || (finder->count > 0 && finder->size + more > finder->limit);
}

/* Whether the page ends before an entry of so many bytes. */
static bool ends_before(struct finder *finder, char kind, int64_t output) {
  if ((kind != 'o' && kind != 'e') || output <= 0 || output > LARGEST_ENTRY) return true;
  return finder->at + output > finder->end || (finder->at >= finder->cursor && is_full(finder, output));
}

/* Skips or takes the entry. False when the cursor is within it. */
static bool pass(struct finder *finder, const uint8_t *entry, int64_t output) {
  if (finder->at >= finder->cursor) {
    finder->size += output;
    finder->count++;
    bytes_add(finder->entries, entry, (size_t)(ENTRY_HEADER + output));
  } else if (finder->at + output > finder->cursor) {
    finder->is_improper = true;
    return false;
  }
  finder->at += output;
  return true;
}

/* How many bytes of the block were whole entries, skipped or taken. */
static size_t take(struct finder *finder, const uint8_t *block, size_t size) {
  size_t offset = 0;
  while (!finder->is_done && size - offset >= ENTRY_HEADER) {
    int64_t output = (int64_t)number_at(block + offset + 1) - TIME;
    if (ends_before(finder, (char)block[offset], output)) finder->is_done = true;
    else if (ENTRY_HEADER + output > (int64_t)(size - offset)) break;
    else if (!pass(finder, block + offset, output)) finder->is_done = true;
    else offset += (size_t)(ENTRY_HEADER + output);
  }
  return offset;
}

/* Reads from the position in the file on, whose size is said to be `size`. Returns where the next entry begins. */
static int64_t scan(struct finder *finder, int fd, int64_t position, int64_t size) {
  int64_t wanted = size - position < BLOCK ? size - position : BLOCK;
  uint8_t *block = wanted <= 0 ? NULL : try_memory((size_t)wanted);
  while (block != NULL && !finder->is_done && position < MOST_READ && position < size) {
    int64_t left = size - position < wanted ? size - position : wanted;
    ssize_t count = pread(fd, block, (size_t)left, position);
    size_t taken = count <= 0 ? 0 : take(finder, block, (size_t)count);
    if (taken == 0) break;
    position += (int64_t)taken;
  }
  free(block);
  return position;
}

static bool is_last(const struct log *log, const struct segment *segment) {
  return segment == &log->segments[log->first + log->count - 1];
}

/* The segment that is being written can be read even after it was removed. */
static int open_segment(const struct log *log, const struct segment *segment) {
  if (log->fd >= 0 && is_last(log, segment)) return log->fd;
  char *path = log_path(log, segment);
  int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  free(path);
  struct stat stat;
  if (fd < 0 || (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode))) return fd;
  close(fd);
  return -1;
}

static int64_t scan_segment(const struct log *log, const struct segment *segment, struct finder *finder,
                            int64_t position, int64_t size) {
  int fd = open_segment(log, segment);
  if (fd < 0) return position;
  position = scan(finder, fd, position, size);
  if (fd != log->fd) close(fd);
  return position;
}

int64_t log_last_end(const struct log *log) {
  const struct segment *last = &log->segments[log->first + log->count - 1];
  /* `limit` is 0, but nothing is ever taken. */
  struct finder finder = {.cursor = INT64_MAX, .end = LARGEST_CURSOR, .at = last->start};
  scan_segment(log, last, &finder, 0, MOST_READ + BLOCK);
  return finder.at;
}

/* The first segment that ends behind the cursor. NULL: there is none. */
static const struct segment *segment_at(const struct log *log, int64_t cursor) {
  const struct segment *segments = log->segments + log->first;
  size_t from = 0, to = log->count;
  while (from < to) {
    size_t middle = from + (to - from) / 2;
    if (segments[middle].end > cursor) to = middle;
    else from = middle + 1;
  }
  return from < log->count ? &segments[from] : NULL;
}

bool log_read(struct log *log, int64_t cursor, int64_t limit, struct log_page *page) {
  *page = (struct log_page){.cursor = log->end, .dropped = log->end - cursor};
  if (cursor > log->end) return false;
  const struct segment *segment = log->count == 0 ? NULL : segment_at(log, cursor);
  if (segment == NULL) return true;
  int64_t from = segment->start > cursor ? segment->start : cursor;
  bool is_hinted = log->hint.cursor == from && log->hint.segment == segment->start;
  struct finder finder = {.entries = &page->entries,
                          .cursor = from,
                          .limit = limit,
                          .end = segment->end,
                          .at = is_hinted ? from : segment->start};
  log->hint.position = scan_segment(log, segment, &finder, is_hinted ? log->hint.position : 0, segment->size);
  log->hint.cursor = finder.at;
  log->hint.segment = segment->start;
  if (finder.is_improper) {
    bytes_free(&page->entries);
    return false;
  }
  /* What cannot be read counts as dropped. */
  bool has_more = finder.at > from;
  page->cursor = has_more ? finder.at : segment->end;
  page->dropped = has_more ? from - cursor : page->cursor - cursor;
  return true;
}
