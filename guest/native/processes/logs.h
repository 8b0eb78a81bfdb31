/* The newest output of processes, kept in files on the session's volume up to a limit.
 *
 * A log is a sequence of entries. Each is a frame (frames.h): `o` or `e`, the length, the time in ms in six bytes, and
 * the output. A cursor counts bytes of output since the start. A log is split into segments, each named by the cursor
 * that it begins with. Missing output (dropped, or never written on a full disk) shows as a gap between two segments.
 */

#pragma once

#include "ids.h"

enum { ENTRY_HEADER = 11, LARGEST_SEGMENT = 1 << 20 };
#define LARGEST_CURSOR 9007199254740991 /* JavaScript's Number.MAX_SAFE_INTEGER */

struct segment {
  int64_t start; /* cursor */
  int64_t end;   /* cursor; for an old segment whose end is not known, the next one's start */
  int64_t size;  /* bytes of the file */
};

/* Waits for more output. All zeros: it does not. */
struct log_waiter {
  struct log_waiter *next, *previous;
  void (*look)(struct log_waiter *waiter);
};

struct log {
  struct log *next; /* for those who list it (all_logs.c) */
  char id[PROCESS_ID + 1];
  int references;
  int fd; /* of the last segment, while it is written; -1 */
  struct segment *segments;
  size_t first, count, room; /* those from `first` on are there */
  int64_t end;               /* cursor */
  int64_t size;              /* bytes of its files */
  int64_t largest, segment_size;
  double not_before; /* when writing is tried again */
  struct {
    int64_t cursor, segment, position;
  } hint;                    /* where the last page ended */
  struct log_waiter waiting; /* head of a ring, or all zeros */
};

/* A log that begins. `largest`: bytes to keep. */
struct log *log_new(const char *id, int64_t largest);
/* A log that nobody writes any more. `output`: its cursor when its process ended, or -1. The file has more when a child
 * went on writing, and less when the disk was full. Output that was handed out is never missing. */
struct log *log_stored(const char *id, int64_t output);
/* Both begin with one reference. */
struct log *log_keep(struct log *log);
void log_release(struct log *log);
/* Bytes of the files of a log that is not open. */
int64_t log_size_of(const char *id);

static inline size_t log_segments(const struct log *log) { return log->count; }
/* Adds an entry, whose header is still empty. Never fails: output that cannot be written is missing. */
void log_append(struct log *log, char kind, uint8_t *entry, size_t size);
/* Calls everyone who waits. They must not free the log. */
void log_wake(struct log *log);
/* Calls `look` once, when there may be more. */
void log_wait(struct log *log, struct log_waiter *waiter);
void log_leave(struct log_waiter *waiter);
/* Drops the oldest segment. False when only the one that is being written is left. */
bool log_drop(struct log *log);
/* Ends the log: nothing more is written. */
void log_close(struct log *log);

/* --- Pages (log_pages.c) --- */

struct log_page {
  struct bytes entries; /* as they are in the file; to be freed */
  int64_t cursor, dropped;
};
/* About `limit` bytes of output from the cursor on. False for a cursor that no page gave. */
bool log_read(struct log *log, int64_t cursor, int64_t limit, struct log_page *page);
/* The cursor after the last whole entry of the last segment. */
int64_t log_last_end(const struct log *log);
char *log_path(const struct log *log, const struct segment *segment);
