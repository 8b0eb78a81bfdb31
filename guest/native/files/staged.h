/* Files that are written under hidden names and then put in their places, all or none. */

#pragma once

#include "places.h"

/* A file that is, or will be, complete under its hidden name. */
struct staged {
  struct place place;
  char *hidden;
  int64_t size;
  mode_t mode;
};

/* All zeros: none. Found by their targets, because a path may come twice. */
struct stage {
  struct staged **items; /* in the order in which they came */
  size_t count, room;
  uint32_t *slots; /* places in `items` from 1, by hash; 0: free. At most half of them are used */
  size_t slots_room;
  uint64_t seed; /* the paths come from outside */
};

/* The file for this place, whose memory it takes. `is_new`: there was none for its target. */
struct staged *stage_take(struct stage *stage, struct place *place, bool *is_new);
/* Renames all, or restores what was there. Readers of a file see its old content or the new. */
bool stage_replace(struct stage *stage, struct failure *failure);
/* Removes what is left under hidden names. */
void stage_undo(struct stage *stage);
void stage_free(struct stage *stage);
