/* The processes that belong together (trees.h).
 *
 * The session may have mounted something else over /proc. So what it says leads to signals for processes of the session
 * alone. */

#include "trees.h"
#include "proc.h"
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  ROUNDS = 20,     /* because processes may fork while they are killed */
  LONGEST_PID = 7, /* digits */
  MOST = 1 << 16   /* processes */
};

struct members {
  pid_t *pids;
  size_t count, room;
};

bool is_alive(pid_t pid) {
  char *status = proc_text_of(pid, "status");
  char letter = proc_state(status);
  free(status);
  return letter != 0 && letter != 'Z' && letter != 'X';
}

static bool is_in_group(pid_t pid, const char *group) {
  char *own = proc_text_of(pid, "cgroup");
  bool is_in = strcmp(own, group) == 0;
  free(own);
  return is_in;
}

/* By `/proc/PID/stat`, whose second field may have spaces and parentheses: `PID (NAME) STATE PARENT GROUP`. */
static bool is_in_process_group(pid_t pid, pid_t group) {
  char *stat = proc_text_of(pid, "stat");
  const char *end = strrchr(stat, ')');
  int found = -1;
  if (end == NULL || sscanf(end + 1, " %*c %*d %d", &found) != 1) found = -1;
  free(stat);
  return found == group;
}

static bool is_member(const struct tree *tree, pid_t pid) {
  if (pid == getpid() || (tree->is_attendant && pid == tree->pid)) return false;
  bool is_in = tree->group == NULL ? is_in_process_group(pid, tree->pid) : is_in_group(pid, tree->group);
  return is_in && is_alive(pid);
}

/* 0 for a name that is no number. */
static pid_t pid_of(const char *name) {
  size_t digits = strspn(name, "0123456789");
  return digits == 0 || digits > LONGEST_PID || name[digits] != 0 ? 0 : (pid_t)atoi(name);
}

static void add_member(struct members *members, pid_t pid) {
  if (members->count == members->room) {
    members->room = 2 * members->room + 16;
    members->pids = more_memory(members->pids, members->room * sizeof *members->pids);
  }
  members->pids[members->count++] = pid;
}

/* All of them are found before the first is signalled. */
static void find_members(const struct tree *tree, struct members *members) {
  members->count = 0;
  DIR *directory = opendir("/proc");
  if (directory == NULL) return;
  for (struct dirent *entry; members->count < MOST && (entry = readdir(directory)) != NULL;) {
    pid_t pid = pid_of(entry->d_name);
    if (pid > 0 && is_member(tree, pid)) add_member(members, pid);
  }
  closedir(directory);
}

bool tree_signal(const struct tree *tree, int64_t number) {
  if (number < 0 || number > NSIG) return false;
  if (tree->group == NULL && !tree->is_attendant) return kill(-tree->pid, (int)number) == 0;
  struct members members = {0};
  bool any = false;
  for (int round = 0; round < (number == SIGKILL ? ROUNDS : 1); round++) {
    find_members(tree, &members);
    if (members.count == 0) break;
    for (size_t at = 0; at < members.count; at++) any |= kill(members.pids[at], (int)number) == 0;
  }
  free(members.pids);
  return any;
}

void tree_begin(struct tree *tree, pid_t pid, bool is_attendant) {
  char *group = proc_text_of(pid, "cgroup"), *own = proc_text("self", "cgroup");
  bool has_group = *group != 0 && strcmp(group, own) != 0;
  *tree = (struct tree){.pid = pid, .group = has_group ? copy_text(group) : NULL, .is_attendant = is_attendant};
  free(group);
  free(own);
}

void tree_end(struct tree *tree) {
  free(tree->group);
  tree->group = NULL;
}
