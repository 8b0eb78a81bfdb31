/* The watched directories as a tree, found by the number of their watch, and by their parent and name. */

#include "directories.h"
#include <stdlib.h>
#include <string.h>

enum {
  MOST = 8192, /* of one watcher */
  FEWEST_BUCKETS = 16,
};

/* --- Paths --- */

char *joined(const char *path, const char *rest) {
  if (*rest == '\0') return copy_text(path);
  size_t size = strlen(path);
  return format_text("%s%s%s", path, size > 0 && path[size - 1] == '/' ? "" : "/", rest);
}

/* Puts the name, and a slash if something follows, in front of what begins at `at`. Returns where it begins. */
static size_t put_before(char *path, size_t at, size_t end, const char *name) {
  size_t size = strlen(name);
  if (at < end) path[--at] = '/';
  memcpy(path + at - size, name, size);
  return at - size;
}

char *path_in(const struct directory *directory, const char *name) {
  size_t end = strlen(name);
  for (const struct directory *each = directory; each->parent != NULL; each = each->parent)
    end += strlen(each->name) + 1;
  char *path = memory(end + 1);
  size_t at = end;
  if (*name != '\0') at = put_before(path, at, end, name);
  for (const struct directory *each = directory; each->parent != NULL; each = each->parent)
    at = put_before(path, at, end, each->name);
  memmove(path, path + at, end - at + 1);
  return path;
}

char *place_in(const struct directories *directories, const struct directory *directory, const char *name) {
  char *path = path_in(directory, name);
  char *place = joined(directories->at, path);
  free(path);
  return place;
}

/* --- Hash tables --- */

static struct directory **bucket_of_watch(const struct directories *directories, int watch) {
  return &directories->by_watch[(unsigned)watch & (directories->buckets - 1)];
}

static struct directory **bucket_of_name(const struct directories *directories, const struct directory *parent,
                                         const char *name) {
  uint64_t hash = 14695981039346656037u ^ (uintptr_t)parent;
  for (; *name != '\0'; name++) hash = (hash ^ (uint8_t)*name) * 1099511628211u;
  return &directories->by_name[(hash ^ hash >> 32) & (directories->buckets - 1)];
}

static void put_by_watch(struct directories *directories, struct directory *directory) {
  struct directory **bucket = bucket_of_watch(directories, directory->watch);
  directory->next_by_watch = *bucket;
  *bucket = directory;
}

static void put_by_name(struct directories *directories, struct directory *directory) {
  struct directory **bucket = bucket_of_name(directories, directory->parent, directory->name);
  directory->next_by_name = *bucket;
  *bucket = directory;
}

static void take_by_watch(struct directories *directories, struct directory *directory) {
  struct directory **at = bucket_of_watch(directories, directory->watch);
  while (*at != NULL && *at != directory) at = &(*at)->next_by_watch;
  if (*at != NULL) *at = directory->next_by_watch;
}

static void take_by_name(struct directories *directories, struct directory *directory) {
  struct directory **at = bucket_of_name(directories, directory->parent, directory->name);
  while (*at != NULL && *at != directory) at = &(*at)->next_by_name;
  if (*at != NULL) *at = directory->next_by_name;
}

static void grow(struct directories *directories) {
  if (directories->count < directories->buckets) return;
  free(directories->by_watch);
  free(directories->by_name);
  directories->buckets = directories->buckets == 0 ? FEWEST_BUCKETS : 2 * directories->buckets;
  directories->by_watch = memory(directories->buckets * sizeof *directories->by_watch);
  directories->by_name = memory(directories->buckets * sizeof *directories->by_name);
  struct directory *root = directories->root;
  for (struct directory *each = root; each != NULL; each = directory_after(each, root)) {
    put_by_watch(directories, each);
    if (each != root) put_by_name(directories, each);
  }
}

struct directory *directories_get(const struct directories *directories, int watch) {
  if (directories->buckets == 0) return NULL;
  struct directory *at = *bucket_of_watch(directories, watch);
  while (at != NULL && at->watch != watch) at = at->next_by_watch;
  return at;
}

struct directory *directories_child(const struct directories *directories, const struct directory *parent,
                                    const char *name) {
  struct directory *at = *bucket_of_name(directories, parent, name);
  while (at != NULL && (at->parent != parent || strcmp(at->name, name) != 0)) at = at->next_by_name;
  return at;
}

/* --- The tree --- */

struct directory *directory_hold(struct directory *directory) {
  directory->references++;
  return directory;
}

void directory_release(struct directory *directory) {
  while (directory != NULL && --directory->references == 0) {
    struct directory *parent = directory->parent;
    free(directory->name);
    free(directory);
    directory = parent;
  }
}

struct directory *directory_after(const struct directory *at, const struct directory *top) {
  if (at->first != NULL) return at->first;
  while (at != top && at->next == NULL) at = at->parent;
  return at == top ? NULL : at->next;
}

/* Takes it from its parent's children. It keeps its parent, for its path. */
static void detach(struct directories *directories, struct directory *directory) {
  if (directory->parent == NULL) return;
  take_by_name(directories, directory);
  if (directory->next != NULL) directory->next->previous = directory->previous;
  if (directory->previous != NULL) directory->previous->next = directory->next;
  else directory->parent->first = directory->next;
  directory->next = directory->previous = NULL;
}

/* Gives it a parent and a name, which may be its present ones. */
static void attach(struct directories *directories, struct directory *directory, struct directory *parent,
                   const char *name) {
  struct directory *before = directory->parent;
  char *name_before = directory->name;
  directory->parent = parent == NULL ? NULL : directory_hold(parent);
  directory->name = copy_text(name);
  directory_release(before);
  free(name_before);
  if (parent == NULL) return;
  directory->next = parent->first;
  if (parent->first != NULL) parent->first->previous = directory;
  parent->first = directory;
  put_by_name(directories, directory);
}

static bool is_within(const struct directory *directory, const struct directory *top) {
  while (directory != NULL && directory != top) directory = directory->parent;
  return directory != NULL;
}

static void move(struct directories *directories, struct directory *directory, struct directory *parent,
                 const char *name) {
  detach(directories, directory);
  attach(directories, directory, parent, name);
}

static struct directory *new_directory(struct directories *directories, int watch, struct directory *parent,
                                       const char *name) {
  grow(directories);
  struct directory *directory = memory(sizeof *directory);
  directory->watch = watch;
  directory->references = 1;
  directory->is_watched = true;
  attach(directories, directory, parent, name);
  put_by_watch(directories, directory);
  directories->count++;
  return directory;
}

struct directory *directories_add(struct directories *directories, struct directory *parent, const char *name) {
  struct directory *there = directories_child(directories, parent, name);
  char *place = place_in(directories, parent, name);
  int watch = directories->count < MOST ? inotify_add(directories->inotify, place) : -1;
  free(place);
  struct directory *known = watch < 0 ? NULL : directories_get(directories, watch);
  if (known != NULL && is_within(parent, known)) {
    directories->is_confused = true;
    return NULL;
  }
  /* It was moved, and the notice has yet to arrive. It may have been in the one that is dropped. */
  if (known != NULL && known != there) move(directories, known, parent, name);
  if (there != NULL && there != known) directories_drop(directories, there); /* gone, or another one took its place */
  if (watch < 0 || known != NULL) return known;
  return new_directory(directories, watch, parent, name);
}

void directories_move(struct directories *directories, struct directory *directory, struct directory *parent,
                      const char *name) {
  if (is_within(parent, directory)) {
    directories->is_confused = true;
    return;
  }
  struct directory *there = directories_child(directories, parent, name);
  if (there == directory) return;
  move(directories, directory, parent, name); /* first: it may be in the one that is dropped */
  if (there != NULL) directories_drop(directories, there);
}

/* The innermost directory that is reached from `top` by first children. */
static struct directory *innermost(struct directory *top) {
  while (top->first != NULL) top = top->first;
  return top;
}

void directories_drop(struct directories *directories, struct directory *directory) {
  for (bool is_last = false; !is_last;) {
    struct directory *each = innermost(directory);
    is_last = each == directory;
    detach(directories, each);
    take_by_watch(directories, each);
    inotify_remove(directories->inotify, each->watch);
    each->is_watched = false;
    if (each == directories->root) directories->root = NULL;
    directories->count--;
    directory_release(each);
  }
}

bool directories_begin(struct directories *directories, const char *at, struct inotify *inotify) {
  *directories = (struct directories){.at = at, .inotify = inotify};
  int watch = inotify_add(inotify, at);
  if (watch >= 0) directories->root = new_directory(directories, watch, NULL, "");
  return watch >= 0;
}

void directories_end(struct directories *directories) {
  if (directories->root != NULL) directories_drop(directories, directories->root);
  free(directories->by_watch);
  free(directories->by_name);
  *directories = (struct directories){0};
}
