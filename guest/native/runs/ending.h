/* Tells that a program is over as soon as its threads end, before the kernel has taken its memory apart. */

#pragma once

#include "asked.h"
#include "loop.h"

struct ending;

/* Calls `over` once, with the status as of a child, when the program of a child has ended: perhaps before the child is
 * reaped, and perhaps not at all. NULL when the kernel cannot tell, or the program has one thread. */
struct ending *ending_begin(pid_t pid, void (*over)(void *self, int status), void *self);
/* Nothing is called any more. NULL is fine. */
void ending_free(struct ending *ending);

/* Calls the handler when no program is left that `ending_leave` named: what it held is free then. At once if there is
 * none. It waits for a limited time. */
void ending_wait(struct asked *asked, void (*handler)(struct asked *));
/* The program is over, but the process is not reaped. */
void ending_leave(pid_t pid);
