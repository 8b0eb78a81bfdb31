/* Lists directories.
 *
 * Only one listing runs at a time, because a large one holds tens of megabytes for a moment. Each goes in turns: it
 * collects the entries, sorts them, and makes the page. */

#include "list.h"
#include "entries.h"
#include "hidden.h"
#include "loop.h"
#include "names.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  MOST_ENTRIES = 200000,
  MOST_CHARACTERS = 32 << 20, /* of all paths together: a deep tree has few entries but long paths */
};

enum stage { COLLECTING, SORTING, MAKING };

/* A listing, which waits for earlier ones. It frees itself when it has answered. */
struct listing {
  struct later later;
  struct listing *next;
  struct asked *asked;
  char *path, *prefix;
  bool recursive;
  int64_t limit, offset;
  enum stage stage;
  struct pace pace;
  struct walk *walk;
  struct entries entries;
  int64_t characters;
  size_t at; /* the next entry of the page */
  struct bytes page;
};

static struct {
  struct listing *first, *last; /* the first one runs */
} listings;

static void work(struct later *later);

static bool enters(void *self, const struct found *found) { return ((struct listing *)self)->recursive; }

/* Units of UTF-16. A byte that belongs to no character counts as one. */
static int64_t characters_in(const char *path) {
  int64_t count = 0;
  for (size_t at = 0, size = strlen(path); at < size;) {
    size_t length = utf8_length((const uint8_t *)path + at, size - at);
    count += length == 4 ? 2 : 1;
    at += length > 0 ? length : 1;
  }
  return count;
}

/* What it is now. False when that cannot be found out. */
static bool tell(struct entry *entry, const char *at, struct failure *failure) {
  struct stat stats;
  if (lstat(at, &stats) == 0) {
    entry->size = stats.st_size;
    entry->modified = stats.st_mtim.tv_sec;
    return true;
  }
  entry->is_gone = true;
  if (errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG || errno == EACCES) return true;
  return fail_call(failure, errno, "lstat", at);
}

static bool collect(struct listing *listing, const struct found *found, struct failure *failure) {
  if (is_hidden(found->name)) return true;
  listing->characters += characters_in(found->path);
  if (listing->entries.count >= MOST_ENTRIES || listing->characters > MOST_CHARACTERS) {
    fail(failure, EFBIG, "more entries than can be listed");
    failure->path = copy_text(listing->path);
    return false;
  }
  struct entry *entry = entries_add(&listing->entries, found, failure);
  if (entry == NULL) return false;
  entry->is_told = !found->plain;
  return found->plain || tell(entry, found->at, failure);
}

static bool collect_next(struct listing *listing, struct failure *failure) {
  struct found found;
  enum walked walked = walk_next(listing->walk, &found, failure);
  if (walked == WALK_FOUND) return collect(listing, &found, failure);
  if (walked == WALK_FAILED) return false;
  walk_end(listing->walk);
  listing->walk = NULL;
  listing->stage = SORTING;
  return true;
}

static void begin_page(struct listing *listing) {
  size_t count = listing->entries.count;
  listing->stage = MAKING;
  listing->at = listing->offset < (int64_t)count ? (size_t)listing->offset : count;
  if (listing->limit > (int64_t)(count - listing->at)) listing->limit = (int64_t)(count - listing->at);
  bytes_text(&listing->page, "{\"files\":[");
}

static bool sort_some(struct listing *listing, struct failure *failure) {
  bool failed;
  if (entries_sort(&listing->entries, &failed, failure)) begin_page(listing);
  return !failed;
}

static void put_entry(struct listing *listing, const struct entry *entry) {
  struct bytes *page = &listing->page;
  struct bytes whole = {0};
  bytes_text(&whole, listing->prefix);
  bytes_text(&whole, entry->path);
  if (page->data[page->size - 1] == '}') bytes_byte(page, ',');
  bytes_text(page, "{\"path\":");
  json_put_string(page, whole.data, whole.size);
  bytes_text(page, ",\"size\":");
  json_put_number(page, (double)entry->size);
  bytes_text(page, ",\"modified\":");
  json_put_number(page, (double)entry->modified);
  bytes_format(page, ",\"type\":\"%s\"", kind_name(entry->kind));
  if (!is_utf8(whole.data, whole.size)) {
    bytes_text(page, ",\"raw\":\"");
    bytes_base64(page, whole.data, whole.size);
    bytes_byte(page, '"');
  }
  bytes_byte(page, '}');
  bytes_free(&whole);
}

static bool make_next(struct listing *listing, struct failure *failure) {
  struct entry *entry = listing->entries.items[listing->at++];
  listing->limit--;
  if (!entry->is_told) {
    char *at = inside(listing->path, entry->path);
    bool is_told = tell(entry, at, failure);
    free(at);
    if (!is_told) return false;
  }
  if (!entry->is_gone) put_entry(listing, entry);
  return true;
}

/* Answers, and begins the next listing in a later turn. */
static void finish(struct listing *listing, struct failure *failure) {
  if (failure != NULL) {
    bytes_free(&listing->page);
    answer_failure(listing->asked, failure);
  } else {
    bytes_format(&listing->page, "],\"total\":%zu}", listing->entries.count);
    answer_json(listing->asked, &listing->page);
  }
  walk_end(listing->walk);
  entries_free(&listing->entries);
  free(listing->path);
  free(listing->prefix);
  listings.first = listing->next;
  if (listings.first == NULL) listings.last = NULL;
  else later_begin(&listings.first->later, work);
  free(listing);
}

static bool work_step(struct listing *listing, struct failure *failure) {
  switch (listing->stage) {
    case COLLECTING: return collect_next(listing, failure);
    case SORTING: return sort_some(listing, failure);
    default: return make_next(listing, failure);
  }
}

static void work(struct later *later) {
  struct listing *listing = MEMBER(later, struct listing, later);
  struct failure failure;
  pace_rested(&listing->pace);
  if (listing->walk == NULL && listing->stage == COLLECTING) {
    char *root = inside(listing->path, "."); /* a link is followed at the path itself */
    listing->walk = walk_begin(root, enters, listing);
    free(root);
  }
  while (listing->stage != MAKING || listing->limit > 0) {
    if (!work_step(listing, &failure)) return finish(listing, &failure);
    if (pace_is_due(&listing->pace)) return later_begin(&listing->later, work);
  }
  finish(listing, NULL);
}

/* The prefix of entries' paths, as clients see them. */
static char *prefix_of(const char *path) {
  size_t size = strlen(settings.workspace);
  if (strcmp(path, settings.workspace) == 0) return copy_text("");
  bool is_below = starts_with(path, settings.workspace) && path[size] == '/';
  return inside(is_below ? path + size + 1 : path, "");
}

void list_directory(struct asked *asked, const char *path, bool recursive, int64_t limit, int64_t offset) {
  struct listing *listing = memory(sizeof *listing);
  listing->asked = asked;
  listing->path = copy_text(path);
  listing->prefix = prefix_of(path);
  listing->recursive = recursive;
  listing->limit = limit;
  listing->offset = offset;
  pace_begin(&listing->pace, 0);
  if (listings.last != NULL) {
    listings.last->next = listing;
    listings.last = listing;
    return;
  }
  listings.first = listings.last = listing;
  work(&listing->later);
}
