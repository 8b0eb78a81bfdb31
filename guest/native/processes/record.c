/* The record of one process: how it begins, and its form as JSON (records.h). What is read was written by the session.
 */

#include "records.h"
#include "cut_text.h"
#include "json.h"
#include "loop.h"
#include <stdlib.h>
#include <string.h>

enum { COMMAND = 1000, NAME = 400, PIDS = 1 << 22 }; /* the most that the host accepts; a name has 200 characters */
enum { CHARACTERS = 200 };

static const char *const statuses[] = {"running", "exited", "lost"};
static const char *const reasons[] = {NULL, "deep_sleep", "runtime_ended", "timeout"};

static struct record *blank(const char *id) {
  struct record *record = memory(sizeof *record);
  memcpy(record->entry.id, id, PROCESS_ID);
  record->exit_code = -1;
  record->ended_at = record->output = -1;
  return record;
}

static struct words words_of(const char *text, size_t size) {
  return text == NULL ? (struct words){0} : (struct words){copy_bytes(text, size), size};
}

struct record *record_new(const char *id, pid_t pid, const char *command, size_t command_size, const char *name,
                          size_t name_size) {
  struct record *record = blank(id);
  struct bytes shown = {0};
  record->pid = pid;
  record->started_at = wall_time();
  /* Without half characters, which the host would not accept. */
  cut_text(&shown, command, command_size < 4 * COMMAND ? command_size : 4 * COMMAND, COMMAND);
  record->command = words_of(bytes_string(&shown), shown.size);
  record->name = words_of(name, name_size);
  bytes_free(&shown);
  return record;
}

struct record *record_lost(const char *id) {
  struct record *record = blank(id);
  record->status = STATUS_LOST;
  record->started_at = process_id_time(id);
  record->command = words_of("", 0);
  record->reason = REASON_RUNTIME_ENDED;
  return record;
}

void record_free(struct record *record) {
  free(record->command.text);
  free(record->name.text);
  free(record);
}

/* --- Writing --- */

const char *reason_json(enum reason reason) {
  static const char *const texts[] = {"null", "\"deep_sleep\"", "\"runtime_ended\"", "\"timeout\""};
  return texts[reason];
}

static void put_words(struct bytes *into, const struct words *words) {
  if (words->text == NULL) bytes_text(into, "null");
  else json_put_string(into, words->text, words->size);
}

static void put_number_or_null(struct bytes *into, const char *name, int64_t number) {
  if (number < 0) bytes_format(into, ",\"%s\":null", name);
  else bytes_format(into, ",\"%s\":%lld", name, (long long)number);
}

void record_json(const struct record *record, struct bytes *into) {
  bytes_format(into, "{\"id\":\"%s\",\"pid\":%d,\"status\":\"%s\",\"startedAt\":%lld,\"command\":", record->entry.id,
               (int)record->pid, statuses[record->status], (long long)record->started_at);
  put_words(into, &record->command);
  bytes_text(into, ",\"name\":");
  put_words(into, &record->name);
  put_number_or_null(into, "exitCode", record->exit_code);
  put_number_or_null(into, "endedAt", record->ended_at);
  bytes_format(into, ",\"reason\":%s", reason_json(record->reason));
  put_number_or_null(into, "output", record->output);
  bytes_format(into, ",\"ending\":%s}", reason_json(record->ending));
}

/* --- Reading --- */

static bool whole(const struct json *found, const char *name, int64_t below, int64_t *into) {
  return json_integer(json_get(found, name), into) && *into >= 0 && *into < below;
}

static bool whole_or_null(const struct json *found, const char *name, int64_t *into) {
  *into = -1;
  return json_is(json_get(found, name), JSON_NULL) || whole(found, name, INT64_MAX, into);
}

static bool is_named(const struct json *value, const char *name) {
  return json_is(value, JSON_STRING) && value->size == strlen(name) && memcmp(value->text, name, value->size) == 0;
}

static bool reason_in(const struct json *found, const char *name, enum reason *into) {
  const struct json *value = json_get(found, name);
  *into = REASON_NONE;
  if (json_is(value, JSON_NULL)) return true;
  for (enum reason reason = REASON_DEEP_SLEEP; reason <= REASON_TIMEOUT; reason++)
    if (is_named(value, reasons[reason])) *into = reason;
  return *into != REASON_NONE;
}

/* Text of at most so many UTF-16 units, and so many characters. */
static bool words_in(const struct json *value, size_t units, size_t characters, struct words *into) {
  if (!json_is(value, JSON_STRING)) return false;
  for (size_t at = 0, length; at < value->size; at += length) {
    length = utf8_length((const uint8_t *)value->text + at, value->size - at);
    size_t here = length == 4 ? 2 : 1;
    if (length == 0 || units < here || characters == 0) return false;
    units -= here;
    characters--;
  }
  *into = words_of(value->text, value->size);
  return true;
}

static bool name_in(const struct json *found, struct words *into) {
  const struct json *name = json_get(found, "name");
  return json_is(name, JSON_NULL) || words_in(name, NAME, CHARACTERS, into);
}

/* The status, and the exit code that goes with it. A record never says that its process is lost. */
static bool status_in(const struct json *found, struct record *into) {
  const struct json *status = json_get(found, "status");
  int64_t exit_code;
  into->status = is_named(status, statuses[STATUS_RUNNING]) ? STATUS_RUNNING : STATUS_EXITED;
  if (into->status == STATUS_RUNNING) return json_is(json_get(found, "exitCode"), JSON_NULL);
  if (!is_named(status, statuses[STATUS_EXITED]) || !whole(found, "exitCode", 256, &exit_code)) return false;
  into->exit_code = (int)exit_code;
  return true;
}

static bool take(struct record *record, const struct json *found) {
  int64_t pid;
  if (!is_named(json_get(found, "id"), record->entry.id) || !whole(found, "pid", PIDS, &pid)) return false;
  record->pid = (pid_t)pid;
  return status_in(found, record) && whole(found, "startedAt", INT64_MAX, &record->started_at) &&
         whole_or_null(found, "endedAt", &record->ended_at) && whole_or_null(found, "output", &record->output) &&
         reason_in(found, "reason", &record->reason) && reason_in(found, "ending", &record->ending) &&
         words_in(json_get(found, "command"), COMMAND, COMMAND, &record->command) && name_in(found, &record->name);
}

struct record *record_parsed(const char *id, const struct bytes *text) {
  struct json *found = json_parse(text->data, text->size);
  if (found == NULL) return NULL;
  struct record *record = blank(id);
  if (!take(record, found)) {
    record_free(record);
    record = NULL;
  }
  json_free(found);
  return record;
}
