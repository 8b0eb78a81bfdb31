/* All logs (all_logs.h). */

#include "all_logs.h"
#include "background.h"
#include <stdlib.h>
#include <string.h>

enum { CACHED = 8 /* logs of ended processes */ };

struct log_size {
  process_id id;
  int64_t size;
};

static struct {
  struct log *cached; /* the most recently used first */
  int64_t most;       /* bytes; 0: not told yet */

  /* Bytes of the logs of ended processes, oldest first, from `first` on. Known when there was a need. */
  bool is_measured;
  struct log_size *sizes;
  size_t first, count, room;
  int64_t total;
} logs;

/* --- Logs of ended processes --- */

static struct log *take_cached(const char *id) {
  for (struct log **at = &logs.cached; *at != NULL; at = &(*at)->next) {
    struct log *log = *at;
    if (strcmp(log->id, id) != 0) continue;
    *at = log->next;
    log->next = NULL;
    return log;
  }
  return NULL;
}

/* Takes the reference. */
static void cache(struct log *log) {
  log->next = logs.cached;
  logs.cached = log;
  struct log **at = &log->next;
  for (int count = 1; count < CACHED && *at != NULL; count++) at = &(*at)->next;
  struct log *oldest = *at; /* there is one at most */
  *at = NULL;
  log_release(oldest);
}

struct log *all_logs_of(const struct record *record) {
  struct background *running = background_find(record->entry.id);
  if (running != NULL) return background_log(running);
  struct log *log = take_cached(record->entry.id);
  if (log == NULL) log = log_stored(record->entry.id, record->output);
  cache(log);
  return log;
}

/* --- Their sizes --- */

/* The place of the id among the sizes, or where it would be. */
static size_t place_of(const char *id) {
  size_t from = logs.first, to = logs.first + logs.count;
  while (from < to) {
    size_t middle = from + (to - from) / 2;
    if (strcmp(logs.sizes[middle].id, id) < 0) from = middle + 1;
    else to = middle;
  }
  return from;
}

static bool is_at(size_t place, const char *id) {
  return place < logs.first + logs.count && strcmp(logs.sizes[place].id, id) == 0;
}

static void remove_size(size_t place) {
  struct log_size *at = &logs.sizes[place];
  logs.total -= at->size;
  size_t before = place - logs.first;
  logs.count--;
  if (before == 0) logs.first++; /* as nearly always */
  else memmove(at, at + 1, (logs.count - before) * sizeof *at);
}

static void make_place(void) {
  if (logs.first + logs.count < logs.room) return;
  if (logs.first > logs.count) {
    memmove(logs.sizes, logs.sizes + logs.first, logs.count * sizeof *logs.sizes);
    logs.first = 0;
    return;
  }
  logs.room = 2 * logs.room + 16;
  logs.sizes = more_memory(logs.sizes, logs.room * sizeof *logs.sizes);
}

static void set_size(const char *id, int64_t size) {
  make_place();
  size_t place = place_of(id);
  if (is_at(place, id)) logs.total -= logs.sizes[place].size;
  else {
    size_t behind = logs.first + logs.count++ - place;
    memmove(&logs.sizes[place + 1], &logs.sizes[place], behind * sizeof *logs.sizes);
    memcpy(logs.sizes[place].id, id, sizeof logs.sizes[place].id);
  }
  logs.sizes[place].size = size;
  logs.total += size;
}

static void measure(void) {
  if (logs.is_measured) return;
  logs.is_measured = true;
  size_t count;
  process_id *ids = records_ids(&count);
  for (size_t at = 0; at < count; at++) {
    int64_t size = background_find(ids[at]) != NULL ? 0 : log_size_of(ids[at]);
    if (size > 0) set_size(ids[at], size);
  }
  free(ids);
}

/* --- The limit --- */

void all_logs_limit(int64_t bytes) { logs.most = bytes; }

static void drop_all(const char *id) {
  struct record *record = records_find(id);
  if (record == NULL) return;
  struct log *log = all_logs_of(record);
  while (log_drop(log)) {
  }
  record_done(record);
}

void all_logs_make_room(void) {
  measure();
  int64_t running = background_log_bytes(), most = logs.most - LARGEST_SEGMENT;
  while (logs.total + running > most && logs.count > 0) {
    process_id id;
    memcpy(id, logs.sizes[logs.first].id, sizeof id);
    drop_all(id);
    remove_size(logs.first);
  }
  while (logs.total + running > most) {
    struct log *largest = background_largest_log();
    int64_t before = largest == NULL ? 0 : largest->size;
    if (largest == NULL || !log_drop(largest)) return;
    running -= before - largest->size;
  }
}

void all_logs_ended(struct log *log) {
  if (logs.is_measured) set_size(log->id, log->size);
  log_release(take_cached(log->id));
  cache(log_keep(log));
}

void all_logs_forget(const char *id) {
  log_release(take_cached(id));
  size_t place = place_of(id);
  if (is_at(place, id)) remove_size(place);
}
