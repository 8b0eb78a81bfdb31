/* What notices about directories mean for one who watches: changes to be reported, and directories to be watched. */

#include "hidden.h"
#include "watching.h"
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>

enum { MOST_MISSED = 1024 };

static bool is_closed_to_us(const char *name) { return strcmp(name, "node_modules") == 0 || strcmp(name, ".git") == 0; }

static bool is_other_world(const char *place) {
  return strcmp(place, "/proc") == 0 || strcmp(place, "/sys") == 0 || strcmp(place, "/dev") == 0;
}

static char *path_of(const struct watching *watching, const struct directory *directory, const char *name) {
  return watching->only != NULL ? copy_text("") : path_in(directory, name);
}

static void say(struct watching *watching, enum event event, const struct directory *directory, const char *name,
                bool is_directory) {
  if (has_hidden_form(name) || (watching->only != NULL && strcmp(name, watching->only) != 0)) return;
  char *path = path_of(watching, directory, name);
  untold_add(&watching->untold, event, path, is_directory);
  free(path);
}

/* --- Directories that were missed --- */

static void spot_free(struct spot *place) {
  directory_release(place->directory);
  free(place->name);
}

static void miss(struct watching *watching, struct directory *directory, const char *name) {
  if (watching->missed.count >= MOST_MISSED) return;
  if (watching->missed.count == watching->missed.room) {
    watching->missed.room = watching->missed.room == 0 ? 8 : 2 * watching->missed.room;
    watching->missed.items = more_memory(watching->missed.items, watching->missed.room * sizeof(struct spot));
  }
  watching->missed.items[watching->missed.count++] = (struct spot){directory_hold(directory), copy_text(name)};
}

/* Whether it was missed. It is forgotten then. */
static bool take_missed(struct watching *watching, const struct directory *directory, const char *name) {
  for (size_t at = 0; at < watching->missed.count; at++) {
    struct spot *each = &watching->missed.items[at];
    if (each->directory != directory || strcmp(each->name, name) != 0) continue;
    spot_free(each);
    *each = watching->missed.items[--watching->missed.count];
    return true;
  }
  return false;
}

void watching_forget_missed(struct watching *watching) {
  while (watching->missed.count > 0) spot_free(&watching->missed.items[--watching->missed.count]);
  free(watching->missed.items);
  watching->missed.items = NULL;
  watching->missed.room = 0;
}

/* --- Directories --- */

static void skip(struct watching *watching, const struct directory *parent, const char *name) {
  if (watching->told_unwatched) return;
  watching->told_unwatched = true;
  free(watching->unwatched);
  watching->unwatched = path_of(watching, parent, name);
}

/* It could not be watched. */
static void not_entered(struct watching *watching, struct directory *parent, const char *name, bool is_news) {
  if (watching->directories.is_confused) return;
  char *place = place_in(&watching->directories, parent, name);
  struct stat found;
  bool is_there = lstat(place, &found) == 0 && S_ISDIR(found.st_mode);
  free(place);
  if (is_there) return skip(watching, parent, name);
  parent->is_scanned = false; /* it may have moved together with its parent */
  if (is_news) miss(watching, parent, name);
}

/* Watches a directory that has appeared, and everything in it. */
static void enter(struct watching *watching, struct directory *parent, const char *name, bool is_news) {
  if (!watching->is_recursive || !parent->is_watched || has_hidden_form(name) || is_closed_to_us(name)) return;
  char *place = place_in(&watching->directories, parent, name);
  bool is_other = is_other_world(place);
  free(place);
  if (is_other) return;
  struct directory *known = directories_child(&watching->directories, parent, name);
  struct directory *directory = directories_add(&watching->directories, parent, name);
  if (directory == NULL) not_entered(watching, parent, name, is_news);
  else if (directory != known) watching_scan(watching, directory, is_news);
}

void watching_found(struct watching *watching, struct directory *directory, const char *name, bool is_directory) {
  bool is_news = directory->is_news;
  if (is_news) say(watching, EVENT_CREATED, directory, name, is_directory);
  if (is_directory) enter(watching, directory, name, take_missed(watching, directory, name) || is_news);
}

static void find(struct watching *watching, struct directory *directory, const char *name, bool is_directory,
                 enum event event) {
  say(watching, event, directory, name, is_directory);
  if (is_directory) enter(watching, directory, name, true);
}

static void lose(struct watching *watching, struct directory *directory, const char *name, bool is_directory) {
  struct directory *child = NULL;
  if (is_directory && directory->is_watched) child = directories_child(&watching->directories, directory, name);
  if (child != NULL) directories_drop(&watching->directories, child);
  say(watching, EVENT_DELETED, directory, name, is_directory);
}

/* --- Renames --- */

static struct leaving **bucket_of(struct watching *watching, uint32_t cookie) {
  return &watching->leaving.by_cookie[cookie % LEAVING_BUCKETS];
}

static void leaving_add(struct watching *watching, struct directory *directory, const struct notice *notice,
                        bool is_directory) {
  if (watching->leaving.count >= MOST_LEAVING) {
    watching->is_lost = true; /* more than can be told anyway */
    return;
  }
  watching->leaving.count++;
  struct leaving *leaving = memory(sizeof *leaving);
  struct leaving **bucket = bucket_of(watching, notice->cookie);
  *leaving = (struct leaving){
      .spot = {directory_hold(directory), copy_text(notice->name)},
      .is_directory = is_directory,
      .cookie = notice->cookie,
      .turn = watching->turn,
      .previous = watching->leaving.last,
      .next_by_cookie = *bucket,
  };
  if (watching->leaving.last == NULL) watching->leaving.first = leaving;
  else watching->leaving.last->next = leaving;
  watching->leaving.last = *bucket = leaving;
}

/* NULL, or to be freed by leaving_free. */
static struct leaving *leaving_take(struct watching *watching, uint32_t cookie) {
  struct leaving **at = bucket_of(watching, cookie);
  while (*at != NULL && (*at)->cookie != cookie) at = &(*at)->next_by_cookie;
  struct leaving *found = *at;
  if (found == NULL) return NULL;
  *at = found->next_by_cookie;
  watching->leaving.count--;
  if (found->next == NULL) watching->leaving.last = found->previous;
  else found->next->previous = found->previous;
  if (found->previous == NULL) watching->leaving.first = found->next;
  else found->previous->next = found->next;
  return found;
}

static void leaving_free(struct leaving *leaving) {
  spot_free(&leaving->spot);
  free(leaving);
}

void watching_forget_leaving(struct watching *watching) {
  while (watching->leaving.first != NULL) leaving_free(leaving_take(watching, watching->leaving.first->cookie));
}

void watching_settle(struct watching *watching) {
  for (struct leaving *each = watching->leaving.first, *next; each != NULL; each = next) {
    next = each->next;
    if (each->turn == watching->turn) continue;
    leaving_take(watching, each->cookie);
    lose(watching, each->spot.directory, each->spot.name, each->is_directory);
    leaving_free(each);
  }
}

static void move_directory(struct watching *watching, const struct leaving *leaving, struct directory *parent,
                           const char *name) {
  struct directories *directories = &watching->directories;
  const struct spot *from = &leaving->spot;
  bool was_missed = take_missed(watching, from->directory, from->name);
  struct directory *moved = directories_child(directories, from->directory, from->name);
  if (moved == NULL) moved = directories_child(directories, parent, name);
  if (moved == NULL) return enter(watching, parent, name, was_missed);
  if (is_closed_to_us(name)) return directories_drop(directories, moved);
  directories_move(directories, moved, parent, name);
  for (struct directory *each = moved; each != NULL && moved->is_watched; each = directory_after(each, moved))
    if (!each->is_scanned) watching_scan(watching, each, each->is_news);
}

/* The second half of a rename, whose first half was heard of. */
static void rename_from(struct watching *watching, const struct leaving *leaving, struct directory *directory,
                        const char *name, bool is_directory) {
  const struct spot *from = &leaving->spot;
  if (has_hidden_form(from->name))
    return find(watching, directory, name, is_directory, has_replaced(from->name) ? EVENT_CHANGED : EVENT_CREATED);
  if (has_hidden_form(name)) return lose(watching, from->directory, from->name, is_directory);
  char *path_before = path_of(watching, from->directory, from->name);
  char *path = path_of(watching, directory, name);
  untold_rename(&watching->untold, path_before, path, is_directory);
  free(path_before);
  free(path);
  if (is_directory) move_directory(watching, leaving, directory, name);
}

/* As `arrive`, where one name counts. */
static void arrive_only(struct watching *watching, const struct leaving *leaving, struct directory *directory,
                        const char *name, bool is_directory) {
  const char *from = leaving == NULL ? NULL : leaving->spot.name;
  if (from != NULL && strcmp(from, watching->only) == 0) say(watching, EVENT_DELETED, directory, from, is_directory);
  bool is_new = from == NULL || (has_hidden_form(from) && !has_replaced(from));
  say(watching, is_new ? EVENT_CREATED : EVENT_CHANGED, directory, name, is_directory);
}

/* The second half of a rename, or a file from elsewhere. */
static void arrive(struct watching *watching, struct directory *directory, const struct notice *notice,
                   bool is_directory) {
  struct leaving *leaving = leaving_take(watching, notice->cookie);
  if (watching->only != NULL) arrive_only(watching, leaving, directory, notice->name, is_directory);
  else if (leaving == NULL) find(watching, directory, notice->name, is_directory, EVENT_CREATED);
  else rename_from(watching, leaving, directory, notice->name, is_directory);
  if (leaving != NULL) leaving_free(leaving);
}

/* --- Notices --- */

static void hear_of(struct watching *watching, struct directory *directory, const struct notice *notice) {
  uint32_t mask = notice->mask;
  bool is_root = directory->parent == NULL;
  if (mask & IN_IGNORED) directories_drop(&watching->directories, directory);
  if (is_root && (mask & (IN_DELETE_SELF | IN_MOVE_SELF | IN_IGNORED))) return watching_end(watching);
  if (*notice->name == '\0') return;
  bool is_directory = (mask & IN_ISDIR) != 0;
  if (mask & IN_MOVED_FROM) leaving_add(watching, directory, notice, is_directory);
  else if (mask & IN_MOVED_TO) arrive(watching, directory, notice, is_directory);
  else if (mask & IN_DELETE) lose(watching, directory, notice->name, is_directory);
  else if (mask & IN_CREATE) find(watching, directory, notice->name, is_directory, EVENT_CREATED);
  else if (mask & (IN_MODIFY | IN_ATTRIB)) say(watching, EVENT_CHANGED, directory, notice->name, is_directory);
}

void watching_hear(struct watching *watching, const struct notice *notice) {
  if (notice->mask & IN_Q_OVERFLOW) watching->is_lost = true;
  struct directory *directory = directories_get(&watching->directories, notice->watch);
  if (directory == NULL || watching->is_over) return;
  directory_hold(directory);
  hear_of(watching, directory, notice);
  directory_release(directory);
}
