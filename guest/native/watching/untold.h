/* Changes that have yet to be reported. Their number is bounded, and several changes of one path become one. */

#pragma once

#include "bytes.h"

enum event { EVENT_CREATED, EVENT_CHANGED, EVENT_DELETED, EVENT_RENAMED };

struct news {
  enum event event;
  bool is_directory;
  char *path; /* relative to the watched root; "" for the root itself */
  char *from; /* of a rename, or NULL */
  struct news *next, *previous;
  struct news *next_by_path; /* among the last changes of their paths */
  unsigned age;
};

struct untold {
  struct news *first, *last;
  /* The last change of each path since the last rename, in a hash table: no change may move across a rename. */
  struct news **by_path;
  size_t buckets, count, bytes;
  unsigned age;   /* the number of renames */
  bool overflown; /* more happened than could be kept: the reader has to look at everything */
};

void untold_add(struct untold *untold, enum event event, const char *path, bool is_directory);
void untold_rename(struct untold *untold, const char *from, const char *path, bool is_directory);
void untold_overflow(struct untold *untold);
/* All changes, in order, each to be freed by news_free. Then there are none, and `overflown` is false. */
struct news *untold_take(struct untold *untold);
void news_free(struct news *news);
