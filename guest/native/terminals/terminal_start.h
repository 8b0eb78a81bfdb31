/* The program of a terminal (terminal_start.c). */

#pragma once

#include "asked.h"

/* It frees itself after its process has ended. */
struct terminal_program;

/* Makes the spare that the request names an interactive shell at /dev/pts/`number`. `ended` is called once with its
 * exit code, in a later turn. */
struct terminal_program *terminal_start(struct asked *asked, const char *shell, int number, const struct json *env,
                                        const char *cwd, void (*ended)(void *self, int exit_code), void *self,
                                        struct failure *failure);
/* `ended` shall not be called any more. */
void terminal_program_forget(struct terminal_program *program);
