/* Changes that have yet to be reported. */

#include "untold.h"
#include <stdlib.h>
#include <string.h>

enum {
  MOST = 5000,          /* changes that wait … */
  MOST_BYTES = 1 << 20, /* … and bytes of their paths */
  FEWEST_BUCKETS = 64,
};

void news_free(struct news *news) {
  free(news->path);
  free(news->from);
  free(news);
}

static size_t size_of(const struct news *news) {
  return strlen(news->path) + (news->from == NULL ? 0 : strlen(news->from));
}

/* --- The last change of each path --- */

static struct news **bucket_of(const struct untold *untold, const char *path) {
  uint64_t hash = 14695981039346656037u;
  for (; *path != '\0'; path++) hash = (hash ^ (uint8_t)*path) * 1099511628211u;
  return &untold->by_path[(hash ^ hash >> 32) & (untold->buckets - 1)];
}

/* Where the last change of the path is, if it is not older than the last rename; NULL when there is none. */
static struct news **find(const struct untold *untold, const char *path) {
  if (untold->buckets == 0) return NULL;
  for (struct news **at = bucket_of(untold, path); *at != NULL; at = &(*at)->next_by_path)
    if ((*at)->age == untold->age && strcmp((*at)->path, path) == 0) return at;
  return NULL;
}

static void put(struct untold *untold, struct news *news) {
  struct news **bucket = bucket_of(untold, news->path);
  news->next_by_path = *bucket;
  *bucket = news;
}

/* Those from before the last rename are not found any more, and so are left out. */
static void grow(struct untold *untold) {
  if (untold->count < untold->buckets) return;
  struct untold larger = {.buckets = untold->buckets == 0 ? FEWEST_BUCKETS : 2 * untold->buckets};
  larger.by_path = memory(larger.buckets * sizeof *larger.by_path);
  for (size_t at = 0; at < untold->buckets; at++)
    for (struct news *each = untold->by_path[at], *next; each != NULL; each = next) {
      next = each->next_by_path;
      if (each->age == untold->age) put(&larger, each);
    }
  free(untold->by_path);
  untold->by_path = larger.by_path;
  untold->buckets = larger.buckets;
}

static void forget_paths(struct untold *untold) {
  free(untold->by_path);
  untold->by_path = NULL;
  untold->buckets = 0;
}

/* --- Changes --- */

struct news *untold_take(struct untold *untold) {
  struct news *first = untold->first;
  forget_paths(untold);
  untold->first = untold->last = NULL;
  untold->count = untold->bytes = 0;
  untold->overflown = false;
  return first;
}

void untold_overflow(struct untold *untold) {
  for (struct news *each = untold_take(untold), *next; each != NULL; each = next) {
    next = each->next;
    news_free(each);
  }
  untold->overflown = true;
}

static void push(struct untold *untold, struct news added) {
  if (untold->overflown) return; /* the reader has to look at everything anyway */
  untold->bytes += size_of(&added);
  if (untold->count >= MOST || untold->bytes > MOST_BYTES) return untold_overflow(untold);
  struct news *news = memory(sizeof *news);
  *news = added;
  news->path = copy_text(added.path);
  news->from = added.from == NULL ? NULL : copy_text(added.from);
  news->age = untold->age;
  news->previous = untold->last;
  if (untold->last == NULL) untold->first = news;
  else untold->last->next = news;
  untold->last = news;
  struct news **before = find(untold, news->path);
  if (before != NULL) *before = (*before)->next_by_path;
  grow(untold);
  untold->count++;
  put(untold, news);
}

static void drop(struct untold *untold, struct news **found) {
  struct news *news = *found;
  *found = news->next_by_path;
  if (news->next == NULL) untold->last = news->previous;
  else news->next->previous = news->previous;
  if (news->previous == NULL) untold->first = news->next;
  else news->previous->next = news->next;
  untold->count--;
  untold->bytes -= size_of(news);
  news_free(news);
}

void untold_add(struct untold *untold, enum event event, const char *path, bool is_directory) {
  struct news **found = find(untold, path);
  if (found != NULL) {
    enum event before = (*found)->event;
    bool is_there = before == EVENT_CREATED || before == EVENT_CHANGED;
    if (event == before || (event != EVENT_DELETED && is_there)) return;
    if (event == EVENT_DELETED) drop(untold, found);
    if (event == EVENT_DELETED && before == EVENT_CREATED) return; /* the reader has not heard of it yet */
  }
  push(untold, (struct news){.event = event, .path = (char *)path, .is_directory = is_directory});
}

void untold_rename(struct untold *untold, const char *from, const char *path, bool is_directory) {
  push(untold,
       (struct news){.event = EVENT_RENAMED, .path = (char *)path, .from = (char *)from, .is_directory = is_directory});
  untold->age++;
}
