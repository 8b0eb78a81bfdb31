/* Reading files. The size is taken once, when the file is opened. */

#pragma once

#include "asked.h"

/* Answers with the file, and its size in the field `size`. EFBIG with the size when it exceeds `limit` bytes. */
void read_file(struct asked *asked, const char *path, int64_t limit);
/* Answers with bytes `start` to `end` of the file, cut to its size. With a negative `start`, with the last `end` bytes.
 *
 * Fields: `size` (of the whole file), `start`, `end`, `modified` in Unix seconds, `version`. With a ticket (or NULL),
 * many bytes are for the edge to fetch: then there is a field `held`, and the body is that of `sending_begin`. */
void read_part(struct asked *asked, const char *path, int64_t start, int64_t end, const char *ticket);
