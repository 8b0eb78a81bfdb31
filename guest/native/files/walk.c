/* Walks a tree of any depth and width, with any names, and never follows a symbolic link.
 *
 * Directories are read in the kernel's own form: types come without a `stat`, and a directory with a million entries
 * is never held as a whole. Where a path would become longer than the kernel accepts, a directory stays open and its
 * entries are reached through /proc/self/fd.
 *
 * A directory is read to its end before any directory in it is entered. So there is one stack of directories that are
 * yet to be entered, of which each level has its part, and one path, of which each level knows how much is its own. */

#include "walk.h"
#include "names.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

enum {
  LONGEST = 1000,     /* bytes of a path to which a name (255) can be added */
  RECORDS = 32 << 10, /* bytes of directory records read at once */
  DIRECTORY = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC,
};

/* The layout of what getdents64 gives. */
struct record {
  uint64_t number;
  int64_t offset;
  uint16_t size;
  uint8_t type;
  char name[];
};

struct level {
  int fd;            /* -1: it is reached by its path */
  int base;          /* the open directory from which it is reached, or -1: the root */
  size_t base_size;  /* bytes of `path` that `base` stands for */
  size_t path_size;  /* bytes of `path` that are its own */
  size_t names_from; /* where its directories begin in `names` */
  bool plain;
};

enum step { STEP_OPEN, STEP_READ, STEP_DESCEND, STEP_END };

struct walk {
  char *root;
  bool (*enters)(void *self, const struct found *found);
  void *self;
  bool inside_first;
  enum step step;
  struct level *levels;
  size_t depth, room;
  struct bytes names;  /* of directories to be entered, the last one first, a NUL behind each */
  struct bytes path;   /* of the innermost directory, or longer */
  struct bytes at;     /* the same for file calls */
  size_t at_size;      /* bytes of `at` that are the innermost directory's, with a slash */
  uint8_t *records;    /* NULL until a directory is read */
  size_t next, filled; /* in `records` */
};

const char *kind_name(enum kind kind) {
  static const char *const names[] = {"file", "directory", "symlink", "other"};
  return names[kind];
}

enum kind kind_of_mode(mode_t mode) {
  return S_ISREG(mode) ? KIND_FILE : S_ISDIR(mode) ? KIND_DIRECTORY : S_ISLNK(mode) ? KIND_SYMLINK : KIND_OTHER;
}

struct walk *walk_begin(const char *root, bool (*enters)(void *, const struct found *), void *self) {
  struct walk *walk = memory(sizeof *walk);
  walk->root = copy_text(root);
  walk->enters = enters;
  walk->self = self;
  return walk;
}

struct walk *walk_begin_inside_first(const char *root) {
  struct walk *walk = walk_begin(root, NULL, NULL);
  walk->inside_first = true;
  return walk;
}

void walk_end(struct walk *walk) {
  if (walk == NULL) return;
  for (size_t at = 0; at < walk->depth; at++)
    if (walk->levels[at].fd >= 0) close(walk->levels[at].fd);
  bytes_free(&walk->names);
  bytes_free(&walk->path);
  bytes_free(&walk->at);
  free(walk->levels);
  free(walk->records);
  free(walk->root);
  free(walk);
}

/* Whether the error says that it has gone, or become something else, since its parent was read (ELOOP: a link). */
static bool has_vanished(int error) { return error == ENOENT || error == ENOTDIR || error == ELOOP || error == EACCES; }

static struct level *innermost(struct walk *walk) { return &walk->levels[walk->depth - 1]; }

/* Makes `at` the level's own path for file calls. */
static void locate_level(struct walk *walk, const struct level *level) {
  walk->at.size = 0;
  if (level->base < 0) bytes_text(&walk->at, walk->root);
  else bytes_format(&walk->at, "/proc/self/fd/%d", level->base);
  size_t size = level->path_size - level->base_size;
  if (size == 0) return;
  const uint8_t *below = walk->path.data + level->base_size;
  bool has_slash = below[0] == '/' || (walk->at.size > 0 && walk->at.data[walk->at.size - 1] == '/');
  if (!has_slash) bytes_byte(&walk->at, '/');
  bytes_add(&walk->at, below, size);
}

/* Makes `path` and `at` ready for names in the innermost directory. */
static void prepare_names(struct walk *walk) {
  const struct level *level = innermost(walk);
  locate_level(walk, level);
  if (walk->at.size == 0 || walk->at.data[walk->at.size - 1] != '/') bytes_byte(&walk->at, '/');
  walk->at_size = walk->at.size;
}

/* The name in the innermost directory, in `path` and `at`. */
static void put_name(struct walk *walk, const char *name, struct found *found) {
  const struct level *level = innermost(walk);
  size_t size = strlen(name);
  walk->path.size = level->path_size;
  if (level->path_size > 0) bytes_byte(&walk->path, '/');
  size_t name_at = walk->path.size;
  bytes_add(&walk->path, name, size);
  walk->at.size = walk->at_size;
  bytes_add(&walk->at, name, size);
  found->path = bytes_string(&walk->path);
  found->name = found->path + name_at;
  found->at = bytes_string(&walk->at);
  found->plain = level->plain;
}

/* Opens what `at` and `path` name as the innermost directory. Returns an errno, or 0. */
static int open_level(struct walk *walk) {
  const char *at = bytes_string(&walk->at);
  int fd = open(at, DIRECTORY);
  if (fd < 0) return errno;
  if (walk->depth == walk->room) {
    walk->room = walk->room > 0 ? walk->room * 2 : 8;
    walk->levels = more_memory(walk->levels, walk->room * sizeof *walk->levels);
  }
  const struct level *outer = walk->depth > 0 ? innermost(walk) : NULL;
  struct level level = {.fd = fd, .base = -1, .path_size = walk->path.size, .names_from = walk->names.size};
  bool is_reachable = walk->at.size <= LONGEST;
  if (!is_reachable) level.base = fd, level.base_size = level.path_size;
  else if (outer != NULL) level.base = outer->base, level.base_size = outer->base_size;
  level.plain = is_reachable && (outer == NULL || outer->plain);
  walk->levels[walk->depth++] = level;
  walk->next = walk->filled = 0;
  walk->step = STEP_READ;
  prepare_names(walk);
  return 0;
}

/* Its kind from the record, or from a call where the file system tells none. Returns an errno, or 0. */
static int find_kind(const struct record *record, struct found *found) {
  switch (record->type) {
    case DT_REG: return found->kind = KIND_FILE, 0;
    case DT_DIR: return found->kind = KIND_DIRECTORY, 0;
    case DT_LNK: return found->kind = KIND_SYMLINK, 0;
    case DT_UNKNOWN: break;
    default: return found->kind = KIND_OTHER, 0;
  }
  struct stat stats;
  if (lstat(found->at, &stats) < 0) return errno;
  found->kind = kind_of_mode(stats.st_mode);
  return 0;
}

/* The next record of the innermost directory, or NULL after the last one. */
static const struct record *next_record(struct walk *walk) {
  if (walk->next >= walk->filled) {
    if (walk->records == NULL) walk->records = memory(RECORDS);
    long size = syscall(SYS_getdents64, innermost(walk)->fd, walk->records, RECORDS);
    if (size <= 0) return NULL; /* a directory that cannot be read has nothing in it */
    walk->next = 0;
    walk->filled = (size_t)size;
  }
  const struct record *record = (const struct record *)(void *)(walk->records + walk->next);
  walk->next += record->size;
  return record;
}

/* All of the innermost directory has been read. It is reached by its path from now on, where that is possible. */
static void finish_reading(struct walk *walk) {
  struct level *level = innermost(walk);
  walk->step = STEP_DESCEND;
  if (level->base == level->fd || walk->depth == 1) return;
  close(level->fd);
  level->fd = -1;
}

/* Whether it is entered, and so is on the stack of names. */
static bool will_enter(struct walk *walk, const struct found *found) {
  if (found->kind != KIND_DIRECTORY) return false;
  if (walk->enters != NULL && !walk->enters(walk->self, found)) return false;
  bytes_add(&walk->names, found->name, strlen(found->name) + 1);
  return true;
}

/* WALK_END: there is no more in the innermost directory. */
static enum walked read_level(struct walk *walk, struct found *found, struct failure *failure) {
  for (const struct record *record; (record = next_record(walk)) != NULL;) {
    if (strcmp(record->name, ".") == 0 || strcmp(record->name, "..") == 0) continue;
    put_name(walk, record->name, found);
    int error = find_kind(record, found);
    if (has_vanished(error)) continue;
    if (error != 0) return fail_call(failure, error, "lstat", found->at), WALK_FAILED;
    if (!will_enter(walk, found) || !walk->inside_first) return WALK_FOUND;
  }
  finish_reading(walk);
  return WALK_END;
}

/* Leaves the innermost directory. True when it is to be told of now. */
static bool leave_level(struct walk *walk, struct found *found) {
  struct level left = walk->levels[--walk->depth];
  if (left.fd >= 0) close(left.fd);
  if (walk->depth == 0) {
    walk->step = STEP_END;
    return false;
  }
  if (!walk->inside_first) return false;
  size_t outer = innermost(walk)->path_size;
  const char *name = (const char *)walk->path.data + outer + (outer > 0 ? 1 : 0);
  char *copy = copy_bytes(name, left.path_size - outer - (outer > 0 ? 1 : 0));
  prepare_names(walk);
  put_name(walk, copy, found);
  free(copy);
  found->kind = KIND_DIRECTORY;
  return true;
}

/* Enters the next directory. Returns an errno, or 0, also when it has vanished. */
static int enter_next(struct walk *walk, struct found *found) {
  const char *end = (const char *)walk->names.data + walk->names.size - 1; /* the NUL behind the last name */
  const char *before = memrchr(walk->names.data, 0, walk->names.size - 1);
  const char *name = before != NULL ? before + 1 : (const char *)walk->names.data;
  walk->names.size -= (size_t)(end - name) + 1;
  prepare_names(walk);
  put_name(walk, name, found);
  int error = open_level(walk);
  return has_vanished(error) ? 0 : error;
}

static enum walked open_root(struct walk *walk, struct failure *failure) {
  bytes_text(&walk->at, walk->root);
  int error = open_level(walk);
  if (error == 0) return WALK_FOUND;
  fail_call(failure, error, "open", walk->root);
  return WALK_FAILED;
}

enum walked walk_next(struct walk *walk, struct found *found, struct failure *failure) {
  if (walk->step == STEP_OPEN && open_root(walk, failure) == WALK_FAILED) return WALK_FAILED;
  for (;;) {
    if (walk->step == STEP_END) return WALK_END;
    if (walk->step == STEP_READ) {
      enum walked walked = read_level(walk, found, failure);
      if (walked != WALK_END) return walked;
    } else if (walk->names.size == innermost(walk)->names_from) {
      if (leave_level(walk, found)) return WALK_FOUND;
    } else {
      int error = enter_next(walk, found);
      if (error != 0) return fail_call(failure, error, "open", found->at), WALK_FAILED;
    }
  }
}
