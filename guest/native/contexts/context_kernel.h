/* The guest's side of one kernel (kernel/main.ts): its output, its connection, and the run in it (context_kernel.c). */

#pragma once

#include "context_line.h"
#include "context_stream.h"
#include "runs.h"

struct running;
struct kernel;

/* Who has a kernel. */
struct kernel_user {
  void (*met)(struct kernel *kernel);
  /* The process has ended. The kernel must not be used after it. */
  void (*ended)(struct kernel *kernel, int exit_code);
  /* The run under way has ended; after `ended` when that was why. */
  void (*idle)(struct kernel *kernel);
};

/* It frees itself after its process has ended and its pipes are closed. */
struct kernel {
  const struct kernel_user *user;
  void *self; /* the user's own */
  char *fate; /* why the run ends, while it is being ended. NULL */
  struct caller caller;
  struct spare *spare;
  struct context_stream streams[2];
  struct reader readers[2];
  struct writer script;
  struct running *running;
  bool has_ended;
  struct later freeing;
};

/* One that calls with this secret. `caller` is expected from now on. */
struct kernel *kernel_new(const struct kernel_user *user, void *self);
void kernel_free(struct kernel *kernel); /* only before kernel_begin */
/* Takes the spare, and the memory of the script. */
void kernel_begin(struct kernel *kernel, struct spare *spare, struct bytes *script);
static inline bool kernel_is_busy(const struct kernel *kernel) { return kernel->running != NULL; }
void kernel_signal(struct kernel *kernel, int signal);
void kernel_interrupt(struct kernel *kernel);
void kernel_set_fate(struct kernel *kernel, const char *fate); /* or NULL */
/* Runs the code: the memory of a whole `r` frame, which it takes. It must not be busy. Answers `asked`. */
void kernel_run(struct kernel *kernel, struct asked *asked, struct bytes *frame, int64_t max_output, bool live);
/* Adds what the process has written so far, for people. */
void kernel_said(struct kernel *kernel, struct bytes *into);
