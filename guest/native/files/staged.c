/* Files that are written under hidden names and then put in their places, all or none.
 *
 * A hard link keeps the old content until the last rename is done. */

#include "staged.h"
#include "hidden.h"
#include "names.h"
#include "uuid.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_ROOM = 8 };

static uint64_t hash(const struct stage *stage, const char *text) {
  uint64_t sum = stage->seed;
  for (; *text != 0; text++) {
    sum = (sum ^ (uint8_t)*text) * 0x100000001b3u;
    sum ^= sum >> 29;
  }
  return sum;
}

/* Where the target is, or the free slot where it would go. */
static uint32_t *slot_of(const struct stage *stage, const char *target) {
  size_t mask = stage->slots_room - 1, at = (size_t)hash(stage, target) & mask;
  while (stage->slots[at] != 0 && strcmp(stage->items[stage->slots[at] - 1]->place.target, target) != 0)
    at = (at + 1) & mask;
  return &stage->slots[at];
}

/* Room for one more. */
static void grow(struct stage *stage) {
  if (stage->count < stage->room) return;
  if (stage->room == 0) random_bytes(&stage->seed, sizeof stage->seed);
  stage->room = stage->room > 0 ? stage->room * 2 : FIRST_ROOM;
  stage->items = more_memory(stage->items, stage->room * sizeof(struct staged *));
  free(stage->slots);
  stage->slots_room = stage->room * 2;
  stage->slots = memory(stage->slots_room * sizeof *stage->slots);
  for (size_t at = 0; at < stage->count; at++) *slot_of(stage, stage->items[at]->place.target) = (uint32_t)at + 1;
}

struct staged *stage_take(struct stage *stage, struct place *place, bool *is_new) {
  grow(stage);
  uint32_t *slot = slot_of(stage, place->target);
  *is_new = *slot == 0;
  if (!*is_new) {
    free(place->target);
    return stage->items[*slot - 1];
  }
  struct staged *staged = memory(sizeof *staged);
  *staged = (struct staged){.place = *place, .hidden = hidden_beside(place->target), .mode = mode_of(place)};
  stage->items[stage->count++] = staged;
  *slot = (uint32_t)stage->count;
  return staged;
}

/* A second name of the old file in `old`, or NULL when it is gone. */
static bool keep(const char *target, char **old, struct failure *failure) {
  *old = hidden_beside(target);
  if (link(target, *old) == 0) return true;
  int error = errno;
  hidden_forget(*old);
  *old = NULL;
  return error == ENOENT || fail_call(failure, error, "link", target);
}

/* Renames the file. `old`: what is left to undo it, if it may have to be undone. */
static bool replace(const struct staged *staged, bool is_last, char **old, struct failure *failure) {
  /* After the last one nothing can fail. */
  bool keeps = staged->place.has_before && !is_last;
  if (keeps && !keep(staged->place.target, old, failure)) return false;
  if (staged->place.has_before) will_replace(name_of(staged->hidden));
  if (rename(staged->hidden, staged->place.target) == 0) return true;
  return fail_call(failure, errno, "rename", staged->hidden);
}

static void put_back(const char *target, const char *old) {
  if (old == NULL) unlink(target);
  else rename(old, target);
}

bool stage_replace(struct stage *stage, struct failure *failure) {
  char **old = memory(stage->count * sizeof *old);
  size_t done = 0;
  while (done < stage->count && replace(stage->items[done], done == stage->count - 1, &old[done], failure)) done++;
  bool is_whole = done == stage->count;
  for (size_t at = done; !is_whole && at > 0; at--) put_back(stage->items[at - 1]->place.target, old[at - 1]);
  for (size_t at = 0; at < stage->count; at++) {
    if (old[at] != NULL) unlink(old[at]);
    hidden_forget(old[at]);
  }
  free(old);
  return is_whole;
}

void stage_undo(struct stage *stage) {
  for (size_t at = 0; at < stage->count; at++) unlink(stage->items[at]->hidden);
}

void stage_free(struct stage *stage) {
  for (size_t at = 0; at < stage->count; at++) {
    struct staged *staged = stage->items[at];
    hidden_forget(staged->hidden);
    free(staged->place.target);
    free(staged);
  }
  free(stage->items);
  free(stage->slots);
  *stage = (struct stage){0};
}
