/* A shell that stays in the cgroup of a service and starts its program as often as it is told.
 *
 * The guest cannot start anything in a cgroup of the host's, but a process in it can. So the spare of a service becomes
 * no program: it forks one, waits for it, tells how it ended, and reads on. It dies last, at the end of its scripts. */

#pragma once

#include "spares.h"
#include "starting.h"

struct attendant;

/* The attendant may not be closed in these calls. */
struct told {
  void (*begun)(void *self, pid_t pid);
  void (*ended)(void *self, int exit_code);
};

/* Takes `script` and `text` of the spare. NULL with errno, and then takes nothing. */
struct attendant *attendant_begin(struct spare *spare, const struct told *told, void *self);
/* Starts the program once: see program_of. */
void attendant_run(struct attendant *attendant, const struct bytes *program);
/* Lets the shell end with this exit code, once its program has ended. */
void attendant_end(struct attendant *attendant, int exit_code);
/* The shell has ended. Takes what it told before, and frees itself. */
void attendant_close(struct attendant *attendant);

/* What attendant_run takes: enters the directory, sets the environment, becomes the command. Fails with EINVAL and
 * E2BIG. */
bool program_of(const struct started *started, struct bytes *program, struct failure *failure);
