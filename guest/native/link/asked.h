/* Requests and answers, as handlers see them.
 *
 * A handler is called with a request and answers it exactly once, at once or later, by one of the `answer_` functions.
 * Until then the request exists, also when the host has left. After it the handler must not touch the request. */

#pragma once

#include "bytes.h"
#include "failure.h"
#include "json.h"

struct settings {
  const char *address;
  int port;
  const char *secret;
  char **shell;       /* command line of a spare's shell, ends with NULL */
  const char *bun;    /* the Bun that runs the session's code */
  const char *boot;   /* what a prepared Bun runs first (boot.js) */
  const char *kernel; /* what runs in a context (kernel.js) */
  const char *workspace;
  const char *processes; /* where records and logs of processes are kept */
};
extern struct settings settings;

struct asked;

enum arrived { BODY_PART, BODY_END, BODY_WAIT, BODY_FAILED };

/* --- The request --- */

/* Its method and path, as in "GET /health". */
const char *asked_operation(const struct asked *asked);
/* For the handler's own use; NULL at first. */
void *asked_self(struct asked *asked);
void asked_keep(struct asked *asked, void *self);
/* Calls `gone` once when the host has left or wants no answer any more, and the request is not answered yet. At once
 * when that has happened already. The handler must still answer. NULL: no more calls. */
void asked_on_gone(struct asked *asked, void (*gone)(struct asked *));
bool asked_is_gone(const struct asked *asked);

/* --- Its parameters. They are decoded as URLSearchParams does (+ is a space, bytes that are not UTF-8 become U+FFFD).
 * Strings live as long as the request. --- */

/* NULL when it is missing. */
const char *asked_text(struct asked *asked, const char *name);
bool asked_flag(struct asked *asked, const char *name); /* it is "1" */
/* A whole number that is not negative, up to 2^53 - 1. `otherwise` when missing or empty. Fails with EINVAL, `name`. */
bool asked_number(struct asked *asked, const char *name, int64_t otherwise, int64_t *into, struct failure *failure);
/* An absolute path of any bytes, without NULs. Fails with EINVAL, `name`. */
const char *asked_path(struct asked *asked, const char *name, struct failure *failure);

/* --- Its body --- */

/* Takes the next part, as it arrived. It stays valid until the next call of a body function. After BODY_WAIT, `arrived`
 * (of body_on_arrival) is called once when there is more. BODY_FAILED: the host has left before the end (EPIPE). */
enum arrived body_read(struct asked *asked, const uint8_t **part, size_t *size);
/* Gives back the last `size` bytes of the part that was read: they are read again next. */
void body_return(struct asked *asked, size_t size);
void body_on_arrival(struct asked *asked, void (*arrived)(struct asked *));

/* Calls `then` with the whole body, at once or later; valid until `then` returns. If that fails (larger than
 * LARGEST_BODY: EINVAL, status 413; EPIPE; ENOMEM), answers with the failure, and `then` is not called. */
void asked_whole(struct asked *asked, void (*then)(struct asked *, const uint8_t *bytes, size_t size));
/* The same, as JSON, which is freed after `then`. EINVAL "the body is not JSON". */
void asked_json(struct asked *asked, void (*then)(struct asked *, const struct json *body));
#define LARGEST_BODY ((size_t)512 << 20)

/* --- Answers --- */

/* The bytes as JSON, status 200. Takes the memory of `body`, which is then empty. */
void answer_json(struct asked *asked, struct bytes *body);
void answer_format(struct asked *asked, const char *format, ...) __attribute__((format(printf, 2, 3)));
void answer_empty(struct asked *asked); /* {} */
/* Takes the memory of the failure, also when nobody waits. */
void answer_failure(struct asked *asked, struct failure *failure);
void answer_error(struct asked *asked, int error, const char *message); /* message may be NULL */
/* Bytes with fields. `fields`: a JSON object of strings as text, or NULL; copied. Takes the memory of `body`. */
void answer_bytes(struct asked *asked, const char *fields, struct bytes *body);

/* A body that is made as the host takes it. To be the first member, or found with MEMBER. */
enum pulled { PULLED_PIECE, PULLED_END, PULLED_LATER, PULLED_FAILED };
struct source {
  /* The next piece, which stays valid until the next call. PULLED_LATER: `source_ready` will be called. PULLED_FAILED:
   * the answer breaks off with `why`. After PULLED_END and PULLED_FAILED nothing is called any more. */
  enum pulled (*next)(struct source *source, const uint8_t **piece, size_t *size, const char **why);
  /* The host takes no more. Not called after the end. The source may free itself. */
  void (*drop)(struct source *source);
  struct stream *stream; /* the link's own: while it waits for source_ready or for the host */
};
void answer_source(struct asked *asked, const char *fields, struct source *source);
/* More can be pulled, or the end or a failure. Does nothing when the stream does not wait for it. May call `next`
 * before it returns, or `drop` never. */
void source_ready(struct source *source);

/* --- Handlers --- */

struct operation {
  const char *name; /* "GET /health" */
  void (*handler)(struct asked *asked);
};
/* Each part has a table that ends with {NULL, NULL}. */
extern const struct operation files_operations[], runs_operations[], prepared_operations[], processes_operations[],
    services_operations[], contexts_operations[], terminals_operations[], watching_operations[];

/* A connection that begins with `G` or `P` (bodies.c): it takes the descriptor, non-blocking, with what has arrived. */
void body_connection(int fd, const uint8_t *arrived, size_t size);
