/* The shell of the session's image, which runs commands and terminals. */

#include "spares.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Bash, or /bin/sh where there is no bash. Asked each time: a session may install one. */
const char *session_shell(void) {
  static const char *const places[] = {"/usr/bin/bash", "/bin/bash", "/usr/local/bin/bash", "/bin/sh"};
  for (size_t at = 0; at < COUNT(places); at++)
    if (access(places[at], F_OK) == 0) return places[at];
  return NULL;
}

bool is_bash(const char *shell) {
  const char *slash = strrchr(shell, '/');
  return strcmp(slash == NULL ? shell : slash + 1, "bash") == 0;
}
