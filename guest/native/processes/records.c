/* All records: those in memory, and those on disk (records.h). */

#include "records.h"
#include "asked.h"
#include "loop.h"
#include "volume.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>

#define RECORD "record.json"
enum {
  LARGEST = 64 << 10,  /* bytes of a record */
  RETRY = 3000,        /* ms, while the disk is full */
  MOST = 10000,        /* beyond this, the oldest ended processes are forgotten */
  MOST_NAMES = 200000, /* that are looked at: only the session can have made more */
  AHEAD = 64,          /* oldest processes that are known from the last listing */
  AT_ONCE = 1000       /* that are deleted before one start */
};

static struct {
  struct id_table kept;
  struct timer retry;

  /* So that a start need not list all: how many there are, and which go next. */
  bool is_counted;
  size_t count;   /* also of those that the session has deleted */
  size_t skipped; /* that are among the oldest and had not ended */
  process_id *oldest;
  size_t oldest_at, oldest_count;
} records;

char *records_path(const char *id, const char *file) {
  const char *root = settings.processes;
  return file == NULL ? format_text("%s/%s", root, id) : format_text("%s/%s/%s", root, id, file);
}

struct record *records_first(void) {
  return records.kept.first == NULL ? NULL : MEMBER(records.kept.first, struct record, entry);
}

static struct record *kept(const char *id) {
  struct id_entry *entry = ids_find(&records.kept, id);
  return entry == NULL ? NULL : MEMBER(entry, struct record, entry);
}

/* --- Finding --- */

/* What an earlier guest wrote. If the session damaged it, what its id says. */
static struct record *stored(const char *id) {
  struct bytes text = {0};
  char *path = records_path(id, RECORD), *directory = records_path(id, NULL);
  bool is_read = read_small_file(path, LARGEST, &text);
  struct record *record = is_read ? record_parsed(id, &text) : NULL;
  bool is_known = record != NULL || is_read || is_directory(directory);
  bytes_free(&text);
  free(path);
  free(directory);
  if (!is_known) return NULL;
  if (record == NULL) return record_lost(id);
  if (record->status != STATUS_RUNNING) return record;
  record->status = STATUS_LOST;
  record->reason = record->ending != REASON_NONE ? record->ending : REASON_RUNTIME_ENDED;
  return record;
}

struct record *records_find(const char *id) {
  if (!is_process_id(id, strlen(id))) return NULL;
  struct record *record = kept(id);
  return record != NULL ? record : stored(id);
}

void record_done(struct record *record) {
  if (record != NULL && !record->is_kept) record_free(record);
}

/* --- Writing --- */

static bool is_written(const struct record *record) {
  struct bytes text = {0};
  record_json(record, &text);
  char *path = records_path(record->entry.id, RECORD);
  bool is_replaced = replace_file(path, &text);
  free(path);
  bytes_free(&text);
  return is_replaced;
}

static void keep(struct record *record) {
  struct record *before = kept(record->entry.id);
  if (before == record) return;
  if (before != NULL) {
    ids_remove(&records.kept, &before->entry);
    record_free(before);
  }
  if (!record->is_kept && before == NULL && record->status == STATUS_RUNNING) records.count++; /* it has just started */
  record->is_kept = true;
  ids_add(&records.kept, &record->entry);
}

static void write_again(struct timer *timer) {
  for (struct record *record = records_first(), *next; record != NULL; record = next) {
    next = record_next(record);
    if (record->is_unwritten) records_put(record);
  }
}

void records_put(struct record *record) {
  keep(record);
  record->is_unwritten = !is_written(record);
  if (record->is_unwritten) {
    if (!timer_runs(&records.retry)) timer_begin(&records.retry, RETRY, write_again);
  } else if (record->status != STATUS_RUNNING) {
    ids_remove(&records.kept, &record->entry);
    record_free(record);
  }
}

/* --- Listing --- */

static int compare(const void *one, const void *other) { return strcmp(one, other); }

struct listing {
  process_id *ids;
  size_t count, room;
};

static void list(struct listing *listing, const char *id) {
  if (listing->count == listing->room) {
    listing->room = 2 * listing->room + 64;
    listing->ids = more_memory(listing->ids, listing->room * sizeof *listing->ids);
  }
  memcpy(listing->ids[listing->count++], id, sizeof *listing->ids);
}

/* What cannot be read has no names: nothing was started yet, or the session removed it. */
static void list_stored(struct listing *listing) {
  DIR *root = opendir(settings.processes);
  if (root == NULL) return;
  for (struct dirent *entry; listing->count < MOST_NAMES && (entry = readdir(root)) != NULL;)
    if (is_process_id(entry->d_name, strlen(entry->d_name))) list(listing, entry->d_name);
  closedir(root);
}

process_id *records_ids(size_t *count) {
  struct listing listing = {0};
  for (struct record *record = records_first(); record != NULL; record = record_next(record))
    list(&listing, record->entry.id);
  list_stored(&listing);
  if (listing.count > 0) qsort(listing.ids, listing.count, sizeof *listing.ids, compare);
  size_t unique = 0;
  for (size_t at = 0; at < listing.count; at++)
    if (unique == 0 || strcmp(listing.ids[unique - 1], listing.ids[at]) != 0)
      memmove(listing.ids[unique++], listing.ids[at], sizeof *listing.ids);
  *count = unique;
  return listing.ids;
}

/* --- Forgetting --- */

/* Counts all, and remembers the oldest ones if some have to go soon. */
static void count_all(void) {
  free(records.oldest);
  records.oldest = records_ids(&records.count);
  size_t surplus = records.count > MOST ? records.count - MOST : 0;
  records.is_counted = true;
  records.skipped = records.oldest_at = 0;
  records.oldest_count = records.count < MOST ? 0 : surplus + AHEAD < records.count ? surplus + AHEAD : records.count;
  if (records.oldest_count == 0) {
    free(records.oldest);
    records.oldest = NULL;
  } else records.oldest = more_memory(records.oldest, records.oldest_count * sizeof *records.oldest);
}

static void delete_process(const char *id) {
  char *path = records_path(id, NULL);
  delete_all(path);
  free(path);
}

void records_make_room(void (*forget)(const char *id)) {
  if (!records.is_counted) count_all();
  for (int deleted = 0; records.count > MOST + records.skipped && deleted < AT_ONCE;) {
    if (records.oldest_at == records.oldest_count) {
      count_all();
      if (records.oldest_count == 0) break;
      continue;
    }
    const char *id = records.oldest[records.oldest_at++];
    if (kept(id) != NULL) {
      records.skipped++;
      continue;
    }
    forget(id);
    delete_process(id);
    records.count--;
    deleted++;
  }
}
