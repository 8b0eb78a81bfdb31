/* The latest output of a terminal, kept so that a client that comes back gets its screen again (screen.c). */

#pragma once

#include "bytes.h"

enum { SCREEN_MODES = 64, SCREEN_COLOURS = 16 };

/* The modes that are switched on and off. All zeros: those of a terminal that was reset. */
struct screen_modes {
  struct screen_mode {
    uint32_t number;
    bool is_on;
  } switched[SCREEN_MODES]; /* in the order in which they were first switched */
  size_t count;
  char *colours[SCREEN_COLOURS]; /* the latest changes of colour that are kept */
  size_t colour_count;
  char keypad; /* `=`, `>` or 0 */
};

/* All zeros is an empty one. */
struct screen {
  struct bytes held;
  struct screen_modes gone; /* those of the output that is no longer held */
};

void screen_take(struct screen *screen, const uint8_t *chunk, size_t size);
/* Whether a program uses the alternate screen. */
bool screen_alternate(const struct screen *screen);
/* Adds a reset, and the output that restores the screen. What is held as it is (`held`) is for the first client. */
void screen_replay(const struct screen *screen, struct bytes *into);
void screen_free(struct screen *screen);
