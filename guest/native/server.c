/* What the guest answers.
 *
 *     GET  /health         → {"protocol": 2}
 *     POST /spares         → {"pid": n}                       one more parked shell
 *
 * Other requests are described in the files that answer them: run.c, prepared.c, files.c, watching.c, processes.c,
 * services.c, contexts.c and terminals.c. Paths are absolute. A failure is {"errno", "path", "message"} with a status
 * (failure.c). */

#include "server.h"
#include "ending.h"
#include "link.h"
#include "loop.h"
#include "runs.h"
#include "spares.h"
#include <errno.h>
#include <string.h>

static void look_ahead_later(struct later *later) { look_ahead(); }

static void get_health(struct asked *asked) {
  static struct later later;
  later_begin(&later, look_ahead_later);
  answer_format(asked, "{\"protocol\":%d}", PROTOCOL);
}

static void post_spares(struct asked *asked) {
  struct failure failure;
  pid_t pid = spare_park(&failure);
  if (pid < 0) answer_failure(asked, &failure);
  else answer_format(asked, "{\"pid\":%d}", (int)pid);
}

static const struct operation own_operations[] = {
    {"GET /health",  get_health },
    {"POST /spares", post_spares},
    {NULL,           NULL       },
};

static const struct operation *const parts[] = {
    own_operations,      runs_operations,     prepared_operations,  files_operations,    processes_operations,
    services_operations, contexts_operations, terminals_operations, watching_operations,
};

/* Whether it starts a program of the session, or code: that finds the ports and locks free that an earlier one had. */
static bool starts_program(struct asked *asked, const char *name) {
  if (strcmp(name, "POST /contexts/run") == 0) return true;
  return asked_text(asked, "spare") != NULL && strcmp(name, "POST /spares/prepare") != 0;
}

void server_answer(struct asked *asked) {
  const char *name = asked_operation(asked);
  for (size_t part = 0; part < COUNT(parts); part++)
    for (const struct operation *each = parts[part]; each != NULL && each->name != NULL; each++)
      if (strcmp(each->name, name) == 0)
        return starts_program(asked, name) ? ending_wait(asked, each->handler) : each->handler(asked);
  struct failure failure;
  fail_status(&failure, ENOSYS, 404, "no such operation");
  answer_failure(asked, &failure);
}
