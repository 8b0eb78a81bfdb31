/* Background processes: what the host can ask for.
 *
 *     POST /processes/start?spare=    {id, code | command, env, cwd, name, stdin, timeout, logBytes, allLogBytes} →
 * record GET  /processes?limit=&offset=  → {"processes": [record], "total": n}, newest first GET  /processes/one?id= →
 * {"process": record | null} POST /processes/input?id=&close=      bytes → {"outcome": "sent" | "closed" | "busy" |
 * "ended" | "absent"} POST /processes/signal?id=&number=    → {"outcome": "sent" | "ended" | "absent"} GET
 * /processes/logs?id=&cursor=&limit=&follow=       → frames: following.h POST /processes/ends?follow=    {"ids": [id]}
 * → frames: ends.h POST /processes/ending?reason=  → {}; processes that run now end for this reason POST
 * /processes/settle          → {}, when the end of every ended process is recorded
 *
 * Services (services.c) are processes that are started again when they end. */

#include "processes.h"
#include "background.h"
#include "ends.h"
#include "following.h"
#include "services.h"
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum {
  ENDING = 30000, /* ms for which the reason holds; after that the sleep did not happen */
  SETTLE = 500,   /* ms */
  LOOK = 2,       /* ms between two looks at what has ended */
  PAGE = 50       /* records */
};

static const char *id_in(struct asked *asked) {
  const char *id = asked_text(asked, "id");
  return id == NULL ? "" : id;
}

static void answer_outcome(struct asked *asked, const char *outcome) {
  answer_format(asked, "{\"outcome\":\"%s\"}", outcome);
}

static void start_process(struct asked *asked, const struct json *body) {
  struct failure failure;
  struct started started;
  int64_t spare;
  const struct record *record = NULL;
  if (asked_number(asked, "spare", -1, &spare, &failure) && started_read(&started, body, &failure))
    record = background_start(spare, &started, &failure);
  if (record == NULL) return answer_failure(asked, &failure);
  struct bytes json = {0};
  record_json(record, &json);
  answer_json(asked, &json);
}

static void post_start(struct asked *asked) { asked_json(asked, start_process); }

static void get_processes(struct asked *asked) {
  struct failure failure;
  int64_t limit, offset;
  if (!asked_number(asked, "limit", PAGE, &limit, &failure) || !asked_number(asked, "offset", 0, &offset, &failure))
    return answer_failure(asked, &failure);
  size_t total;
  process_id *ids = records_ids(&total);
  struct bytes json = {0};
  bytes_text(&json, "{\"processes\":[");
  bool is_first = true;
  for (int64_t at = offset; at < (int64_t)total && at - offset < limit; at++) {
    struct record *record = records_find(ids[(int64_t)total - 1 - at]);
    if (record == NULL) continue;
    if (!is_first) bytes_byte(&json, ',');
    is_first = false;
    record_json(record, &json);
    record_done(record);
  }
  free(ids);
  bytes_format(&json, "],\"total\":%zu}", total);
  answer_json(asked, &json);
}

static void get_one(struct asked *asked) {
  struct bytes json = {0};
  struct record *record = records_find(id_in(asked));
  bytes_text(&json, "{\"process\":");
  if (record == NULL) bytes_text(&json, "null");
  else record_json(record, &json);
  record_done(record);
  bytes_byte(&json, '}');
  answer_json(asked, &json);
}

static const char *sent(const char *id, const struct record *record, const uint8_t *bytes, size_t size, bool close) {
  struct background *process = background_find(id);
  if (record == NULL) return "absent";
  if (record->status != STATUS_RUNNING || process == NULL) return "ended";
  struct input *input = background_input(process);
  return input == NULL ? "closed" : input_send(input, bytes, size, close);
}

static void take_input(struct asked *asked, const uint8_t *bytes, size_t size) {
  const char *id = id_in(asked);
  struct record *record = records_find(id);
  const char *outcome = sent(id, record, bytes, size, asked_flag(asked, "close"));
  record_done(record);
  answer_outcome(asked, outcome);
}

static void post_input(struct asked *asked) { asked_whole(asked, take_input); }

static void post_signal(struct asked *asked) {
  struct failure failure;
  int64_t number;
  if (!asked_number(asked, "number", SIGTERM, &number, &failure)) return answer_failure(asked, &failure);
  const char *id = id_in(asked);
  struct record *record = records_find(id);
  struct background *process = record == NULL ? NULL : background_find(id);
  /* What a process left behind can be killed after its end. */
  bool is_sent = process != NULL && background_signal(process, number);
  bool is_running = record != NULL && record->status == STATUS_RUNNING;
  record_done(record);
  answer_outcome(asked, record == NULL ? "absent" : is_sent || is_running ? "sent" : "ended");
}

/* --- Deep sleep --- */

static void mark(enum reason reason) {
  for (struct record *record = records_first(), *next; record != NULL; record = next) {
    next = record_next(record);
    if (record->status != STATUS_RUNNING) continue;
    record->ending = reason;
    records_put(record);
  }
}

static void did_not_end(struct timer *timer) { mark(REASON_NONE); }

static void post_ending(struct asked *asked) {
  static struct timer timer;
  const char *reason = asked_text(asked, "reason");
  if (reason == NULL || strcmp(reason, "deep_sleep") != 0) return answer_error(asked, EINVAL, "reason");
  services_halt();
  mark(REASON_DEEP_SLEEP);
  timer_begin(&timer, ENDING + 1, did_not_end);
  answer_empty(asked);
}

/* A request that waits until the end of each ended process is recorded. It is freed by its answer. */
struct settling {
  struct asked *asked;
  double until;
  struct timer timer;
};

static bool has_unrecorded_end(void) {
  for (const struct record *record = records_first(); record != NULL; record = record_next(record))
    if (record->status == STATUS_RUNNING && !is_alive(record->pid)) return true;
  return false;
}

static void look(struct timer *timer) {
  struct settling *settling = MEMBER(timer, struct settling, timer);
  if (now() < settling->until && has_unrecorded_end()) return timer_begin(timer, LOOK, look);
  answer_empty(settling->asked);
  free(settling);
}

static void post_settle(struct asked *asked) {
  struct settling *settling = memory(sizeof *settling);
  settling->asked = asked;
  settling->until = now() + SETTLE;
  look(&settling->timer);
}

const struct operation processes_operations[] = {
    {"POST /processes/start",  post_start   },
    {"GET /processes",         get_processes},
    {"GET /processes/one",     get_one      },
    {"POST /processes/input",  post_input   },
    {"POST /processes/signal", post_signal  },
    {"GET /processes/logs",    logs_asked   },
    {"POST /processes/ends",   ends_asked   },
    {"POST /processes/ending", post_ending  },
    {"POST /processes/settle", post_settle  },
    {NULL,                     NULL         },
};
