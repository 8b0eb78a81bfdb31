/* Services: processes of the session that are started again by their rule. What the host can ask for.
 *
 *     POST /services/start?spare=   {id, name, command, env, cwd, restart, revision, logBytes, allLogBytes} → service
 *     GET  /services                → {"services": [service]}, in the order of their starts
 *     POST /services/stop?name=&forget=  → {}, when nothing of it runs any more; with `forget`, it is not listed either
 *
 * A service is {name, revision, state, process, pid, restarts, startedAt, exitCode, exitedAt} (service.h). `process` is
 * a process (processes.c), whose log goes on over restarts. It ends when the service is not started again.
 *
 * The host is not asked for a restart. It starts a service anew whose state is `lost`: its attendant was killed. */

#include "services.h"
#include "asked.h"
#include "attendant.h"
#include "service.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 32 };                  /* twice what the host has ever declared */
enum { LONGEST_COMMAND = 64 << 10 }; /* bytes, so that it fits into one argument */

static struct {
  struct service *all[MOST]; /* in the order of their starts */
  size_t count;
} services;

static struct service *named(const char *name) {
  for (size_t at = 0; at < services.count; at++)
    if (strcmp(service_name(services.all[at]), name) == 0) return services.all[at];
  return NULL;
}

/* Nothing when it is not among them. */
static void forget(struct service *service) {
  size_t at = 0;
  while (at < services.count && services.all[at] != service) at++;
  if (at == services.count) return;
  services.count--;
  memmove(&services.all[at], &services.all[at + 1], (services.count - at) * sizeof *services.all);
  service_release(service);
}

void services_halt(void) {
  for (size_t at = 0; at < services.count; at++) service_halt(services.all[at]);
}

/* --- The body of a start, checked --- */

static bool is_low(char byte) { return (byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9'); }

static bool is_service_name(const struct json *name) {
  if (!json_is(name, JSON_STRING) || name->size == 0 || name->size > LONGEST_SERVICE_NAME) return false;
  for (size_t at = 0; at < name->size; at++)
    if (!is_low(name->text[at]) && !(at > 0 && name->text[at] == '-')) return false;
  return true;
}

static bool is_revision(const struct json *revision) {
  return json_is(revision, JSON_STRING) && revision->size > 0 && revision->size <= LONGEST_REVISION &&
         strspn(revision->text, "0123456789abcdef") == revision->size;
}

static bool restart_in(const struct json *body, enum restart *into) {
  static const char *const names[] = {"always", "on-failure", "never"};
  const struct json *restart = json_get(body, "restart");
  for (size_t at = 0; json_is(restart, JSON_STRING) && at < COUNT(names); at++) {
    if (restart->size != strlen(names[at]) || memcmp(restart->text, names[at], restart->size) != 0) continue;
    *into = (enum restart)at;
    return true;
  }
  return false;
}

/* Fails with EINVAL and E2BIG. */
static bool wanted_read(struct service_wanted *wanted, const struct json *body, struct failure *failure) {
  struct started started;
  *wanted = (struct service_wanted){0};
  if (!started_read(&started, body, failure)) return false;
  const struct json *command = started.command, *revision = json_get(body, "revision");
  if (command == NULL || command->size == 0 || command->size > LONGEST_COMMAND)
    return has_wrong_form(failure, "command");
  if (!is_service_name(started.name)) return has_wrong_form(failure, "name");
  if (!restart_in(body, &wanted->restart)) return has_wrong_form(failure, "restart");
  if (!is_revision(revision)) return has_wrong_form(failure, "revision");
  if (memchr(command->text, 0, command->size) != NULL) return has_wrong_form(failure, "command");
  memcpy(wanted->id, started.id, PROCESS_ID);
  memcpy(wanted->name, started.name->text, started.name->size);
  memcpy(wanted->revision, revision->text, revision->size);
  wanted->log_bytes = started.log_bytes;
  wanted->all_log_bytes = started.all_log_bytes;
  bytes_add(&wanted->command, command->text, command->size);
  if (program_of(&started, &wanted->program, failure)) return true;
  service_wanted_free(wanted);
  return false;
}

/* --- Starting --- */

/* A request. It is freed by its answer. */
struct starting {
  struct asked *asked;
  int64_t spare;
  struct service_wanted wanted;
  struct service *before, *service; /* each with a reference, or NULL */
};

static void free_starting(struct starting *starting) {
  service_wanted_free(&starting->wanted);
  service_release(starting->before);
  service_release(starting->service);
  free(starting);
}

static void refuse(struct starting *starting, struct failure *failure) {
  answer_failure(starting->asked, failure);
  free_starting(starting);
}

static void has_begun(void *self) {
  struct starting *starting = self;
  struct bytes json = {0};
  service_json(starting->service, &json);
  answer_json(starting->asked, &json);
  free_starting(starting);
}

static void start_cleared(void *self) {
  struct starting *starting = self;
  struct failure failure;
  if (named(starting->wanted.name) != starting->before) {
    fail(&failure, EEXIST, "the service is being started");
    return refuse(starting, &failure);
  }
  if (starting->before != NULL) forget(starting->before);
  if (services.count >= MOST) {
    fail_status(&failure, EAGAIN, 409, "too many services");
    return refuse(starting, &failure);
  }
  struct service *service = service_begin(starting->spare, &starting->wanted, &failure);
  if (service == NULL) return refuse(starting, &failure);
  services.all[services.count++] = service;
  starting->service = service_keep(service);
  service_begun(service, has_begun, starting);
}

static void start_service(struct asked *asked, const struct json *body) {
  struct failure failure;
  struct starting *starting = memory(sizeof *starting);
  starting->asked = asked;
  if (!asked_number(asked, "spare", -1, &starting->spare, &failure) || !wanted_read(&starting->wanted, body, &failure))
    return refuse(starting, &failure);
  struct service *before = named(starting->wanted.name);
  if (before == NULL) return start_cleared(starting);
  if (service_is_live(before)) {
    fail(&failure, EEXIST, "the service runs");
    return refuse(starting, &failure);
  }
  starting->before = service_keep(before);
  service_clear(before, start_cleared, starting); /* what it left behind may hold its port */
}

static void post_start(struct asked *asked) { asked_json(asked, start_service); }

/* --- Listing and stopping --- */

static void get_services(struct asked *asked) {
  struct bytes json = {0};
  bytes_text(&json, "{\"services\":[");
  for (size_t at = 0; at < services.count; at++) {
    if (at > 0) bytes_byte(&json, ',');
    service_json(services.all[at], &json);
  }
  bytes_text(&json, "]}");
  answer_json(asked, &json);
}

static void is_stopped(void *self) {
  struct asked *asked = self;
  struct service *service = asked_self(asked);
  if (asked_flag(asked, "forget")) forget(service);
  service_release(service);
  answer_empty(asked);
}

static void post_stop(struct asked *asked) {
  const char *name = asked_text(asked, "name");
  struct service *service = name == NULL ? NULL : named(name);
  if (service == NULL) return answer_empty(asked);
  asked_keep(asked, service_keep(service));
  service_stop(service, is_stopped, asked);
}

const struct operation services_operations[] = {
    {"POST /services/start", post_start  },
    {"GET /services",        get_services},
    {"POST /services/stop",  post_stop   },
    {NULL,                   NULL        },
};
