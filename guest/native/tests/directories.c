/* The tree of watched directories: it follows moves, forgets what is dropped, and is never inside itself. */

#include "directories.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failures;

static void check(bool holds, const char *what) {
  if (!holds) failures += printf("directories: %s\n", what) > 0;
}

static void never(struct inotify *inotify) { (void)inotify; }

static size_t count(const struct directories *directories) {
  size_t found = 0;
  for (struct directory *each = directories->root; each != NULL; each = directory_after(each, directories->root)) {
    found++;
    check(directories_get(directories, each->watch) == each, "one is not found by its watch");
    if (each->parent != NULL)
      check(directories_child(directories, each->parent, each->name) == each, "one is not found by its name");
  }
  return found;
}

static void check_path(const struct directory *directory, const char *expected) {
  char *path = path_in(directory, "");
  check(strcmp(path, expected) == 0, expected);
  free(path);
}

/* What the tree says is moved before its notice arrives. */
static void check_confusion(struct directories *directories) {
  mkdir("A", 0700);
  mkdir("A/X", 0700);
  struct directory *a = directories_add(directories, directories->root, "A");
  struct directory *x = directories_add(directories, a, "X");
  rename("A", "tmp");
  mkdir("A", 0700);
  mkdir("A/X", 0700);
  rename("tmp", "A/X/A");
  check(directories_add(directories, x, "A") == NULL && directories->is_confused, "a directory is inside itself");
  directories->is_confused = false;
  directories_move(directories, a, x, "A");
  check(directories->is_confused && a->parent == directories->root, "a directory was moved into itself");
  check(count(directories) == directories->count, "the count is wrong after confusion");
}

static void check_many(struct directories *directories) {
  struct directory *held[300] = {NULL};
  char name[32];
  mkdir("many", 0700);
  struct directory *many = directories_add(directories, directories->root, "many");
  for (int number = 0; number < 300; number++) {
    snprintf(name, sizeof name, "many/%d", number);
    mkdir(name, 0700);
    held[number] = directory_hold(directories_add(directories, many, name + 5));
  }
  check(count(directories) == directories->count, "the count is wrong with many");
  directories_move(directories, held[7], held[8], "seven");
  check_path(held[7], "many/8/seven");
  directories_move(directories, many, held[7], "loop");
  check(directories->is_confused, "a directory was moved below itself");
  directories->is_confused = false;
  directories_drop(directories, many);
  check(count(directories) == directories->count, "the count is wrong after a drop");
  for (int number = 0; number < 300; number++) check(!held[number]->is_watched, "one is watched after a drop");
  check_path(held[7], "many/8/seven");
  for (int number = 0; number < 300; number++) directory_release(held[number]);
}

/* The kernel tells of a directory under its new name before the notice of the move. */
static void check_early(struct directories *directories) {
  mkdir("one", 0700);
  mkdir("one/inner", 0700);
  mkdir("two", 0700);
  struct directory *one = directories_add(directories, directories->root, "one");
  struct directory *inner = directories_add(directories, one, "inner");
  struct directory *two = directories_add(directories, directories->root, "two");
  rename("one/inner", "inner");
  rename("two", "gone");
  rename("inner", "two");
  check(directories_add(directories, directories->root, "two") == inner, "it is not known under its new name");
  check_path(inner, "two");
  check(directories_get(directories, inner->watch) == inner, "it is watched no more");
  check(count(directories) == directories->count, "the count is wrong after an early move");
  check(two != inner, "two are one");
}

int main(void) {
  char place[] = "/tmp/directories-XXXXXX";
  struct inotify inotify;
  struct failure failure;
  struct directories directories;
  loop_begin();
  if (mkdtemp(place) == NULL || chdir(place) != 0) return 1;
  if (!inotify_begin(&inotify, never, 1, &failure)) return 1;
  check(directories_begin(&directories, place, &inotify), "the root cannot be watched");
  check_path(directories.root, "");
  check_confusion(&directories);
  check_many(&directories);
  check_early(&directories);
  check(directories_add(&directories, directories.root, "missing") == NULL, "a missing one is watched");
  directories_end(&directories);
  inotify_end(&inotify);
  char *command = format_text("rm -rf %s", place);
  if (system(command) != 0) failures++;
  free(command);
  return failures > 0;
}
