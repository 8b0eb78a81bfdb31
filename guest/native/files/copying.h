/* Copies a file in pieces, and shares the blocks if the file system can. */

#pragma once

#include "failure.h"

/* A copy under way. `from` is -1 when there is none. */
struct copying {
  int from, to;
  int64_t left;
};

/* Begins to copy `path` into the new file `hidden`, which stays open for more to be appended: `to`. */
bool copying_begin(struct copying *copying, const char *path, const char *hidden, struct failure *failure);
/* Copies a piece. Ends the copy when that was the last one. */
bool copying_step(struct copying *copying, struct failure *failure);
/* Closes what is copied, not `to`. */
void copying_end(struct copying *copying);
