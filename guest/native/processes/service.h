/* One service: a program that is started again by its rule, with longer and longer pauses while it keeps ending. */

#pragma once

#include "ids.h"
#include "starting.h"

enum restart { RESTART_ALWAYS, RESTART_ON_FAILURE, RESTART_NEVER };

/* In milliseconds. */
struct pace {
  double first; /* before the first restart; doubles with each one */
  double longest;
  double steady;    /* after which a program counts as having worked: the pauses begin anew */
  double grace;     /* between SIGTERM and SIGKILL at a stop */
  double killing;   /* that SIGKILL may take */
  double beginning; /* that a start waits for the program to begin */
};
extern const struct pace PACE;

/* The pause before the next start, after so many short lives in a row. */
double pause_after(unsigned failures, const struct pace *pace);
/* Whether a program that ended with this exit code is started again. */
bool starts_again(enum restart rule, int exit_code);

enum { LONGEST_SERVICE_NAME = 63, LONGEST_REVISION = 64 };

struct service_wanted {
  char id[PROCESS_ID + 1], name[LONGEST_SERVICE_NAME + 1];
  char revision[LONGEST_REVISION + 1]; /* what the host calls this form of the service */
  enum restart restart;
  struct bytes command;
  struct bytes program; /* for the attendant: see program_of */
  int64_t log_bytes, all_log_bytes;
};
void service_wanted_free(struct service_wanted *wanted);

struct service;

/* Starts it in this spare. Takes the memory of `wanted`, also when it fails: ESRCH. With one reference. */
struct service *service_begin(int64_t spare, struct service_wanted *wanted, struct failure *failure);
struct service *service_keep(struct service *service);
void service_release(struct service *service);

const char *service_name(const struct service *service);
/* {"name","revision","state","process","pid","restarts","startedAt","exitCode","exitedAt"} */
void service_json(const struct service *service, struct bytes *into);
/* Whether it is started again when its program ends, or runs. */
bool service_is_live(const struct service *service);

/* Each calls `then` once, at once or later. The caller keeps the service until then. */
typedef void service_then(void *self);
/* When its program has begun, or soon after. */
void service_begun(struct service *service, service_then *then, void *self);
/* Ends the program and all that it left behind: when nothing of it runs, or soon after SIGKILL. */
void service_stop(struct service *service, service_then *then, void *self);
/* Ends at once what it left behind after its end, and with that a halted attendant: when nothing of it runs, or soon
 * after SIGKILL. */
void service_clear(struct service *service, service_then *then, void *self);
/* It is about to be ended with the session's other processes, which is not for it to undo. */
void service_halt(struct service *service);
