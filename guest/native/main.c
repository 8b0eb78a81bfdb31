/* The guest: the program inside a sandbox that starts processes and touches files for the host.
 *
 * The host starts it as the sandbox's first process with GUEST_ADDRESS and GUEST_SECRET, and optionally GUEST_PORT,
 * GUEST_SHELL (JSON, argv), GUEST_BUN, GUEST_BOOT, GUEST_KERNEL, GUEST_WORKSPACE and GUEST_PROCESSES. It prints nothing
 * unless it cannot start. As the first process it also ends children that others have left. */

#include "asked.h"
#include "link.h"
#include "loop.h"
#include "server.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *setting(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value == NULL || *value == '\0' ? otherwise : value;
}

static _Noreturn void refuse(const char *why) {
  fprintf(stderr, "guest: %s\n", why);
  exit(1);
}

/* The command line of a spare's shell. */
static char **shell_in(const char *text) {
  struct json *words = json_parse(text, strlen(text));
  if (!json_is(words, JSON_ARRAY) || words->count == 0) refuse("GUEST_SHELL is not a command line");
  char **shell = memory((words->count + 1) * sizeof *shell);
  for (size_t at = 0; at < words->count; at++) {
    if (words->items[at].kind != JSON_STRING) refuse("GUEST_SHELL is not a command line");
    shell[at] = copy_text(words->items[at].text);
  }
  json_free(words);
  return shell;
}

static int port_in(const char *text) {
  char *end;
  long port = strtol(text, &end, 10);
  if (*end != '\0' || port <= 0 || port > 65535) refuse("GUEST_PORT is not a port");
  return (int)port;
}

static void read_settings(void) {
  settings.address = setting("GUEST_ADDRESS", NULL);
  settings.secret = setting("GUEST_SECRET", NULL);
  if (settings.address == NULL || settings.secret == NULL) refuse("GUEST_ADDRESS and GUEST_SECRET have to be set");
  settings.port = port_in(setting("GUEST_PORT", "49"));
  settings.shell = shell_in(setting("GUEST_SHELL", "[\"/bin/dash\"]"));
  settings.bun = setting("GUEST_BUN", "/usr/local/bin/bun");
  settings.boot = setting("GUEST_BOOT", "/run/guest/boot/boot.js");
  settings.kernel = setting("GUEST_KERNEL", "/run/guest/kernel.js");
  settings.workspace = setting("GUEST_WORKSPACE", "/workspace");
  settings.processes = setting("GUEST_PROCESSES", "/var/lib/buntime/processes");
}

/* Passes on no descriptor that it was given, and has the first three, so that no other gets their numbers. */
static void guard_descriptors(void) {
  int fd;
  while ((fd = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0 && fd <= STDERR_FILENO) {
  }
  if (fd >= 0) close(fd);
  close_range(STDERR_FILENO + 1, ~0U, CLOSE_RANGE_CLOEXEC);
}

/* The guest and all programs of the session may open as many files as the host allows. */
static void raise_open_files(void) {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
}

int main(void) {
  /* Memory goes back to the system at once: thousands of guests are idle, and few are busy. */
  mallopt(M_MMAP_THRESHOLD, 64 << 10);
  mallopt(M_TRIM_THRESHOLD, 64 << 10);
  mallopt(M_TOP_PAD, 16 << 10);
  /* Whoever started the guest may have ignored some, which every program of the session would inherit. */
  for (int each = 1; each <= SIGSYS; each++) signal(each, SIG_DFL);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN); /* the limit of a file's size fails with EFBIG instead */
  guard_descriptors();
  raise_open_files();
  umask(022);
  if (chdir("/") != 0) refuse("there is no root directory");
  read_settings();
  loop_begin();
  if (!link_listen(server_answer)) {
    fprintf(stderr, "guest: %s: %s, listen %s:%d\n", error_name(errno), strerror(errno), settings.address,
            settings.port);
    return 1;
  }
  loop_run();
}
