/* The host's request to start a process (starting.h). */

#include "starting.h"
#include "ids.h"
#include "spares.h"
#include <errno.h>
#include <string.h>

bool has_wrong_form(struct failure *failure, const char *what) {
  return fail(failure, EINVAL, "%s has the wrong form", what);
}

static bool is_text(const struct json *value) { return json_is(value, JSON_STRING); }

/* Missing, null, or a string, which is then in `into`. */
static bool text_or_null(const struct json *body, const char *name, const struct json **into) {
  const struct json *value = json_get(body, name);
  *into = is_text(value) ? value : NULL;
  return value == NULL || value->kind == JSON_NULL || is_text(value);
}

static bool size_in(const struct json *body, const char *name, int64_t *into) {
  return json_integer(json_get(body, name), into) && *into >= 1;
}

static bool timeout_in(const struct json *body, double *into) {
  const struct json *value = json_get(body, "timeout");
  *into = 0;
  if (value == NULL || value->kind == JSON_NULL) return true;
  *into = value->number;
  return value->kind == JSON_NUMBER && value->number > 0;
}

static bool is_directory_name(const struct json *cwd) {
  return is_text(cwd) && cwd->text[0] == '/' && memchr(cwd->text, 0, cwd->size) == NULL;
}

bool started_read(struct started *started, const struct json *body, struct failure *failure) {
  if (!json_is(body, JSON_OBJECT) && !json_is(body, JSON_ARRAY)) return has_wrong_form(failure, "the body");
  const struct json *id = json_get(body, "id"), *cwd = json_get(body, "cwd");
  const struct json *code = json_get(body, "code"), *command = json_get(body, "command");
  *started = (struct started){.env = json_get(body, "env")};
  if (!is_text(id) || !is_process_id(id->text, id->size)) return has_wrong_form(failure, "id");
  if (is_text(code) == is_text(command)) return has_wrong_form(failure, "code or command (exactly one)");
  if (started->env != NULL && !is_env(started->env)) return has_wrong_form(failure, "env");
  if (!is_directory_name(cwd)) return has_wrong_form(failure, "cwd");
  if (!text_or_null(body, "name", &started->name)) return has_wrong_form(failure, "name");
  if (!text_or_null(body, "stdin", &started->input)) return has_wrong_form(failure, "stdin");
  if (!timeout_in(body, &started->timeout)) return has_wrong_form(failure, "timeout");
  if (!size_in(body, "logBytes", &started->log_bytes) || !size_in(body, "allLogBytes", &started->all_log_bytes))
    return has_wrong_form(failure, "size");
  started->id = id->text;
  started->cwd = cwd->text;
  started->code = is_text(code) ? code : NULL;
  started->command = is_text(command) ? command : NULL;
  return true;
}
