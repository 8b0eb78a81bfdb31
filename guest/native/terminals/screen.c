/* The latest output of a terminal, kept so that a client that comes back gets its screen again. Pure.
 *
 * What is kept begins between two sequences, never inside one or inside a character. Modes that older output set are
 * remembered: the alternate screen, the mouse, bracketed paste, colours. A replay leaves out questions to the terminal
 * ("where is the cursor?"), because the answers would arrive as if the user had typed them. */

#include "screen.h"
#include "screen_tokens.h"
#include <stdlib.h>
#include <string.h>

enum { MOST = 256 << 10 };      /* bytes that are held; half of them go when the limit is reached */
enum { MOST_IN_SEQUENCE = 32 }; /* modes that one sequence switches */
enum { MOST_DIGITS = 9 };       /* of a mode; a terminal knows none that is longer */
enum { ESC = 0x1b, BEL = 0x07, ENQ = 0x05 };

static bool is_alternate_mode(uint32_t mode) { return mode == 47 || mode == 1047 || mode == 1049; }

static void forget_colours(struct screen_modes *modes) {
  for (size_t at = 0; at < modes->colour_count; at++) free(modes->colours[at]);
  modes->colour_count = 0;
}

static void add_colour(struct screen_modes *modes, const uint8_t *sequence, size_t size) {
  if (modes->colour_count == SCREEN_COLOURS) {
    free(modes->colours[0]);
    memmove(modes->colours, modes->colours + 1, (SCREEN_COLOURS - 1) * sizeof *modes->colours);
    modes->colour_count--;
  }
  modes->colours[modes->colour_count++] = copy_bytes(sequence, size);
}

static void switch_mode(struct screen_modes *modes, uint32_t number, bool is_on) {
  size_t at = 0;
  while (at < modes->count && modes->switched[at].number != number) at++;
  if (at == SCREEN_MODES) return;
  if (at == modes->count) modes->switched[modes->count++].number = number;
  modes->switched[at].is_on = is_on;
}

/* `list`: numbers with semicolons between them. A missing one is 0. */
static void switch_modes(struct screen_modes *modes, const uint8_t *list, size_t size, bool is_on) {
  size_t at = 0;
  for (int left = MOST_IN_SEQUENCE; left > 0 && at <= size; left--, at++) {
    uint32_t number = 0;
    size_t digits = digits_span(list + at, size - at, "");
    for (size_t end = at + digits; at < end; at++) number = digits > MOST_DIGITS ? 0 : number * 10 + (list[at] - '0');
    if (digits <= MOST_DIGITS) switch_mode(modes, number, is_on);
  }
}

static bool is_text(const uint8_t *bytes, size_t size, const char *text) {
  return size == strlen(text) && memcmp(bytes, text, size) == 0;
}

/* Whether the parameters of a change of colour begin with a reset: 0, or none. */
static bool begins_with_reset(const uint8_t *sequence) {
  size_t at = 1;
  while (sequence[at] == '0') at++;
  return sequence[at] == ';' || sequence[at] == 'm';
}

/* What follows an ESC. */
static void follow(struct screen_modes *modes, const uint8_t *sequence, size_t size) {
  uint8_t last = size == 0 ? 0 : sequence[size - 1];
  if (size > 3 && sequence[0] == '[' && sequence[1] == '?' && (last == 'h' || last == 'l')) {
    if (digits_span(sequence + 2, size - 3, ";") == size - 3) switch_modes(modes, sequence + 2, size - 3, last == 'h');
  } else if (size > 1 && sequence[0] == '[' && last == 'm') {
    if (digits_span(sequence + 1, size - 2, ";:") != size - 2) return;
    if (begins_with_reset(sequence)) forget_colours(modes);
    add_colour(modes, sequence, size);
  } else if (size == 1 && (last == '=' || last == '>')) {
    modes->keypad = (char)last;
  } else if (is_text(sequence, size, "c") || is_text(sequence, size, "[!p")) {
    modes->count = 0;
    forget_colours(modes);
    modes->keypad = 0;
  }
}

/* Applies the bytes up to the first place after `least` that is between two tokens. Returns that place. */
static size_t absorb(struct screen_modes *modes, const struct bytes *held, size_t least) {
  size_t at = 0;
  while (at < least) {
    size_t end = token_end(held->data, held->size, at);
    if (end == 0) end = held->size;
    if (held->data[at] == ESC) follow(modes, held->data + at + 1, end - at - 1);
    at = end;
  }
  return at;
}

static void put_switched(const struct screen_modes *modes, bool is_alternate, struct bytes *into) {
  for (size_t at = 0; at < modes->count; at++) {
    const struct screen_mode *mode = &modes->switched[at];
    if (is_alternate_mode(mode->number) == is_alternate)
      bytes_format(into, "\x1b[?%u%c", mode->number, mode->is_on ? 'h' : 'l');
  }
}

/* Adds the output that brings a reset terminal into this state. The alternate screen comes first: what follows is to be
 * its own. */
static void put_modes(const struct screen_modes *modes, struct bytes *into) {
  put_switched(modes, true, into);
  put_switched(modes, false, into);
  if (modes->keypad != 0) bytes_format(into, "\x1b%c", modes->keypad);
  for (size_t at = 0; at < modes->colour_count; at++) {
    bytes_byte(into, ESC);
    bytes_text(into, modes->colours[at]);
  }
}

static void forget(struct screen *screen) {
  struct bytes *held = &screen->held;
  if (held->size <= MOST / 2) return;
  size_t cut = absorb(&screen->gone, held, held->size - MOST / 2);
  memmove(held->data, held->data + cut, held->size - cut);
  held->size -= cut;
}

void screen_take(struct screen *screen, const uint8_t *chunk, size_t size) {
  if (size > MOST || screen->held.size > MOST - size) forget(screen);
  bytes_add(&screen->held, chunk, size);
}

bool screen_alternate(const struct screen *screen) {
  struct screen_modes now = screen->gone;
  now.colour_count = 0; /* these belong to `gone`, and nobody asks for them here */
  absorb(&now, &screen->held, screen->held.size);
  forget_colours(&now);
  for (size_t at = 0; at < now.count; at++)
    if (now.switched[at].is_on && is_alternate_mode(now.switched[at].number)) return true;
  return false;
}

static bool is_left_out(const uint8_t *token, size_t size) {
  if (size == 1) return token[0] == BEL || token[0] == ENQ;
  return token[0] == ESC && sequence_asks(token + 1, size - 1);
}

void screen_replay(const struct screen *screen, struct bytes *into) {
  bytes_text(into, "\x1b"
                   "c");
  put_modes(&screen->gone, into);
  const struct bytes *held = &screen->held;
  if (held->size == 0) return;
  bytes_room(into, held->size);
  size_t from = 0;
  for (size_t at = 0, end; at < held->size && (end = token_end(held->data, held->size, at)) != 0; at = end) {
    if (!is_left_out(held->data + at, end - at)) continue;
    bytes_add(into, held->data + from, at - from);
    from = end;
  }
  bytes_add(into, held->data + from, held->size - from);
}

void screen_free(struct screen *screen) {
  forget_colours(&screen->gone);
  bytes_free(&screen->held);
}
