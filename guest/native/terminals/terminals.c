/* Terminals: what the host can ask for.
 *
 *     POST /terminals/create?spare=            {id, cols, rows, env, cwd} → {}
 *     POST /terminals/attach?id=&attachment=   → frames: `o` output, `a` how many bytes of input were read (4 bytes),
 *                                                `x` the end {"exitCode", "reason"}, `d` another client has attached
 *     POST /terminals/input?id=&attachment=    frames: `i` input, `r` columns and rows (2 bytes each) → {}
 *     POST /terminals/end?reason=              → {}; ends all of them
 *
 * Frames are those of frames.h. A request for input goes on as long as its client is attached. Input of a client that
 * is no longer attached is dropped. */

#include "frames.h"
#include "spares.h"
#include "terminal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { LARGEST_INPUT = 64 << 10 }; /* bytes of one frame */
enum { MOST = 64 };                /* terminals */
#define NO_SHELL "buntime: this needs a shell, and the session's image has neither bash nor /bin/sh"

/* --- Making one --- */

static bool wrong(struct failure *failure, const char *what) {
  return fail(failure, EINVAL, "%s has the wrong form", what);
}

static bool parse_size(const struct json *value, unsigned *into) {
  int64_t number;
  if (!json_integer(value, &number) || number < 1) return false;
  *into = (uint16_t)number; /* as the system has it */
  return true;
}

static bool parse(const struct json *body, struct terminal_request *request, struct failure *failure) {
  const struct json *id = json_get(body, "id"), *cwd = json_get(body, "cwd");
  if (!json_is(body, JSON_OBJECT) && !json_is(body, JSON_ARRAY)) return wrong(failure, "the body");
  if (!json_is(id, JSON_STRING) || id->size == 0) return wrong(failure, "id");
  if (!parse_size(json_get(body, "cols"), &request->cols) || !parse_size(json_get(body, "rows"), &request->rows))
    return wrong(failure, "size");
  request->env = json_get(body, "env");
  if (request->env != NULL && !is_env(request->env)) return wrong(failure, "env");
  if (!json_is(cwd, JSON_STRING) || cwd->text[0] != '/' || strlen(cwd->text) != cwd->size) return wrong(failure, "cwd");
  request->id = id->text;
  request->cwd = cwd->text;
  return true;
}

static bool is_possible(struct terminal_request *request, struct failure *failure) {
  if (terminal_find(request->id) != NULL) return fail(failure, EEXIST, "the terminal exists already");
  if (terminal_count() >= MOST) return fail(failure, EAGAIN, "too many terminals are open");
  struct stat found;
  if (stat(request->cwd, &found) != 0) return fail_at(failure, errno, request->cwd);
  if (!S_ISDIR(found.st_mode)) return fail_at(failure, ENOTDIR, request->cwd);
  request->shell = session_shell();
  return request->shell != NULL || fail(failure, ENOEXEC, NO_SHELL);
}

static void create(struct asked *asked, const struct json *body) {
  struct terminal_request request = {0};
  struct failure failure = {0};
  if (parse(body, &request, &failure) && is_possible(&request, &failure) && terminal_create(asked, &request, &failure))
    answer_empty(asked);
  else answer_failure(asked, &failure);
}

static void post_create(struct asked *asked) { asked_json(asked, create); }

/* --- Being at one --- */

static struct terminal *find(struct asked *asked) {
  struct terminal *terminal = terminal_find(asked_text(asked, "id"));
  if (terminal == NULL) answer_error(asked, ENOENT, "there is no such terminal");
  return terminal;
}

static const char *attachment_in(struct asked *asked) {
  const char *name = asked_text(asked, "attachment");
  return name == NULL ? "" : name;
}

static void post_attach(struct asked *asked) {
  struct terminal *terminal = find(asked);
  if (terminal != NULL) terminal_attach(terminal, asked, attachment_in(asked));
}

/* --- Input --- */

/* A request for input, with the beginning of a frame whose rest has not come. It is freed by its answer. */
struct following {
  const char *id, *attachment; /* the request's */
  struct bytes rest;
};

static void stop_following(struct asked *asked) {
  struct following *following = asked_self(asked);
  bytes_free(&following->rest);
  free(following);
}

static bool act(struct terminal *terminal, uint8_t kind, const uint8_t *payload, size_t size, struct failure *failure) {
  if (kind == 'i') terminal_input(terminal, payload, size);
  else if (kind == 'r' && size == 4)
    terminal_resize(terminal, (unsigned)payload[0] << 8 | payload[1], (unsigned)payload[2] << 8 | payload[3]);
  else return fail(failure, EINVAL, "no such frame");
  return true;
}

/* Acts on the whole frames. Returns how many bytes these have, or -1. */
static ssize_t act_on_all(struct terminal *terminal, const char *name, const uint8_t *bytes, size_t size,
                          struct failure *failure) {
  size_t at = 0;
  while (size - at >= FRAME_HEADER) {
    size_t payload = number_at(bytes + at + 1);
    if (payload > LARGEST_INPUT) {
      fail(failure, EINVAL, "a frame that is too large");
      return -1;
    }
    if (size - at < FRAME_HEADER + payload) break;
    if (terminal_has(terminal, name) && !act(terminal, bytes[at], bytes + at + FRAME_HEADER, payload, failure))
      return -1;
    at += FRAME_HEADER + payload;
  }
  return (ssize_t)at;
}

/* Takes a part of the body. False: the request is to be answered, with the failure if that has an error. */
static bool take_part(struct asked *asked, const uint8_t *part, size_t size, struct failure *failure) {
  struct following *following = asked_self(asked);
  struct terminal *terminal = terminal_find(following->id);
  const char *name = following->attachment;
  if (terminal == NULL || !terminal_has(terminal, name)) return false;
  struct bytes *rest = &following->rest;
  bool has_rest = rest->size > 0;
  if (has_rest) {
    bytes_add(rest, part, size);
    part = rest->data;
    size = rest->size;
  }
  ssize_t used = act_on_all(terminal, name, part, size, failure);
  if (used < 0) return false;
  if (!has_rest) {
    bytes_add(rest, part + used, size - (size_t)used);
    return true;
  }
  memmove(rest->data, rest->data + used, size - (size_t)used);
  rest->size = size - (size_t)used;
  if (rest->size == 0) bytes_free(rest);
  return true;
}

static void follow(struct asked *asked) {
  const uint8_t *part;
  size_t size;
  struct failure failure = {0};
  for (;;) {
    enum arrived arrived = body_read(asked, &part, &size);
    if (arrived == BODY_WAIT) {
      body_on_arrival(asked, follow);
      return;
    }
    if (arrived == BODY_PART && take_part(asked, part, size, &failure)) continue;
    stop_following(asked);
    if (arrived == BODY_FAILED) answer_error(asked, EPIPE, "the host has left");
    else if (failure.error != 0) answer_failure(asked, &failure);
    else answer_empty(asked);
    return;
  }
}

static void post_input(struct asked *asked) {
  if (find(asked) == NULL) return;
  struct following *following = memory(sizeof *following);
  following->id = asked_text(asked, "id");
  following->attachment = attachment_in(asked);
  asked_keep(asked, following);
  follow(asked);
}

/* --- The end --- */

static void post_end(struct asked *asked) {
  terminals_end(asked_text(asked, "reason"));
  answer_empty(asked);
}

const struct operation terminals_operations[] = {
    {"POST /terminals/create", post_create},
    {"POST /terminals/attach", post_attach},
    {"POST /terminals/input",  post_input },
    {"POST /terminals/end",    post_end   },
    {NULL,                     NULL       }
};
