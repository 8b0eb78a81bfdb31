/* The characters and sequences in the output of a terminal: where each ends, and which of them are questions. Pure. */

#include "screen_tokens.h"
#include <string.h>

enum { LONGEST = 4 << 10 }; /* bytes of one sequence; anything longer is not one */
enum { ESC = 0x1b, BEL = 0x07 };

static size_t character_end(const uint8_t *bytes, size_t size, size_t at) {
  size_t whole = at + (bytes[at] >= 0xf0 ? 4 : bytes[at] >= 0xe0 ? 3 : 2);
  size_t end = at + 1;
  while (end < size && end < whole && (bytes[end] & 0xc0) == 0x80) end++;
  return end == size && end < whole ? 0 : end;
}

static size_t final_after(const uint8_t *bytes, size_t size, size_t from) {
  for (size_t at = from; at < size; at++) {
    uint8_t byte = bytes[at];
    if (byte >= 0x40 && byte <= 0x7e) return at + 1;
    if (byte < 0x20 || byte > 0x7e || at - from > LONGEST) return at;
  }
  return 0;
}

static size_t string_end(const uint8_t *bytes, size_t size, size_t from) {
  for (size_t at = from; at < size; at++) {
    if (bytes[at] == BEL || bytes[at] == 0x9c) return at + 1;
    if (bytes[at] == ESC) return at + 1 == size ? 0 : bytes[at + 1] == '\\' ? at + 2 : at;
    if (at - from > LONGEST) return at;
  }
  return 0;
}

size_t token_end(const uint8_t *bytes, size_t size, size_t at) {
  if (bytes[at] != ESC) return bytes[at] < 0xc0 ? at + 1 : character_end(bytes, size, at);
  if (at + 1 == size) return 0;
  uint8_t second = bytes[at + 1];
  if (second == '[') return final_after(bytes, size, at + 2);
  if (second != 0 && strchr("]P_^X", second)) return string_end(bytes, size, at + 2);
  size_t end = at + 1;
  while (end < size && bytes[end] >= 0x20 && bytes[end] <= 0x2f) end++;
  return end < size ? end + 1 : 0;
}

size_t digits_span(const uint8_t *bytes, size_t size, const char *others) {
  size_t at = 0;
  while (at < size && ((bytes[at] >= '0' && bytes[at] <= '9') || (bytes[at] != 0 && strchr(others, bytes[at])))) at++;
  return at;
}

/* Whether the bytes are digits or semicolons, and then exactly `final`. */
static bool is_call(const uint8_t *bytes, size_t size, const char *final) {
  size_t span = digits_span(bytes, size, ";");
  return size - span == strlen(final) && memcmp(bytes + span, final, size - span) == 0;
}

/* `(1[1-9]|2[01])(;\d*)*t`: what a window would report. */
static bool is_window_question(const uint8_t *bytes, size_t size) {
  if (size < 3 || !is_call(bytes, size, "t")) return false;
  bool is_known = bytes[0] == '1' ? bytes[1] >= '1' && bytes[1] <= '9' : bytes[0] == '2' && (bytes[1] & 0xfe) == '0';
  return is_known && (bytes[2] == ';' || bytes[2] == 't');
}

/* What follows an ESC and a `[`. */
static bool control_asks(const uint8_t *bytes, size_t size) {
  if (size == 0) return false;
  const uint8_t *rest = bytes + 1;
  if (bytes[0] == '?')
    return is_call(rest, size - 1, "c") || is_call(rest, size - 1, "n") || is_call(rest, size - 1, "$p") ||
           (size == 2 && rest[0] == 'u');
  if (bytes[0] == '>')
    return is_call(rest, size - 1, "c") || is_call(rest, size - 1, "n") || is_call(rest, size - 1, "q");
  if (bytes[0] == '=') return is_call(rest, size - 1, "c") || is_call(rest, size - 1, "n");
  return is_call(bytes, size, "c") || is_call(bytes, size, "n") || is_call(bytes, size, "$p") ||
         is_window_question(bytes, size) || (digits_span(bytes, size, "") == size - 1 && bytes[size - 1] == 'x');
}

/* What follows an ESC and a `]`: a setting, and a question mark in place of a value. */
static bool setting_asks(const uint8_t *bytes, size_t size) {
  size_t end = digits_span(bytes, size, ";abcdefghijklmnopqrstuvwxyz");
  return end > 0 && end < size && bytes[end] == '?' && bytes[end - 1] == ';';
}

bool sequence_asks(const uint8_t *sequence, size_t size) {
  if (size == 0) return false;
  if (sequence[0] == '[') return control_asks(sequence + 1, size - 1);
  if (sequence[0] == ']') return setting_asks(sequence + 1, size - 1);
  if (sequence[0] == 'P') return size > 2 && (sequence[1] == '$' || sequence[1] == '+') && sequence[2] == 'q';
  return size == 1 && sequence[0] == 'Z';
}
