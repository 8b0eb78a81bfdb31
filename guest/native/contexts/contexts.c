/* Contexts: long-lived Bun processes that keep variables between runs.
 *
 *     POST /contexts/create?spare=    {id, env, cwd} → {"context": record | null, "said": text}
 *     GET  /contexts                  → {"contexts": [record]}, oldest first
 *     POST /contexts/run?id=          {code, maxOutput, live} → frames (frames.h), the last one an `End`
 *     POST /contexts/interrupt?id=&reason=    → {"idle": bool}, when the run has ended or after GRACE
 *     POST /contexts/delete?id=       → {"known": bool}
 *     POST /contexts/ending           → {}; contexts that end from now on end by deep sleep
 */

#include "context_kernel.h"
#include "context_records.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { START = 8000 };              /* ms that a kernel has to say hello */
enum { GRACE = 2000 };              /* ms that a run has to end after an interrupt */
enum { AGAIN = 250 };               /* ms between two signals */
enum { LOST = 200 };                /* records of lost contexts that are kept */
enum { DEFAULT_OUTPUT = 10 << 20 }; /* bytes of each stream */

/* A context that runs or starts. It is freed when its kernel has ended, does not start, or is forgotten. */
struct context {
  struct context *next; /* of those that run */
  char id[CONTEXT_ID + 1];
  struct kernel *kernel;
  struct asked *asked; /* who waits for it to start; NULL: it runs */
  char *working_dir;
  struct timer patience;
};

/* A request that waits until a run has ended. It is freed by its answer. */
struct interruption {
  struct interruption *next;
  struct asked *asked;
  struct kernel *kernel;
  char *reason;
  double deadline;
  struct timer again;
};

static struct {
  struct context *live;
  struct interruption *interruptions;
} contexts;

static struct context *find_live(const char *id) {
  struct context *context = contexts.live;
  while (context != NULL && strcmp(context->id, id) != 0) context = context->next;
  return context;
}

static void free_context(struct context *context) {
  timer_end(&context->patience);
  free(context->working_dir);
  free(context);
}

/* Its kernel may still run, and nobody cares how it ends. */
static void forget_live(struct context *context) {
  for (struct context **at = &contexts.live; *at != NULL; at = &(*at)->next)
    if (*at == context) {
      *at = context->next;
      break;
    }
  context->kernel->self = NULL;
  free_context(context);
}

static void answer_wrong(struct asked *asked, const char *what) {
  struct failure failure;
  fail(&failure, EINVAL, "%s has the wrong form", what);
  answer_failure(asked, &failure);
}

/* NULL: the request is answered. */
static const char *id_in(struct asked *asked) {
  const char *id = asked_text(asked, "id");
  if (id != NULL && is_context_id(id, strlen(id))) return id;
  answer_wrong(asked, "the id");
  return NULL;
}

static bool is_loaded(struct asked *asked) {
  struct failure failure = {0};
  if (context_records_load(&failure)) return true;
  answer_failure(asked, &failure);
  return false;
}

/* --- Starting one --- */

static void answer_started(struct context *context) {
  struct context_record *record = context_record_make(context->id, context->working_dir);
  context_record_write(record);
  struct bytes body = {0};
  bytes_text(&body, "{\"context\":");
  context_record_put(record, &body);
  bytes_text(&body, ",\"said\":\"\"}");
  context_records_keep_lost(LOST);
  answer_json(context->asked, &body);
  context->asked = NULL;
}

static void met(struct kernel *kernel) {
  struct context *context = kernel->self;
  timer_end(&context->patience);
  struct context *before = find_live(context->id);
  if (before != NULL) forget_live(before);
  context->next = contexts.live;
  contexts.live = context;
  answer_started(context);
}

/* The kernel has ended or is too slow. */
static void give_up(struct context *context) {
  struct kernel *kernel = context->kernel;
  kernel_signal(kernel, SIGKILL);
  caller_forget(&kernel->caller);
  struct bytes said = {0}, body = {0};
  kernel_said(kernel, &said);
  bytes_text(&body, "{\"context\":null,\"said\":");
  json_put_string(&body, said.data, said.size);
  bytes_byte(&body, '}');
  bytes_free(&said);
  kernel->self = NULL;
  answer_json(context->asked, &body);
  free_context(context);
}

static void is_late(struct timer *timer) { give_up(MEMBER(timer, struct context, patience)); }

static void ended(struct kernel *kernel, int exit_code) {
  struct context *context = kernel->self;
  if (context == NULL) return;
  if (context->asked != NULL) {
    give_up(context);
    return;
  }
  struct context_record *record = context_record_find(context->id);
  if (record != NULL) {
    const char *reason = record->ending != NULL ? record->ending
                         : kernel->fate != NULL ? kernel->fate
                         : exit_code > 128      ? "killed"
                                                : "exited";
    context_record_set(&record->lost, reason);
    context_record_write(record);
  }
  forget_live(context);
}

static void idle(struct kernel *kernel);
static const struct kernel_user user = {.met = met, .ended = ended, .idle = idle};

static bool make_script(const struct json *body, struct kernel *kernel, struct bytes *script, struct failure *failure) {
  const char *name = line_address(failure);
  if (name == NULL) return false;
  const char *argv[] = {settings.bun, "--install=fallback", settings.kernel, name, kernel->caller.secret};
  const char *cwd = json_text(json_get(body, "cwd"));
  static const int none[] = {-1};
  return start_of(argv, COUNT(argv), json_get(body, "env"), cwd, SPARE_NOTHING, none, "", script, failure);
}

/* The spare with the number in the request; a text that is none names no spare. */
static struct spare *take_spare(struct asked *asked, struct failure *failure) {
  struct failure unread = {0};
  int64_t pid = -1;
  if (!asked_number(asked, "spare", -1, &pid, &unread)) {
    failure_free(&unread);
    pid = -1;
  }
  return spare_take(pid, failure);
}

static bool start(struct asked *asked, const struct json *body, struct failure *failure) {
  struct context *context = memory(sizeof *context);
  struct kernel *kernel = kernel_new(&user, context);
  struct bytes script = {0};
  struct spare *spare = NULL;
  if (make_script(body, kernel, &script, failure)) spare = take_spare(asked, failure);
  if (spare == NULL) {
    bytes_free(&script);
    kernel_free(kernel);
    free(context);
    return false;
  }
  memcpy(context->id, json_text(json_get(body, "id")), CONTEXT_ID);
  context->kernel = kernel;
  context->asked = asked;
  context->working_dir = copy_text(json_text(json_get(body, "cwd")));
  timer_begin(&context->patience, START, is_late);
  kernel_begin(kernel, spare, &script);
  return true;
}

static bool is_path(const struct json *value) {
  return json_is(value, JSON_STRING) && value->size > 0 && value->text[0] == '/' && strlen(value->text) == value->size;
}

static void create(struct asked *asked, const struct json *body) {
  const struct json *id = json_get(body, "id"), *env = json_get(body, "env");
  if (!json_is(id, JSON_STRING) || !is_context_id(id->text, id->size)) return answer_wrong(asked, "the id");
  if (env != NULL && !is_env(env)) return answer_wrong(asked, "env");
  if (!is_path(json_get(body, "cwd"))) return answer_wrong(asked, "cwd");
  if (!is_loaded(asked)) return;
  struct failure failure = {0};
  if (context_record_find(id->text) != NULL) {
    fail(&failure, EEXIST, "the context exists already");
    failure.path = copy_text(id->text);
    answer_failure(asked, &failure);
  } else if (!start(asked, body, &failure)) {
    answer_failure(asked, &failure);
  }
}

static void post_create(struct asked *asked) { asked_json(asked, create); }

/* --- Runs --- */

static void answer_no_run(struct asked *asked, const char *outcome, const char *reason) {
  struct bytes end = {0}, frame = {0};
  bytes_format(&end, "{\"outcome\":\"%s\"", outcome);
  if (reason != NULL) {
    bytes_text(&end, ",\"reason\":");
    json_put_text(&end, reason);
  }
  bytes_byte(&end, '}');
  frame_add(&frame, 'x', end.data, end.size);
  bytes_free(&end);
  answer_bytes(asked, NULL, &frame);
}

/* The frame with the number and the code of a run. */
static struct bytes frame_of(int64_t number, const struct json *code) {
  struct bytes frame = {0};
  bytes_room(&frame, FRAME_HEADER + code->size + code->size / 8 + 64);
  frame.size = FRAME_HEADER;
  bytes_format(&frame, "{\"n\":%lld,\"code\":", (long long)number);
  json_put_string(&frame, code->text, code->size);
  bytes_byte(&frame, '}');
  frame_seal(frame.data, frame.size, 'r');
  return frame;
}

static void run(struct asked *asked, const struct json *body) {
  const struct json *code = json_get(body, "code"), *limit = json_get(body, "maxOutput");
  int64_t max_output = DEFAULT_OUTPUT;
  if (!json_is(code, JSON_STRING) || (limit != NULL && !json_integer(limit, &max_output)))
    return answer_wrong(asked, "the body");
  const char *id = id_in(asked);
  if (id == NULL || !is_loaded(asked)) return;
  struct context_record *record = context_record_find(id);
  if (record == NULL) return answer_no_run(asked, "absent", NULL);
  struct context *context = find_live(id);
  if (context == NULL) return answer_no_run(asked, "lost", record->lost != NULL ? record->lost : "runtime_ended");
  if (kernel_is_busy(context->kernel)) return answer_no_run(asked, "busy", NULL);
  record->runs++; /* on disk with the next change */
  struct bytes frame = frame_of(record->runs, code);
  kernel_run(context->kernel, asked, &frame, max_output, json_is(json_get(body, "live"), JSON_TRUE));
}

static void post_run(struct asked *asked) { asked_json(asked, run); }

/* --- Interrupts --- */

static void finish(struct interruption *interruption) {
  for (struct interruption **at = &contexts.interruptions; *at != NULL; at = &(*at)->next)
    if (*at == interruption) {
      *at = interruption->next;
      break;
    }
  bool is_idle = !kernel_is_busy(interruption->kernel);
  if (is_idle) kernel_set_fate(interruption->kernel, NULL);
  timer_end(&interruption->again);
  answer_format(interruption->asked, "{\"idle\":%s}", is_idle ? "true" : "false");
  free(interruption->reason);
  free(interruption);
}

static void step(struct timer *timer) {
  struct interruption *interruption = MEMBER(timer, struct interruption, again);
  if (!kernel_is_busy(interruption->kernel) || now() >= interruption->deadline) return finish(interruption);
  timer_begin(&interruption->again, AGAIN, step);
  kernel_set_fate(interruption->kernel, interruption->reason);
  kernel_interrupt(interruption->kernel);
}

static void idle(struct kernel *kernel) {
  for (struct interruption *each = contexts.interruptions, *next; each != NULL; each = next) {
    next = each->next;
    if (each->kernel == kernel) finish(each);
  }
}

static void post_interrupt(struct asked *asked) {
  const char *id = id_in(asked), *reason = asked_text(asked, "reason");
  if (id == NULL) return;
  struct context *context = find_live(id);
  if (context == NULL) return answer_format(asked, "{\"idle\":true}");
  struct interruption *interruption = memory(sizeof *interruption);
  *interruption = (struct interruption){.next = contexts.interruptions, .asked = asked, .kernel = context->kernel};
  interruption->reason = copy_text(reason == NULL ? "killed" : reason);
  interruption->deadline = now() + GRACE;
  contexts.interruptions = interruption;
  step(&interruption->again);
}

/* --- The rest --- */

static void get_contexts(struct asked *asked) {
  if (!is_loaded(asked)) return;
  struct bytes body = {0};
  bytes_text(&body, "{\"contexts\":");
  context_records_put(&body);
  bytes_byte(&body, '}');
  answer_json(asked, &body);
}

static void post_delete(struct asked *asked) {
  const char *id = id_in(asked);
  if (id == NULL || !is_loaded(asked)) return;
  bool was_known;
  struct failure failure = {0};
  if (!context_record_delete(id, &was_known, &failure)) return answer_failure(asked, &failure);
  struct context *context = find_live(id);
  if (context != NULL) {
    kernel_signal(context->kernel, SIGKILL);
    forget_live(context);
  }
  answer_format(asked, "{\"known\":%s}", was_known ? "true" : "false");
}

static void post_ending(struct asked *asked) {
  for (struct context *context = contexts.live; context != NULL; context = context->next) {
    struct context_record *record = context_record_find(context->id);
    if (record == NULL) continue;
    context_record_set(&record->ending, "deep_sleep");
    context_record_write(record);
  }
  answer_empty(asked);
}

const struct operation contexts_operations[] = {
    {"POST /contexts/create",    post_create   },
    {"GET /contexts",            get_contexts  },
    {"POST /contexts/run",       post_run      },
    {"POST /contexts/interrupt", post_interrupt},
    {"POST /contexts/delete",    post_delete   },
    {"POST /contexts/ending",    post_ending   },
    {NULL,                       NULL          }
};
