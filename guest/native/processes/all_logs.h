/* All logs: those that are open, those of ended processes, and the limit of all together.
 */

#pragma once

#include "logs.h"
#include "records.h"

/* The log of a known process, without a reference: it may be freed in the next turn. */
struct log *all_logs_of(const struct record *record);
/* Bytes of all logs together, from now on. */
void all_logs_limit(int64_t bytes);
/* Makes room for a segment. The logs of ended processes go first, oldest first. */
void all_logs_make_room(void);
/* The log is not written any more, and its process does not count as running. */
void all_logs_ended(struct log *log);
/* The process is deleted. */
void all_logs_forget(const char *id);
