/* The watched directories as a tree: a directory that is moved takes its subtree along. */

#pragma once

#include "inotify.h"

struct directory {
  int watch;
  char *name;
  struct directory *parent;                  /* NULL: the root */
  struct directory *first, *next, *previous; /* the first child; siblings */
  struct directory *next_by_watch, *next_by_name;
  unsigned references; /* the tree's, its children's, and others' */
  bool is_watched;     /* false after it was dropped: it then only has a path */
  bool is_scanned;     /* everything in it is known to be watched */
  bool is_news;        /* what a scan finds in it is a change */
};

struct directories {
  const char *at; /* absolute path of the root */
  struct inotify *inotify;
  struct directory *root;
  struct directory **by_watch, **by_name; /* hash tables */
  size_t buckets, count;
  /* The tree contradicts what is on disk: a directory would be inside itself. Changes came faster than their notices
   * were understood, and the watcher has to start over. */
  bool is_confused;
};

/* False when the root cannot be watched. `at` and `inotify` must live as long. */
bool directories_begin(struct directories *directories, const char *at, struct inotify *inotify);
void directories_end(struct directories *directories);

/* Whoever keeps a directory holds it: the notices about it may have it dropped. */
struct directory *directory_hold(struct directory *directory);
void directory_release(struct directory *directory);

struct directory *directories_get(const struct directories *directories, int watch);
struct directory *directories_child(const struct directories *directories, const struct directory *parent,
                                    const char *name);
/* Watches a directory in another one. NULL when that is not possible. */
struct directory *directories_add(struct directories *directories, struct directory *parent, const char *name);
void directories_move(struct directories *directories, struct directory *directory, struct directory *parent,
                      const char *name);
/* Stops watching the directory and everything below it. */
void directories_drop(struct directories *directories, struct directory *directory);
/* The one after `at` in a walk of `top` and everything below it, or NULL. */
struct directory *directory_after(const struct directory *at, const struct directory *top);

/* The path of what has this name in the directory ("": the directory itself) relative to the root, and for file calls.
 * To be freed. */
char *path_in(const struct directory *directory, const char *name);
char *place_in(const struct directories *directories, const struct directory *directory, const char *name);
/* `rest` below `path`; the same path when it is "". To be freed. */
char *joined(const char *path, const char *rest);
