/* A run in a spare, for those who start programs of their own kinds: prepared processes and contexts. */

#pragma once

#include "asked.h"
#include "spares.h"

/* Marks of changed files: every file that changes after the mark has this change time, in ns, or a later
 * one. */
typedef int64_t change_mark;
change_mark mark_now(void);
/* Looks for regular files and symbolic links that have changed since the mark, in turns, and calls `then` with
 * `"filesWritten":[...],"filesWrittenTruncated":bool` (members of a JSON object, in `members`), at once or later. */
void written_since(change_mark mark, void (*then)(void *self, struct bytes *members), void *self);
/* Looks at the same files once for each root that the sandbox gets. */
void look_ahead(void);

/* One output stream of a run, up to its limit: a taker that pushes frames of this type into the outbox. `has_started`
 * may be NULL; while it says false, nothing is read. */
#include "frames.h"
#include "pipes.h"

struct run_output {
  struct taker taker;
  char type;
  bool is_truncated;
  int64_t left;
  struct outbox *outbox;
  bool (*has_started)(void *self);
  void *self;
};
void run_output_begin(struct run_output *output, char type, int64_t limit, struct outbox *outbox,
                      bool (*has_started)(void *self), void *self);
