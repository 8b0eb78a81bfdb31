/* The entries of a listing: collected, and then sorted by the bytes of their paths, in turns.
 *
 * A byte that is not UTF-8 sorts behind all characters, as its lone surrogate did in the keys that the guest sorted
 * when it was written in TypeScript. */

#include "entries.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  BLOCK = 64 << 10, /* bytes of memory for entries that are taken at once */
  FIRST_ROOM = 256, /* entries */
  RUN = 512,        /* entries that are sorted at once */
  MERGED = 1024,    /* entries that are merged at once */
};

struct block {
  struct block *next;
  size_t used, room;
  _Alignas(struct entry) uint8_t bytes[];
};

static bool fail_memory(struct failure *failure) {
  return fail(failure, ENOMEM, "there is not enough memory for the listing");
}

/* Memory for an entry, which is freed with all others. */
static void *take(struct entries *entries, size_t size) {
  const size_t align = _Alignof(struct entry);
  size = (size + align - 1) / align * align;
  struct block *block = entries->blocks;
  if (block == NULL || block->room - block->used < size) {
    size_t room = size > BLOCK ? size : BLOCK;
    block = try_memory(sizeof *block + room);
    if (block == NULL) return NULL;
    *block = (struct block){.next = entries->blocks, .room = room};
    entries->blocks = block;
  }
  void *taken = block->bytes + block->used;
  block->used += size;
  return taken;
}

static bool has_room(struct entries *entries) {
  if (entries->count < entries->room) return true;
  size_t room = entries->room > 0 ? entries->room * 2 : FIRST_ROOM;
  struct entry **items = realloc(entries->items, room * sizeof(struct entry *));
  if (items == NULL) return false;
  entries->items = items;
  entries->room = room;
  return true;
}

struct entry *entries_add(struct entries *entries, const struct found *found, struct failure *failure) {
  size_t size = strlen(found->path);
  struct entry *entry = has_room(entries) ? take(entries, sizeof *entry + size + 1) : NULL;
  if (entry == NULL) {
    fail_memory(failure);
    return NULL;
  }
  *entry = (struct entry){.kind = (uint8_t)found->kind};
  memcpy(entry->path, found->path, size + 1);
  if (!entries->is_odd && !is_utf8(entry->path, size)) entries->is_odd = true;
  entries->items[entries->count++] = entry;
  return entry;
}

/* Entries of one path, as in a directory that changes while it is read, are sorted by the letters of their kinds. */
static int compare_kinds(const struct entry *one, const struct entry *other) {
  return kind_name(one->kind)[0] - kind_name(other->kind)[0];
}

static int compare(const void *one, const void *other) {
  const struct entry *first = *(struct entry *const *)one, *second = *(struct entry *const *)other;
  int difference = strcmp(first->path, second->path);
  return difference != 0 ? difference : compare_kinds(first, second);
}

/* Compares what begins here with a difference, of which at least one is no character. */
static int compare_characters(const char *one, size_t one_length, const char *other, size_t other_length) {
  bool is_one_odd = one_length == 0 && *one != 0, is_other_odd = other_length == 0 && *other != 0;
  if (is_one_odd != is_other_odd) return is_one_odd ? 1 : -1;
  return strcmp(one, other);
}

static int compare_odd(const void *first, const void *second) {
  const char *one = (*(struct entry *const *)first)->path, *other = (*(struct entry *const *)second)->path;
  size_t one_left = strlen(one), other_left = strlen(other), same = 0, back = 0;
  while (same < one_left && same < other_left && one[same] == other[same]) same++;
  /* A character may have begun before the first byte that differs. */
  while (back < 3 && back < same && ((uint8_t)one[same - back] & 0xc0) == 0x80) back++;
  while (back < 3 && back < same && ((uint8_t)other[same - back] & 0xc0) == 0x80) back++;
  one += same - back, one_left -= same - back;
  other += same - back, other_left -= same - back;
  while (one_left > 0 && other_left > 0) {
    size_t length = utf8_length((const uint8_t *)one, one_left);
    size_t other_length = utf8_length((const uint8_t *)other, other_left);
    size_t step = length > 0 ? length : 1;
    if (length != other_length || memcmp(one, other, step) != 0)
      return compare_characters(one, length, other, other_length);
    one += step, one_left -= step;
    other += step, other_left -= step;
  }
  if (one_left != other_left) return one_left < other_left ? -1 : 1;
  return compare_kinds(*(struct entry *const *)first, *(struct entry *const *)second);
}

static size_t smaller(size_t one, size_t other) { return one < other ? one : other; }

/* Sorts the next run by itself. */
static void sort_run(struct entries *entries) {
  size_t size = smaller(RUN, entries->count - entries->at);
  qsort(entries->items + entries->at, size, sizeof *entries->items, entries->is_odd ? compare_odd : compare);
  entries->at += size;
}

static void begin_merge(struct entries *entries, size_t at) {
  entries->at = entries->left = at;
  entries->right = smaller(at + entries->width, entries->count);
}

/* Merges some more of two runs, from `items` to `spare`. `at` is where the next one goes. */
static void merge_some(struct entries *entries) {
  size_t both = entries->width * 2, start = entries->at / both * both;
  size_t middle = smaller(start + entries->width, entries->count), end = smaller(start + both, entries->count);
  int (*order)(const void *, const void *) = entries->is_odd ? compare_odd : compare;
  for (size_t some = MERGED; some > 0 && entries->at < end; some--) {
    bool is_left = entries->right == end || (entries->left < middle && order(&entries->items[entries->left],
                                                                             &entries->items[entries->right]) <= 0);
    entries->spare[entries->at++] = entries->items[is_left ? entries->left++ : entries->right++];
  }
  if (entries->at == end) begin_merge(entries, end);
}

/* All runs of this width have been merged. */
static void widen(struct entries *entries) {
  struct entry **merged = entries->spare;
  entries->spare = entries->items;
  entries->items = merged;
  entries->width *= 2;
  begin_merge(entries, 0);
}

bool entries_sort(struct entries *entries, bool *failed, struct failure *failure) {
  *failed = false;
  if (entries->width == 0 && entries->at < entries->count) sort_run(entries);
  if (entries->width == 0 && entries->at < entries->count) return false;
  if (entries->width == 0) {
    if (entries->count <= RUN) return true;
    entries->spare = try_memory(entries->count * sizeof *entries->spare);
    if (entries->spare == NULL) return fail_memory(failure), *failed = true, false;
    entries->width = RUN;
    begin_merge(entries, 0);
  }
  if (entries->width >= entries->count) return true;
  if (entries->at < entries->count) merge_some(entries);
  if (entries->at == entries->count) widen(entries);
  return entries->width >= entries->count;
}

void entries_free(struct entries *entries) {
  for (struct block *block = entries->blocks; block != NULL;) {
    struct block *next = block->next;
    free(block);
    block = next;
  }
  free(entries->items);
  free(entries->spare);
  *entries = (struct entries){0};
}
