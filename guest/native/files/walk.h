/* Walks directories without following links, holding no more than one directory open for each level that it needs, and
 * in pieces, so that other work gets its turns. */

#pragma once

#include "bytes.h"
#include "failure.h"
#include <sys/stat.h>

enum kind { KIND_FILE, KIND_DIRECTORY, KIND_SYMLINK, KIND_OTHER };
const char *kind_name(enum kind kind); /* "file", "directory", "symlink", "other" */
enum kind kind_of_mode(mode_t mode);

struct found {
  const char *path; /* relative to the root of the walk */
  const char *name;
  enum kind kind;
  const char *at; /* for file calls */
  bool plain;     /* whether `at` is simply the root, a slash and `path`, so that it can be used later */
};

struct walk;
enum walked { WALK_FOUND, WALK_END, WALK_FAILED };
/* `enters`: whether to go into this directory; NULL: into all. `root` is copied. */
struct walk *walk_begin(const char *root, bool (*enters)(void *self, const struct found *found), void *self);
/* The same, into all directories, which come after what is in them. */
struct walk *walk_begin_inside_first(const char *root);
/* The next one, valid until the next call. WALK_FAILED: why the root cannot be opened, as an errno in failure->error.
 */
enum walked walk_next(struct walk *walk, struct found *found, struct failure *failure);
void walk_end(struct walk *walk);

/* Whether the walk has used its turn: then return to the loop (struct later), and call pace_rested. */
struct pace {
  double since;
  double turn;
};
void pace_begin(struct pace *pace, double turn); /* ms; 0: 5 */
bool pace_is_due(const struct pace *pace);
void pace_rested(struct pace *pace);
