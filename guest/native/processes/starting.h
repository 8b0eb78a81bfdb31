/* The host's request to start a process, checked. */

#pragma once

#include "failure.h"
#include "json.h"

/* What it points to belongs to the request's JSON. */
struct started {
  const char *id;
  const struct json *code, *command; /* exactly one of the two; the other is NULL */
  const struct json *env;            /* or NULL */
  const char *cwd;
  const struct json *name;  /* or NULL */
  const struct json *input; /* base64; NULL: standard input stays open for what is sent later */
  double timeout;           /* seconds; 0: none */
  int64_t log_bytes;        /* kept of this process */
  int64_t all_log_bytes;    /* kept of all processes */
};

/* Fails with EINVAL. */
bool started_read(struct started *started, const struct json *body, struct failure *failure);
/* The failure of a member. Returns false. */
bool has_wrong_form(struct failure *failure, const char *what);
