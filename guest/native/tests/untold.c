/* Changes that have yet to be reported: several changes of one path become one, and none moves across a rename. */

#include "untold.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

/* Takes all changes as text, as in "+a ~b -c a>b". */
static char *taken(struct untold *untold) {
  struct bytes text = {0};
  for (struct news *each = untold_take(untold), *next; each != NULL; each = next) {
    next = each->next;
    if (text.size > 0) bytes_text(&text, " ");
    if (each->event == EVENT_RENAMED) bytes_format(&text, "%s>%s", each->from, each->path);
    else bytes_format(&text, "%c%s", "+~-"[each->event], each->path);
    news_free(each);
  }
  return bytes_string(&text);
}

static void check(const char *changes, const char *expected) {
  struct untold untold = {0};
  char *copy = copy_text(changes), *rest = copy;
  for (char *word; (word = strsep(&rest, " ")) != NULL;) {
    char *arrow = strchr(word, '>');
    if (arrow != NULL) {
      *arrow = '\0';
      untold_rename(&untold, word, arrow + 1, false);
    } else if (*word != '\0') untold_add(&untold, strchr("+~-", *word) - "+~-", word + 1, false);
  }
  char *found = taken(&untold);
  if (strcmp(found, expected) != 0) failures += printf("%s: %s, not %s\n", changes, found, expected) > 0;
  free(found);
  free(copy);
}

static void check_bounds(void) {
  struct untold untold = {0};
  char path[400];
  for (int number = 0; number < 4000; number++) {
    snprintf(path, sizeof path, "%d", number);
    untold_add(&untold, EVENT_CREATED, path, false);
  }
  if (untold.overflown || untold.count != 4000) failures += printf("4000 do not fit\n") > 0;
  for (int number = 0; number < 4000; number++) {
    snprintf(path, sizeof path, "%d", number);
    untold_add(&untold, EVENT_DELETED, path, false);
  }
  if (untold.count != 0 || untold.bytes != 0 || untold.first != NULL) failures += printf("some remain\n") > 0;
  for (int number = 0; number < 5001; number++) untold_rename(&untold, "a", "b", false);
  if (!untold.overflown || untold.count != 0) failures += printf("no overflow by count\n") > 0;
  untold_add(&untold, EVENT_CREATED, "a", false);
  if (untold_take(&untold) != NULL || untold.overflown) failures += printf("not empty after an overflow\n") > 0;
  for (int number = 0; number < 4000; number++) {
    snprintf(path, sizeof path, "%0300d", number);
    untold_add(&untold, EVENT_CREATED, path, false);
  }
  if (!untold.overflown) failures += printf("no overflow by bytes\n") > 0;
  untold_overflow(&untold);
}

int main(void) {
  check("+a ~a ~a", "+a");
  check("~a ~a +a", "~a");
  check("+a -a", "");
  check("~a -a", "-a");
  check("-a +a", "-a +a");
  check("-a +a -a", "-a");
  check("-a +a -a -a", "-a -a");
  check("-a -a", "-a");
  check("+a +b ~a -b", "+a");
  check("+a a>b ~b ~b", "+a a>b ~b");
  check("~a a>b +a ~a", "~a a>b +a");
  check("+a x>y -a", "+a x>y -a");
  check("a>b", "a>b");
  check_bounds();
  return failures > 0;
}
