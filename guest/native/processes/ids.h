/* Ids of processes, and tables of things that are found by them. */

#pragma once

#include "bytes.h"

enum { PROCESS_ID = 23 }; /* bytes */

/* `proc_` and 18 lower-case letters or digits, so it can be a name in a directory. */
bool is_process_id(const char *text, size_t size);
/* When it was made, by what it says itself, in ms since 1970. */
int64_t process_id_time(const char *id);

/* A member of the thing. The same id may be there several times; the newest is found. */
struct id_entry {
  char id[PROCESS_ID + 1];
  struct id_entry *chain;           /* in its bucket */
  struct id_entry *next, *previous; /* in the order in which they were added */
};

/* All zeros is an empty one. */
struct id_table {
  struct id_entry **buckets;
  size_t count, room;
  struct id_entry *first, *last;
};

struct id_entry *ids_find(const struct id_table *table, const char *id);
/* The id of the entry is set already. */
void ids_add(struct id_table *table, struct id_entry *entry);
/* Entries can be walked by `next`; one that is removed meanwhile must have been left before. */
void ids_remove(struct id_table *table, struct id_entry *entry);
