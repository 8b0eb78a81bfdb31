/* Finds the files that a run has created or changed, by the kernel's time stamps.
 *
 * Since Linux 6.13, a file that changes again in the tick in which its time was read gets a fine-grained stamp, and no
 * later change of any file gets an earlier one. On older kernels a mark is as coarse as a tick (4 ms). */

#include "asked.h"
#include "hidden.h"
#include "loop.h"
#include "names.h"
#include "runs.h"
#include "walk.h"
#include "uuid.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEVER INT64_MAX /* no file changes after it */

enum {
  MOST_PATHS = 1000,
  LONGEST_PATH = 4096, /* bytes: no call takes a longer path */
  MOST_VISITED = 20000,
  LONGEST = 150, /* ms of one search */
  AHEAD_TURN = 1 /* ms: a request is on its way */
};

/* --- Marks --- */

/* The descriptor of a file without a name, or -1 when none can be made. */
static int nameless_file(void) {
  static const char *const places[] = {"/dev/shm", "/run", "/tmp"};
  for (size_t at = 0; at < COUNT(places); at++) {
    char *name = new_uuid(), *path = format_text("%s/.buntime-%s", places[at], name);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd >= 0) unlink(path);
    free(path);
    free(name);
    if (fd >= 0) return fd;
  }
  return -1;
}

static bool stamp(int fd, change_mark *mark) {
  static const struct timespec times[2] = {
      {1, 0},
      {1, 0}
  };
  struct stat stats;
  if (futimens(fd, times) != 0 || fstat(fd, &stats) != 0) return false;
  *mark = stats.st_ctim.tv_sec * 1000000000LL + stats.st_ctim.tv_nsec;
  return true;
}

change_mark mark_now(void) {
  static int clock = -2;
  change_mark mark;
  if (clock == -2) clock = nameless_file();
  /* The first stamp is the tick's. Reading it makes the second one exact. */
  if (clock >= 0 && stamp(clock, &mark) && stamp(clock, &mark)) return mark;
  return (wall_time() - 10) * 1000000;
}

/* --- The search --- */

struct search {
  struct later later;
  struct walk *walk;
  struct pace pace;
  change_mark mark;
  double deadline;
  char **paths; /* as text */
  size_t count;
  int visited;
  bool is_truncated;
  void (*then)(void *self, struct bytes *members);
  void *self;
};

/* The next unit of UTF-16 in proper UTF-8; the low half of a pair counts as the high one, which differs enough. */
static unsigned unit_at(const unsigned char **at) {
  const unsigned char *text = *at;
  size_t size = *text < 0x80 ? 1 : *text < 0xe0 ? 2 : *text < 0xf0 ? 3 : 4;
  unsigned code = size == 1 ? *text : *text & (0xffu >> (size + 1));
  for (size_t next = 1; next < size; next++) code = code << 6 | (text[next] & 0x3f);
  *at += size;
  return code;
}

/* Orders characters as JavaScript does, by units of UTF-16: those beyond U+FFFF come before U+E000. */
static unsigned place_of(unsigned code) { return code > 0xffff ? 0xd800 + (code >> 10) : code; }

static int in_order(const void *one, const void *other) {
  const unsigned char *left = *(unsigned char *const *)one, *right = *(unsigned char *const *)other;
  while (*left != '\0' && *left == *right) left++, right++;
  while ((*left & 0xc0) == 0x80) left--, right--; /* back to the start of the character */
  if (*left == '\0' || *right == '\0') return (int)(*left != '\0') - (int)(*right != '\0');
  unsigned first = unit_at(&left), second = unit_at(&right);
  if (place_of(first) != place_of(second)) return place_of(first) < place_of(second) ? -1 : 1;
  return first < second ? -1 : first > second;
}

static void finish(struct search *search) {
  struct bytes members = {0};
  if (search->count > 0) qsort(search->paths, search->count, sizeof *search->paths, in_order);
  bytes_text(&members, "\"filesWritten\":[");
  for (size_t at = 0; at < search->count; at++) {
    if (at > 0) bytes_byte(&members, ',');
    json_put_text(&members, search->paths[at]);
    free(search->paths[at]);
  }
  bytes_format(&members, "],\"filesWrittenTruncated\":%s", search->is_truncated ? "true" : "false");
  walk_end(search->walk);
  search->then(search->self, &members);
  bytes_free(&members);
  free(search->paths);
  free(search);
}

static bool enters(void *self, const struct found *found) {
  return strcmp(found->name, "node_modules") != 0 && strcmp(found->name, ".git") != 0;
}

enum since { SINCE, BEFORE, UNKNOWN };

/* BEFORE also for what is gone, or cannot be reached. */
static enum since is_since(change_mark mark, const char *at) {
  struct stat stats;
  if (lstat(at, &stats) != 0)
    return errno == ENOENT || errno == ENOTDIR || errno == ENAMETOOLONG || errno == EACCES ? BEFORE : UNKNOWN;
  return stats.st_ctim.tv_sec * 1000000000LL + stats.st_ctim.tv_nsec >= mark ? SINCE : BEFORE;
}

static bool is_known(const struct search *search, const char *path) {
  for (size_t at = 0; at < search->count; at++)
    if (strcmp(search->paths[at], path) == 0) return true;
  return false;
}

/* False when there is no room for it. */
static bool keep(struct search *search, const char *found) {
  struct bytes path = {0};
  bytes_utf8(&path, found, strlen(found));
  bytes_string(&path);
  /* Only names that are not UTF-8 can look like others, and like those that have U+FFFD themselves. */
  bool is_new = memmem(path.data, path.size, "\xef\xbf\xbd", 3) == NULL || !is_known(search, (char *)path.data);
  bool has_room = search->count < MOST_PATHS && path.size <= LONGEST_PATH;
  if (!is_new || !has_room) {
    bytes_free(&path);
    return !is_new || has_room;
  }
  if (search->count % 32 == 0) search->paths = more_memory(search->paths, (search->count + 32) * sizeof *search->paths);
  search->paths[search->count++] = (char *)path.data;
  return true;
}

/* Whether to go on. */
static bool look_at(struct search *search, const struct found *found) {
  bool is_over = ++search->visited > MOST_VISITED || now() > search->deadline;
  if (!is_over && found->kind != KIND_FILE && found->kind != KIND_SYMLINK) return true;
  if (!is_over && is_hidden(found->name)) return true;
  enum since since = is_over ? UNKNOWN : is_since(search->mark, found->at);
  if (since == BEFORE || (since == SINCE && keep(search, found->path))) return true;
  search->is_truncated = true;
  return false;
}

static void work(struct later *later) {
  struct search *search = MEMBER(later, struct search, later);
  pace_rested(&search->pace);
  for (;;) {
    struct found found;
    struct failure failure;
    enum walked walked = walk_next(search->walk, &found, &failure);
    if (walked == WALK_FAILED) {
      /* without a workspace there is nothing in it */
      search->is_truncated |= failure.error != ENOENT;
      failure_free(&failure);
    }
    if (walked != WALK_FOUND || !look_at(search, &found)) return finish(search);
    if (pace_is_due(&search->pace)) return later_begin(&search->later, work);
  }
}

static void search_begin(change_mark mark, double turn, void (*then)(void *, struct bytes *), void *self) {
  struct search *search = memory(sizeof *search);
  char *root = format_text("%s/.", settings.workspace);
  search->walk = walk_begin(root, enters, NULL);
  free(root);
  search->mark = mark;
  search->deadline = now() + LONGEST;
  search->then = then;
  search->self = self;
  pace_begin(&search->pace, turn);
  work(&search->later);
}

void written_since(change_mark mark, void (*then)(void *self, struct bytes *members), void *self) {
  search_begin(mark, 0, then, self);
}

static void nothing_more(void *self, struct bytes *members) {}

void look_ahead(void) {
  static dev_t root; /* of the root in which it looked last */
  static bool has_looked;
  struct stat stats;
  mark_now(); /* makes its file before a session's code can be in the way */
  if (lstat("/", &stats) != 0 || (has_looked && stats.st_dev == root)) return;
  has_looked = true;
  root = stats.st_dev;
  search_begin(NEVER, AHEAD_TURN, nothing_more, NULL);
}
