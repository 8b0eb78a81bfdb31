/* Files that arrive in pieces and appear atomically when all have arrived. */

#pragma once

#include "asked.h"

/* Begins an upload. `mode`: -1 for that of the file before. With a ticket (or NULL), the edge brings `size` bytes.
 * Returns the upload's id, which lives as long as the upload, or NULL. */
const char *upload_begin(const char *path, int mode, const char *ticket, int64_t size, struct failure *failure);
/* Adds bytes. ETIME when there is no such upload; `id` may be NULL. A failure drops the upload. */
bool upload_add(const char *id, const uint8_t *bytes, size_t size, struct failure *failure);
/* Puts the file in its place and sets `size` to its size. ETIME also when the edge has not brought all of it. */
bool upload_end(const char *id, int64_t *size, struct failure *failure);
/* Drops the upload if there is one. */
void upload_drop(const char *id);
