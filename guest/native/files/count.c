/* Counts the files of the workspace. */

#include "hidden.h"
#include "list.h"
#include "loop.h"
#include "walk.h"
#include <stdlib.h>

enum {
  MOST_COUNTED = 100000,
  MOST_VISITED = MOST_COUNTED + 1000, /* so that the most can be told where there are few directories */
  OWN_ENTRIES = 2,                    /* of each directory: itself and the one above */
};

/* A count under way. It frees itself after `then`. */
struct count {
  struct later later;
  struct walk *walk;
  struct pace pace;
  long files, visited;
  void (*then)(void *self, long files);
  void *self;
};

static void finish(struct count *count) {
  void (*then)(void *, long) = count->then;
  void *self = count->self;
  long files = count->files;
  walk_end(count->walk);
  free(count);
  then(self, files);
}

static void work(struct later *later) {
  struct count *count = MEMBER(later, struct count, later);
  pace_rested(&count->pace);
  while (count->visited < MOST_VISITED && count->files < MOST_COUNTED) {
    struct found found;
    struct failure failure;
    enum walked walked = walk_next(count->walk, &found, &failure);
    if (walked == WALK_FAILED) failure_free(&failure); /* the session removed or replaced it */
    if (walked != WALK_FOUND) break;
    count->visited += found.kind == KIND_DIRECTORY ? 1 + OWN_ENTRIES : 1;
    if (found.kind == KIND_FILE && !is_hidden(found.name)) count->files++;
    if (pace_is_due(&count->pace)) return later_begin(&count->later, work);
  }
  finish(count);
}

void count_files(const char *workspace, void (*then)(void *, long), void *self) {
  struct count *count = memory(sizeof *count);
  char *root = format_text("%s/.", workspace);
  count->walk = walk_begin(root, NULL, NULL);
  free(root);
  count->visited = OWN_ENTRIES;
  count->then = then;
  count->self = self;
  pace_begin(&count->pace, 0);
  work(&count->later);
}
