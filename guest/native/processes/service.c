/* One service (service.h). */

#include "service.h"
#include "attendant.h"
#include "background.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const struct pace PACE = {
    .first = 500, .longest = 60000, .steady = 30000, .grace = 5000, .killing = 2000, .beginning = 1000};

enum { FIRST_LOOK = 1, LOOK = 20 }; /* ms between two looks at whether something has begun, or still runs */
enum { MOST_DOUBLINGS = 30 };

enum state { STATE_RUNNING, STATE_RESTARTING, STATE_STOPPING, STATE_EXITED, STATE_STOPPED, STATE_LOST };
static const char *const states[] = {"running", "restarting", "stopping", "exited", "stopped", "lost"};

/* It is freed with its last reference; one is its attendant's. */
struct service {
  int references;
  struct service_wanted wanted;
  struct attendant *attendant; /* NULL when it has ended */
  struct tree tree;
  enum state state;
  pid_t pid; /* 0: none */
  int64_t restarts;
  unsigned failures; /* short lives in a row */
  int64_t started_at;
  double began;  /* on the steady clock */
  int exit_code; /* of the last end; -1: none */
  int64_t exited_at;
  bool is_pending; /* its program was asked for and has not ended */
  struct timer timer;
};

double pause_after(unsigned failures, const struct pace *pace) {
  double pause = pace->first;
  for (unsigned doubling = 0; doubling < failures && doubling < MOST_DOUBLINGS; doubling++) pause *= 2;
  return pause < pace->longest ? pause : pace->longest;
}

bool starts_again(enum restart rule, int exit_code) {
  return rule == RESTART_ALWAYS || (rule == RESTART_ON_FAILURE && exit_code != 0);
}

/* --- Memory --- */

void service_wanted_free(struct service_wanted *wanted) {
  bytes_free(&wanted->command);
  bytes_free(&wanted->program);
}

struct service *service_keep(struct service *service) {
  service->references++;
  return service;
}

void service_release(struct service *service) {
  if (service == NULL || --service->references > 0) return;
  timer_end(&service->timer);
  tree_end(&service->tree);
  service_wanted_free(&service->wanted);
  free(service);
}

/* --- Its states --- */

const char *service_name(const struct service *service) { return service->wanted.name; }

bool service_is_live(const struct service *service) { return service->state <= STATE_STOPPING; }

static bool is_quiet(const struct service *service) { return !service->is_pending && !tree_signal(&service->tree, 0); }

static bool has_begun_or_ended(const struct service *service) { return service->pid != 0 || !service->is_pending; }

void service_json(const struct service *service, struct bytes *into) {
  const struct service_wanted *wanted = &service->wanted;
  bytes_format(into, "{\"name\":\"%s\",\"revision\":\"%s\",\"state\":\"%s\",\"process\":\"%s\"", wanted->name,
               wanted->revision, states[service->state], wanted->id);
  if (service->pid == 0) bytes_text(into, ",\"pid\":null");
  else bytes_format(into, ",\"pid\":%d", (int)service->pid);
  bytes_format(into, ",\"restarts\":%lld,\"startedAt\":%lld", (long long)service->restarts,
               (long long)service->started_at);
  if (service->exit_code < 0) bytes_text(into, ",\"exitCode\":null,\"exitedAt\":null}");
  else bytes_format(into, ",\"exitCode\":%d,\"exitedAt\":%lld}", service->exit_code, (long long)service->exited_at);
}

static void start(struct service *service) {
  service->state = STATE_RUNNING;
  service->started_at = wall_time();
  service->began = now();
  service->is_pending = true;
  attendant_run(service->attendant, &service->wanted.program);
}

/* Its attendant is still there. */
static void finish(struct service *service, enum state state) {
  timer_end(&service->timer);
  service->state = state;
  attendant_end(service->attendant, service->exit_code < 0 ? 0 : service->exit_code);
}

static void start_again(struct timer *timer) {
  struct service *service = MEMBER(timer, struct service, timer);
  tree_signal(&service->tree, SIGKILL); /* what the last one left behind may hold its port */
  service->restarts++;
  start(service);
}

/* --- What its attendant tells --- */

static void program_begun(void *self, pid_t pid) { ((struct service *)self)->pid = pid; }

static void program_ended(void *self, int exit_code) {
  struct service *service = self;
  if (!service->is_pending) return; /* another program of the session wrote this */
  service->pid = 0;
  service->is_pending = false;
  service->exit_code = exit_code;
  service->exited_at = wall_time();
  if (service->state == STATE_STOPPING) finish(service, STATE_STOPPED);
  if (service->state != STATE_RUNNING) return;
  if (!starts_again(service->wanted.restart, exit_code)) return finish(service, STATE_EXITED);
  if (now() - service->began >= PACE.steady) service->failures = 0;
  service->state = STATE_RESTARTING;
  timer_begin(&service->timer, pause_after(service->failures++, &PACE), start_again);
}

static const struct told told = {.begun = program_begun, .ended = program_ended};

/* The attendant has ended. Returns the exit code that its record gets. */
static int attendant_ended(void *self, int exit_code) {
  struct service *service = self;
  attendant_close(service->attendant); /* which may tell of an end */
  timer_end(&service->timer);
  service->attendant = NULL;
  service->is_pending = false;
  service->pid = 0;
  int recorded = service->exit_code < 0 ? exit_code : service->exit_code;
  if (service_is_live(service)) {
    service->state = service->state == STATE_STOPPING ? STATE_STOPPED : STATE_LOST; /* the session has killed it */
    tree_signal(&service->tree, SIGKILL);
    recorded = exit_code;
  }
  service_release(service);
  return recorded;
}

/* --- The start --- */

static void unused_spare_ended(struct spare *spare, void *self) { spare_free(spare); }

/* Hands it to nobody: without a script it ends. */
static void give_up_spare(struct spare *spare, struct failure *failure) {
  fail(failure, errno, "the attendant cannot be heard");
  close(spare->script);
  spare->script = -1;
  spare_on_end(spare, unused_spare_ended, NULL);
}

static struct service *service_new(struct service_wanted *wanted) {
  struct service *service = memory(sizeof *service);
  service->references = 1;
  service->wanted = *wanted;
  service->exit_code = -1;
  wanted->command = wanted->program = (struct bytes){0};
  return service;
}

struct service *service_begin(int64_t pid, struct service_wanted *wanted, struct failure *failure) {
  struct service *service = service_new(wanted);
  const struct bytes *command = &service->wanted.command;
  const char *name = service->wanted.name;
  background_make_room(service->wanted.all_log_bytes);
  struct spare *spare = spare_take(pid, failure);
  if (spare != NULL && (service->attendant = attendant_begin(spare, &told, service)) == NULL) {
    give_up_spare(spare, failure);
    spare = NULL;
  }
  if (spare == NULL) {
    service_release(service);
    return NULL;
  }
  struct record *record =
      record_new(service->wanted.id, spare->pid, (const char *)command->data, command->size, name, strlen(name));
  records_put(record);
  tree_begin(&service->tree, spare->pid, true);
  background_attend(spare, record, service->wanted.log_bytes, attendant_ended, service_keep(service));
  bytes_free(&service->wanted.command);
  start(service);
  return service;
}

/* --- Waiting --- */

/* Waits until something is so. It frees itself when it has told. */
struct waiting {
  struct service *service; /* with a reference */
  bool (*is_so)(const struct service *service);
  void (*over)(struct waiting *waiting, bool is_so);
  double until, pause;
  struct timer timer;
  service_then *then;
  void *self;
};

static void look(struct timer *timer) {
  struct waiting *waiting = MEMBER(timer, struct waiting, timer);
  if (waiting->is_so(waiting->service)) return waiting->over(waiting, true);
  if (now() > waiting->until) return waiting->over(waiting, false);
  timer_begin(&waiting->timer, waiting->pause, look);
}

/* Calls `over` when it is so, or when the time is over. */
static void within(struct waiting *waiting, double milliseconds, bool (*is_so)(const struct service *),
                   void (*over)(struct waiting *, bool)) {
  waiting->until = now() + milliseconds;
  waiting->is_so = is_so;
  waiting->over = over;
  look(&waiting->timer);
}

static struct waiting *waiting_new(struct service *service, double pause, service_then *then, void *self) {
  struct waiting *waiting = memory(sizeof *waiting);
  waiting->service = service_keep(service);
  waiting->pause = pause;
  waiting->then = then;
  waiting->self = self;
  return waiting;
}

static void done(struct waiting *waiting, bool is_so) {
  service_then *then = waiting->then;
  void *self = waiting->self;
  service_release(waiting->service);
  free(waiting);
  then(self);
}

void service_begun(struct service *service, service_then *then, void *self) {
  within(waiting_new(service, FIRST_LOOK, then, self), PACE.beginning, has_begun_or_ended, done);
}

void service_clear(struct service *service, service_then *then, void *self) {
  tree_signal(&service->tree, SIGKILL);
  within(waiting_new(service, LOOK, then, self), PACE.killing, is_quiet, done);
}

static void stopped(struct waiting *waiting, bool is_so) {
  if (service_is_live(waiting->service)) finish(waiting->service, STATE_STOPPED);
  done(waiting, is_so);
}

static void had_its_grace(struct waiting *waiting, bool is_so) {
  if (is_so) return stopped(waiting, true);
  tree_signal(&waiting->service->tree, SIGKILL);
  within(waiting, PACE.killing, is_quiet, stopped);
}

static void can_be_signalled(struct waiting *waiting, bool is_so) {
  tree_signal(&waiting->service->tree, SIGTERM);
  within(waiting, PACE.grace, is_quiet, had_its_grace);
}

void service_stop(struct service *service, service_then *then, void *self) {
  if (service->state == STATE_RUNNING) service->state = STATE_STOPPING;
  else if (service_is_live(service)) finish(service, STATE_STOPPED);
  /* Before it has begun there is nothing to signal. */
  within(waiting_new(service, LOOK, then, self), PACE.grace, has_begun_or_ended, can_be_signalled);
}

void service_halt(struct service *service) {
  if (service_is_live(service)) finish(service, STATE_LOST);
}
