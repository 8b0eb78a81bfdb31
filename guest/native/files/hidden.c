/* Names under which a write is prepared beside its target. No listing and no watch shows them.
 *
 * A name is a prefix and a UUID. It is kept as the number that the UUID is: a write of many files has many of them. */

#include "hidden.h"
#include "names.h"
#include "uuid.h"
#include <stdlib.h>
#include <string.h>

#define PREFIX ".buntime-"
enum { PREFIX_SIZE = sizeof PREFIX - 1, REMEMBERED = 4096, FIRST_SLOTS = 16 };

/* Random, so that its first half serves as a hash. Never zero, because a UUID names its version. */
struct number {
  uint64_t high, low;
};

/* A set with open addressing. It is at most half full; a slot of zeros is free. */
struct numbers {
  struct number *slots;
  size_t room; /* a power of two, or 0 */
  size_t count;
};

static struct {
  struct numbers in_use;
  struct numbers replacing;
  struct number *order; /* of `replacing`, the oldest first */
  size_t order_room;
} hidden;

static bool same(struct number one, struct number other) { return one.high == other.high && one.low == other.low; }

static bool is_free(struct number slot) { return slot.high == 0 && slot.low == 0; }

/* Where it is, or the free slot where it would go. The set has room. */
static size_t slot_of(const struct numbers *set, struct number number) {
  size_t at = (size_t)number.high & (set->room - 1);
  while (!is_free(set->slots[at]) && !same(set->slots[at], number)) at = (at + 1) & (set->room - 1);
  return at;
}

static bool has(const struct numbers *set, struct number number) {
  return set->count > 0 && !is_free(set->slots[slot_of(set, number)]);
}

static void resize(struct numbers *set, size_t room) {
  struct numbers larger = {.slots = memory(room * sizeof *larger.slots), .room = room, .count = set->count};
  for (size_t at = 0; at < set->room; at++)
    if (!is_free(set->slots[at])) larger.slots[slot_of(&larger, set->slots[at])] = set->slots[at];
  free(set->slots);
  *set = larger;
}

static bool add(struct numbers *set, struct number number) {
  if (has(set, number)) return false;
  if (set->count * 2 >= set->room) resize(set, set->room > 0 ? set->room * 2 : FIRST_SLOTS);
  set->slots[slot_of(set, number)] = number;
  set->count++;
  return true;
}

/* Moves up what stands behind a slot that became free, so that it is still found. */
static void close_gap(struct numbers *set, size_t gap) {
  size_t mask = set->room - 1;
  for (size_t at = (gap + 1) & mask; !is_free(set->slots[at]); at = (at + 1) & mask) {
    size_t wanted = (size_t)set->slots[at].high & mask;
    if (((at - wanted) & mask) < ((at - gap) & mask)) continue;
    set->slots[gap] = set->slots[at];
    gap = at;
  }
  set->slots[gap] = (struct number){0};
}

static void drop(struct numbers *set, struct number number) {
  if (!has(set, number)) return;
  close_gap(set, slot_of(set, number));
  if (--set->count > 0) return;
  free(set->slots);
  *set = (struct numbers){0};
}

static int digit(char character) {
  if (character >= '0' && character <= '9') return character - '0';
  return character >= 'a' && character <= 'f' ? character - 'a' + 10 : -1;
}

/* The number in a name. False when it has another form. */
static bool parse(const char *name, struct number *into) {
  if (strncmp(name, PREFIX, PREFIX_SIZE) != 0) return false;
  const char *text = name + PREFIX_SIZE;
  if (strnlen(text, UUID + 1) != UUID) return false;
  struct number number = {0};
  for (int at = 0; at < UUID; at++) {
    if (at == 8 || at == 13 || at == 18 || at == 23) {
      if (text[at] != '-') return false;
      continue;
    }
    int value = digit(text[at]);
    if (value < 0) return false;
    number.high = number.high << 4 | number.low >> 60;
    number.low = number.low << 4 | (uint64_t)value;
  }
  *into = number;
  return true;
}

char *new_hidden_name(void) {
  char *uuid = new_uuid();
  char *name = format_text(PREFIX "%s", uuid);
  free(uuid);
  struct number number;
  if (parse(name, &number)) add(&hidden.in_use, number);
  return name;
}

void forget_hidden_name(const char *name) {
  struct number number;
  if (parse(name, &number)) drop(&hidden.in_use, number);
}

bool is_hidden(const char *name) {
  struct number number;
  return hidden.in_use.count > 0 && parse(name, &number) && has(&hidden.in_use, number);
}

bool has_hidden_form(const char *name) {
  struct number number;
  return parse(name, &number);
}

static void forget_older_half(void) {
  size_t half = REMEMBERED / 2, left = hidden.replacing.count - half;
  for (size_t at = 0; at < half; at++) drop(&hidden.replacing, hidden.order[at]);
  memmove(hidden.order, hidden.order + half, left * sizeof *hidden.order);
}

void will_replace(const char *name) {
  struct number number;
  if (!parse(name, &number) || !add(&hidden.replacing, number)) return;
  size_t count = hidden.replacing.count;
  if (count > hidden.order_room) {
    hidden.order_room = hidden.order_room > 0 ? hidden.order_room * 2 : FIRST_SLOTS;
    hidden.order = more_memory(hidden.order, hidden.order_room * sizeof *hidden.order);
  }
  hidden.order[count - 1] = number;
  if (count > REMEMBERED) forget_older_half();
}

bool has_replaced(const char *name) {
  struct number number;
  return hidden.replacing.count > 0 && parse(name, &number) && has(&hidden.replacing, number);
}
