/* Parked shells, each ready to become the program of one run, and the script that does it. */

#pragma once

#include "failure.h"
#include "loop.h"

/* A parked shell and the guest's ends of its pipes. Who takes it closes them and frees it with spare_free. */
struct spare {
  struct child child;
  pid_t pid;
  int script, input, text, output, errors; /* the guest's ends; -1 when closed or handed on */
  bool has_ended;
  int status; /* 0 to 255; 128 + signal when killed */
  void (*ended)(struct spare *spare, void *self);
  void *self;
  struct ending *ending; /* or NULL */
  struct later later;
  struct spare *next; /* parked */
};

/* Starts one. Fails with EAGAIN (status 409) when enough are parked, EAGAIN (503) when no process can be started. */
pid_t spare_park(struct failure *failure);
/* Hands the spare to the caller. NULL: ESRCH. */
struct spare *spare_take(int64_t pid, struct failure *failure);
/* Calls `ended` when the process has ended; in a later turn when it has already. With `spare_watch`, it may end after
 * that, but runs no more. */
void spare_on_end(struct spare *spare, void (*ended)(struct spare *, void *self), void *self);
/* Looks for the end of its program, too, which has threads. It is not parked. */
void spare_watch(struct spare *spare);
/* Closes what is not closed. To be called after the end. */
void spare_free(struct spare *spare);

/* The descriptors of a spare beyond its script (0) and the run's output (1 and 2). */
enum { SPARE_INPUT = 3, SPARE_TEXT = 4, SPARE_NOTHING = 5 };

struct json;
struct program {
  const char *code; /* exactly one of the two; bytes with a size, because they may hold NULs (EINVAL) */
  size_t code_size;
  const char *command;
  size_t command_size;
  const struct json *env; /* an object of strings, checked; NULL: none */
  const char *cwd;
  bool has_input;
};

/* What `script` and `text` pipes get. Fails with EINVAL and E2BIG. */
bool script_of(const struct program *program, struct bytes *script, struct bytes *text, struct failure *failure);
/* The script that becomes a program. `argv`: `count` strings, 0: prints that there is no shell. `kept`: descriptors
 * that stay open, ends with -1. `moved`: further redirections, "". */
bool start_of(const char *const *argv, size_t count, const struct json *env, const char *cwd, int input,
              const int *kept, const char *moved, struct bytes *script, struct failure *failure);
/* The code as Bun gets it. */
bool code_of(const char *code, size_t size, struct bytes *into, struct failure *failure);
/* The session's shell, or NULL. */
const char *session_shell(void);
bool is_bash(const char *shell);
/* Whether it is an object whose values are all strings. */
bool is_env(const struct json *value);
