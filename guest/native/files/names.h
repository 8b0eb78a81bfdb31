/* Paths of any bytes, and failures of calls on files. */

#pragma once

#include "bytes.h"
#include "failure.h"

/* The directory that holds it, like `dirname`. To be freed. */
char *above(const char *path);
/* The part after the last slash, within `path`. */
const char *name_of(const char *path);
/* `name` in the directory. To be freed. */
char *inside(const char *directory, const char *name);
bool starts_with(const char *path, const char *text);

/* Fails with `error`, which this call gave for the path (NULL: for no path). */
bool fail_call(struct failure *failure, int error, const char *call, const char *path);
/* EINVAL with the status 409. */
bool fail_not_regular(struct failure *failure, const char *path);
/* EPERM: the directory exists, and no file can be made in it all the same (/proc). */
bool fail_no_place(struct failure *failure, const char *path);
