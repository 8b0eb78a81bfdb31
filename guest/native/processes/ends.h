/* Ends of processes on their way to the host, in frames `d`. Each is a list of at most 500:
 *
 *     [{"id", "exitCode": 0–255, "reason": null | "timeout" | "deep_sleep"}, …]
 *
 * `exitCode` is null when nothing is known of the end, or of the process. */

#pragma once

#include "asked.h"
#include "records.h"

struct end {
  int exit_code; /* -1: null */
  enum reason reason;
};

/* The end of the process is recorded. */
void ends_add(const char *id, struct end end);
/* POST /processes/ends: those of the ids in the body that do not run, at once. With `follow`, then all processes that
 * end, until the host leaves. */
void ends_asked(struct asked *asked);
