/* The entries of a listing: collected, and then sorted by the bytes of their paths, in turns. */

#pragma once

#include "bytes.h"
#include "failure.h"
#include "walk.h"

/* An entry. What its path alone does not tell again later is told here. */
struct entry {
  int64_t size, modified;
  uint8_t kind;
  bool is_told; /* `size` and `modified` are: its path is too long for calls */
  bool is_gone;
  char path[];
};

struct entries {
  struct entry **items;
  size_t count, room;
  struct block *blocks; /* memory of the entries */
  bool is_odd;          /* there is a path that is not UTF-8 */
  struct entry **spare; /* of sorting, as large as `items` */
  size_t width;         /* of sorting: runs of so many are in order */
  size_t at;            /* of sorting: where the next merge begins, or is */
  size_t left, right;   /* of sorting: what is next in the two runs of this merge */
};

/* Adds one with a copy of the path. NULL, with ENOMEM, when there is no memory. */
struct entry *entries_add(struct entries *entries, const struct found *found, struct failure *failure);
/* Sorts some more. True when all is sorted. Fails with ENOMEM: then *failed is true. */
bool entries_sort(struct entries *entries, bool *failed, struct failure *failure);
void entries_free(struct entries *entries);
