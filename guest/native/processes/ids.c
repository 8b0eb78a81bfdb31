/* Tables of things that are found by the id of a process (ids.h). */

#include "ids.h"
#include <stdlib.h>
#include <string.h>

enum { FIRST_ROOM = 8, PREFIX = 5, TIME = 9 /* digits of base 36 */ };

static bool is_digit(char byte) { return (byte >= '0' && byte <= '9') || (byte >= 'a' && byte <= 'z'); }

bool is_process_id(const char *text, size_t size) {
  if (text == NULL || size != PROCESS_ID || memcmp(text, "proc_", PREFIX) != 0) return false;
  for (size_t at = PREFIX; at < size; at++)
    if (!is_digit(text[at])) return false;
  return true;
}

int64_t process_id_time(const char *id) {
  int64_t time = 0;
  for (size_t at = PREFIX; at < PREFIX + TIME; at++)
    time = 36 * time + (id[at] <= '9' ? id[at] - '0' : id[at] - 'a' + 10);
  return time;
}

static struct id_entry **bucket_of(const struct id_table *table, const char *id) {
  uint32_t hash = 2166136261u;
  for (size_t at = 0; at < PROCESS_ID; at++) hash = (hash ^ (uint8_t)id[at]) * 16777619u;
  return &table->buckets[(hash ^ hash >> 15) & (table->room - 1)];
}

struct id_entry *ids_find(const struct id_table *table, const char *id) {
  if (table->count == 0) return NULL;
  struct id_entry *entry = *bucket_of(table, id);
  while (entry != NULL && strcmp(entry->id, id) != 0) entry = entry->chain;
  return entry;
}

static void put_into_bucket(struct id_table *table, struct id_entry *entry) {
  struct id_entry **bucket = bucket_of(table, entry->id);
  entry->chain = *bucket;
  *bucket = entry;
}

static void grow(struct id_table *table) {
  free(table->buckets);
  table->room = table->room == 0 ? FIRST_ROOM : 2 * table->room;
  table->buckets = memory(table->room * sizeof *table->buckets);
  for (struct id_entry *entry = table->first; entry != NULL; entry = entry->next) put_into_bucket(table, entry);
}

void ids_add(struct id_table *table, struct id_entry *entry) {
  if (table->count == table->room) grow(table);
  table->count++;
  put_into_bucket(table, entry);
  entry->next = NULL;
  entry->previous = table->last;
  *(table->last == NULL ? &table->first : &table->last->next) = entry;
  table->last = entry;
}

void ids_remove(struct id_table *table, struct id_entry *entry) {
  struct id_entry **at = bucket_of(table, entry->id);
  while (*at != entry) at = &(*at)->chain;
  *at = entry->chain;
  *(entry->previous == NULL ? &table->first : &entry->previous->next) = entry->next;
  *(entry->next == NULL ? &table->last : &entry->next->previous) = entry->previous;
  if (--table->count > 0) return;
  free(table->buckets);
  *table = (struct id_table){0};
}
