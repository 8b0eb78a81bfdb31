/* Text that is cut as JavaScript cuts it (cut_text.c). */

#pragma once

#include "bytes.h"

/* Adds the text as UTF-8, at most so many UTF-16 units of it: `text.slice(0, most).toWellFormed()`. */
void cut_text(struct bytes *into, const void *text, size_t size, size_t most);
