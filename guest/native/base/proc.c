/* Files of processes (proc.h). */

#include "proc.h"
#include "bytes.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LARGEST = 8 << 10 };

char *proc_text(const char *process, const char *name) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%s/%s", process, name);
  char *text = memory(LARGEST + 1);
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  size_t size = 0;
  for (ssize_t count = 1; fd >= 0 && count > 0 && size < LARGEST; size += count > 0 ? (size_t)count : 0)
    count = read(fd, text + size, LARGEST - size);
  if (fd >= 0) close(fd);
  text[size] = 0;
  return text;
}

char *proc_text_of(pid_t pid, const char *name) {
  char process[16];
  snprintf(process, sizeof process, "%d", (int)pid);
  return proc_text(process, name);
}

char proc_state(const char *status) {
  const char *state = strstr(status, "\nState:\t");
  return state == NULL ? 0 : state[8];
}
