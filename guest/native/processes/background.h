/* Processes that run, or whose output is still open. */

#pragma once

#include "input.h"
#include "logs.h"
#include "records.h"
#include "spares.h"
#include "starting.h"
#include "trees.h"

struct background;

struct background *background_find(const char *id);
struct log *background_log(struct background *process);
/* NULL when it takes none. */
struct input *background_input(struct background *process);
bool background_signal(struct background *process, int64_t number);

/* Of all of them: bytes of their logs, and the log with the most segments, or NULL. */
int64_t background_log_bytes(void);
struct log *background_largest_log(void);

/* Makes room for one more: old records are deleted. */
void background_make_room(int64_t all_log_bytes);
/* Starts it in the spare. Returns its record, which stays there while the process runs. NULL: EINVAL, E2BIG, ESRCH. */
const struct record *background_start(int64_t spare, const struct started *started, struct failure *failure);

/* Makes the spare the attendant of a service, which has no input. Takes the spare and its outputs, but not its `script`
 * and `text`. `ended` is called before its end is recorded, and returns the exit code to record. */
void background_attend(struct spare *spare, const struct record *record, int64_t log_bytes,
                       int (*ended)(void *self, int exit_code), void *self);
