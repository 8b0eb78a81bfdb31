/* The processes that belong together, by the cgroup that the host has given them. */

#pragma once

#include "bytes.h"
#include <sys/types.h>

struct tree {
  pid_t pid;
  char *group; /* its cgroup as seen from inside; NULL when it has none of its own: then its process group counts */
  bool is_attendant; /* signals are not for the process itself, but for all that it started */
};

void tree_begin(struct tree *tree, pid_t pid, bool is_attendant);
void tree_end(struct tree *tree);
/* Sends a signal to everything in it. Returns whether there was anything to signal. */
bool tree_signal(const struct tree *tree, int64_t number);

/* Whether the process has not ended. A zombie counts as ended. */
bool is_alive(pid_t pid);
