/* What Bun reads when it starts. A prepared process may only run code while all of it is as it was. */

#pragma once

#include "json.h"

struct surroundings;

/* What a process with this environment and directory reads. NULL when a prepared process would differ from a fresh one.
 */
struct surroundings *surroundings_of(const struct json *env, const char *cwd);
void surroundings_free(struct surroundings *surroundings);
/* The path of something that has changed, or NULL. */
const char *surroundings_changed(const struct surroundings *surroundings);
/* Whether a directory above has changed so recently that its time stamp may hide another change. */
bool changed_just_now(const char *cwd);
/* A text that differs when the environment or the directory differs. */
void environment_name(struct bytes *into, const struct json *env, const char *cwd);
