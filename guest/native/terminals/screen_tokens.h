/* The characters and sequences in the output of a terminal (screen_tokens.c). */

#pragma once

#include "bytes.h"

/* Where the token at `at` ends, or 0 when its end has not arrived. */
size_t token_end(const uint8_t *bytes, size_t size, size_t at);
/* Whether a terminal would answer this sequence: what follows an ESC. */
bool sequence_asks(const uint8_t *sequence, size_t size);
/* How many bytes at the beginning are digits or in `others`. */
size_t digits_span(const uint8_t *bytes, size_t size, const char *others);
