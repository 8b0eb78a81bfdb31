/* Failures of a request: an errno, sent to the host as JSON with a status from one table. */

#define _GNU_SOURCE
#include "failure.h"
#include "json.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool fail(struct failure *failure, int error, const char *message, ...) {
  *failure = (struct failure){.error = error, .size = -1};
  if (message == NULL) return false;
  va_list arguments;
  va_start(arguments, message);
  vsnprintf(failure->message, sizeof failure->message, message, arguments);
  va_end(arguments);
  return false;
}

bool fail_at(struct failure *failure, int error, const char *path) {
  *failure = (struct failure){.error = error, .size = -1};
  if (path != NULL) failure->path = copy_text(path);
  return false;
}

bool fail_status(struct failure *failure, int error, int status, const char *message) {
  *failure = (struct failure){.error = error, .status = status, .size = -1};
  if (message != NULL) snprintf(failure->message, sizeof failure->message, "%s", message);
  return false;
}

void failure_free(struct failure *failure) {
  free(failure->path);
  failure->path = NULL;
}

const char *error_name(int error) {
  const char *name = error > 0 ? strerrorname_np(error) : NULL;
  return name != NULL ? name : "EIO";
}

static int status_of(int error) {
  switch (error) {
    case ENOENT: return 404;
    case EISDIR:
    case ENOTDIR:
    case EEXIST:
    case ENOTEMPTY:
    case ELOOP:
    case EBUSY:
    case EPERM:
    case EACCES:
    case EROFS:
    case EMLINK:
    case ETXTBSY:
    case EXDEV:
    case ESRCH:
    case ESTALE:
    case EFBIG:
    case ETIME: return 409;
    case ENAMETOOLONG:
    case EINVAL:
    case E2BIG: return 400;
    case ENOSPC:
    case EDQUOT: return 507;
    case EAGAIN:
    case ENOMEM:
    case EMFILE:
    case ENFILE: return 503;
    default: return 500;
  }
}

int failure_json(const struct failure *failure, struct bytes *into) {
  bytes_format(into, "{\"errno\":\"%s\"", error_name(failure->error));
  if (failure->path != NULL) {
    bytes_text(into, ",\"path\":");
    json_put_text(into, failure->path);
  }
  if (failure->message[0] != 0) {
    bytes_text(into, ",\"message\":");
    json_put_text(into, failure->message);
  }
  if (failure->size >= 0) bytes_format(into, ",\"size\":%lld", failure->size);
  bytes_byte(into, '}');
  return failure->status != 0 ? failure->status : status_of(failure->error);
}
