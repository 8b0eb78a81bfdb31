/* The record of each process: a small file beside its logs, on the session's volume.
 *
 * A record stays in memory until the end of its process is on disk. When a guest starts on a volume, processes that ran
 * under the guest before it are lost. Their records say why, if that guest was told. */

#pragma once

#include "ids.h"
#include <sys/types.h>

enum status { STATUS_RUNNING, STATUS_EXITED, STATUS_LOST };
enum reason { REASON_NONE, REASON_DEEP_SLEEP, REASON_RUNTIME_ENDED, REASON_TIMEOUT };

struct words {
  char *text; /* NULL: null */
  size_t size;
};

struct record {
  struct id_entry entry; /* its id, and among those in memory */
  pid_t pid;
  enum status status;
  int64_t started_at; /* ms */
  struct words command, name;
  int exit_code;    /* -1: null */
  int64_t ended_at; /* ms; -1: null */
  enum reason reason;
  int64_t output;     /* bytes of output when the process ended, and what came since; -1: null */
  enum reason ending; /* why the process will count as ended if this record is the last one */
  bool is_kept;       /* in memory */
  bool is_unwritten;
};

/* --- One record (record.c) --- */

/* A record of a process that has just started. `command`: of any length; the beginning is shown. */
struct record *record_new(const char *id, pid_t pid, const char *command, size_t command_size, const char *name,
                          size_t name_size);
void record_free(struct record *record);
void record_json(const struct record *record, struct bytes *into);
/* "null", or in quotes. */
const char *reason_json(enum reason reason);
/* NULL when it is no proper record of this process. */
struct record *record_parsed(const char *id, const struct bytes *text);
/* What is known of a process whose record the session has damaged: what its id says. */
struct record *record_lost(const char *id);

/* --- All records (records.c) --- */

/* The directory of the process, or a file in it. To be freed. */
char *records_path(const char *id, const char *file);
/* NULL when there is none. `id` may be any text. To be given back by record_done or records_put. */
struct record *records_find(const char *id);
void record_done(struct record *record);
/* Writes the record in place of the one before, and takes it: it must not be used any more, unless its process runs. If
 * it cannot be written now, it is kept and written later. */
void records_put(struct record *record);
/* Those in memory, of which some may have ended: to be walked by `entry.next`. */
struct record *records_first(void);
static inline struct record *record_next(const struct record *record) {
  return record->entry.next == NULL ? NULL : MEMBER(record->entry.next, struct record, entry);
}

/* The ids of all known processes, oldest first, each with a NUL behind it. To be freed. */
typedef char process_id[PROCESS_ID + 1];
process_id *records_ids(size_t *count);
/* Deletes the oldest ended processes that have to go to make place for one more, and tells of each before. */
void records_make_room(void (*forget)(const char *id));
