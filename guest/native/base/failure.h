/* Failures of a request: an errno, sent to the host as JSON with a status from one table.
 *
 * A function that may fail takes a `struct failure *` last, returns false (or NULL, or -1), and has filled it in. */

#pragma once

#include "bytes.h"

struct failure {
  int error;         /* an errno */
  int status;        /* 0: what the table says for the errno, or 500 */
  long long size;    /* bytes of the file that is larger than the host allows; -1 */
  char *path;        /* NULL, or to be freed */
  char message[256]; /* "": none */
};

/* Each returns false, so that `return fail(…)` reads well. What `failure` held before is overwritten. */
bool fail(struct failure *failure, int error, const char *message, ...) __attribute__((format(printf, 3, 4)));
bool fail_at(struct failure *failure, int error, const char *path); /* path: bytes, copied */
bool fail_status(struct failure *failure, int error, int status, const char *message);
void failure_free(struct failure *failure);

/* "ENOENT" for ENOENT; "EIO" for what has no name. */
const char *error_name(int error);
/* {"errno","path","message","size"}, only those that are there. Returns the status. */
int failure_json(const struct failure *failure, struct bytes *into);
