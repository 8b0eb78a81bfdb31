/* What the kernel says of a process in `/proc`.
 *
 * The session may have mounted something else there. So nothing is read for long, and what is read is not trusted. */

#pragma once

#include <sys/types.h>

/* The file `/proc/PROCESS/NAME`, at most 8 KiB of it. "" for what cannot be read. To be freed. */
char *proc_text(const char *process, const char *name);
char *proc_text_of(pid_t pid, const char *name);
/* The letter of the state in the text of `/proc/PID/status`. 0: there is none. */
char proc_state(const char *status);
