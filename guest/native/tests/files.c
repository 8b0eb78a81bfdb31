/* What guest/tests/files.test.ts and changes.test.ts ask of units directly (`holds`, `countFiles`), the order of a
 * listing, and hidden names. */

#include "entries.h"
#include "hidden.h"
#include "list.h"
#include "names.h"
#include "remove.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int failed;

static void check(bool holds_true, const char *what) {
  if (holds_true) return;
  printf("files: %s\n", what);
  failed = 1;
}

static char *new_directory(void) {
  char *directory = copy_text("/tmp/buntime-check-XXXXXX");
  if (mkdtemp(directory) == NULL) abort();
  return directory;
}

static int holds_path(const char *path, const char *workspace) {
  struct stat stats;
  return stat(path, &stats) == 0 ? holds(path, &stats, workspace) : -1;
}

static void check_holds(void) {
  char *workspace = new_directory(), *link = inside(workspace, "root"), *below = inside(link, "");
  check(symlink("/", link) == 0, "a link is made");
  check(holds_path("/", workspace) == 1, "the root is held");
  check(holds_path("/.", workspace) == 1, "the root is held under another name");
  check(holds_path(below, workspace) == 1, "the root is held through a link");
  check(holds_path("/tmp", workspace) == 1, "a parent is held");
  check(holds_path("/usr", workspace) == 0, "another directory is not held");
  unlink(link);
  rmdir(workspace);
  free(workspace);
  free(link);
  free(below);
}

static void note(void *self, long files) { *(long *)self = files; }

static void check_count(void) {
  static const int sizes[] = {255, 256, 4095};
  char *directory = new_directory(), *link = inside(directory, "link");
  for (size_t at = 0; at < COUNT(sizes); at++) {
    char *name = memory((size_t)sizes[at] + 1);
    memset(name, 'a', (size_t)sizes[at]);
    long files = -1;
    check(symlink(name, link) == 0, "a link to a long name is made");
    count_files(link, note, &files);
    check(files == 0, "a workspace that is a link to a long name holds no files");
    unlink(link);
    free(name);
  }
  rmdir(directory);
  free(link);
  free(directory);
}

static void add_path(struct entries *entries, const char *path) {
  struct failure failure;
  struct found found = {.path = path, .name = path, .kind = KIND_FILE, .at = path};
  check(entries_add(entries, &found, &failure) != NULL, "an entry is added");
}

static void sort_all(struct entries *entries) {
  struct failure failure;
  for (bool has_failed = false; !has_failed && !entries_sort(entries, &has_failed, &failure);) continue;
}

static void check_order(void) {
  static const char *const sorted[] = {
      "Z",    "a",     "a-b", "a/b", "aa", "\xc3\xa9", "\xef\xbf\xae", "\xf0\x9f\x98\x80", "\xf0\x9f\x98\x80\x80",
      "\x80", "\x80z", "\xff"};
  struct entries entries = {0};
  for (size_t at = COUNT(sorted); at > 0; at--) add_path(&entries, sorted[at - 1]);
  sort_all(&entries);
  for (size_t at = 0; at < COUNT(sorted); at++)
    check(strcmp(entries.items[at]->path, sorted[at]) == 0, "odd names are sorted behind all characters");
  entries_free(&entries);
}

static void check_sizes(void) {
  static const int sizes[] = {0, 1, 511, 512, 513, 1024, 1025, 5000, 12345};
  for (size_t each = 0; each < COUNT(sizes); each++) {
    struct entries entries = {0};
    uint32_t seed = 1;
    for (int at = 0; at < sizes[each]; at++) {
      char *path = format_text("%08x", seed = seed * 1664525 + 1013904223);
      add_path(&entries, path);
      free(path);
    }
    sort_all(&entries);
    check(entries.count == (size_t)sizes[each], "sorting keeps all");
    for (size_t at = 1; at < entries.count; at++)
      check(strcmp(entries.items[at - 1]->path, entries.items[at]->path) < 0, "many entries are sorted");
    entries_free(&entries);
  }
}

static void check_hidden(void) {
  enum { MANY = 5000 };
  char **names = memory(MANY * sizeof *names);
  for (int at = 0; at < MANY; at++) will_replace(names[at] = new_hidden_name());
  for (int at = 0; at < MANY; at += 2) forget_hidden_name(names[at]);
  for (int at = 0; at < MANY; at++) {
    check(is_hidden(names[at]) == (at % 2 == 1), "a name is hidden until it is forgotten");
    check(has_hidden_form(names[at]), "a hidden name has their form");
  }
  check(!has_replaced(names[0]) && has_replaced(names[2048]) && has_replaced(names[MANY - 1]),
        "the latest names that replaced are remembered");
  check(!has_hidden_form(".buntime-") && !has_hidden_form(".buntime-0") && !has_hidden_form("x"), "others have not");
  for (int at = 0; at < MANY; at++) forget_hidden_name(names[at]), free(names[at]);
  free(names);
}

int main(void) {
  check_holds();
  check_count();
  check_order();
  check_sizes();
  check_hidden();
  return failed;
}
