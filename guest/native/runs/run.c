/* Runs: a spare becomes the program, its output goes to the host, and then how it ended.
 *
 *     POST /run?spare=   {code | command, env, cwd, stdin, maxOutput, live, feed, edge} → frames (frames.h)
 *     GET  /feed?name=   → {"open": bool}, when the run with this `feed` has begun
 *     POST /feed?name=   bytes → {"open": bool}, when the program has taken them
 *     POST /feed/edge?name=&ticket=&size=  → {}; the edge brings so many bytes for the program
 *     GET  /feed/edge?ticket=              → {"missing": n, "open": bool}, when no more comes
 *     POST /output/end?ticket=&whole=  → {"open": bool}, for a run whose output goes to the edge */

#include "execute.h"
#include "feeds.h"
#include <errno.h>
#include <string.h>

#define DEFAULT_OUTPUT (10 << 20) /* bytes of each stream */

static bool wrong(struct failure *failure, const char *what) {
  return fail(failure, EINVAL, "%s has the wrong form", what);
}

/* The member, or NULL when it is missing. */
static bool is_string(const struct json *value) { return json_is(value, JSON_STRING); }

bool is_working_directory(const struct json *cwd) {
  return is_string(cwd) && cwd->text[0] == '/' && memchr(cwd->text, '\0', cwd->size) == NULL;
}

bool run_request_read(struct run_request *run, const struct json *body, struct failure *failure) {
  if (body == NULL || (body->kind != JSON_OBJECT && body->kind != JSON_ARRAY)) return wrong(failure, "the body");
  const struct json *code = json_get(body, "code"), *command = json_get(body, "command");
  const struct json *cwd = json_get(body, "cwd"), *input = json_get(body, "stdin");
  const struct json *feed = json_get(body, "feed"), *edge = json_get(body, "edge");
  const struct json *most = json_get(body, "maxOutput");
  *run = (struct run_request){.env = json_get(body, "env"), .cwd = settings.workspace, .most_output = DEFAULT_OUTPUT};
  if (is_string(code) == is_string(command)) return wrong(failure, "code or command (exactly one)");
  if (run->env != NULL && !is_env(run->env)) return wrong(failure, "env");
  if (cwd != NULL && !is_working_directory(cwd)) return wrong(failure, "cwd");
  if (input != NULL && !is_string(input)) return wrong(failure, "stdin");
  if (feed != NULL && !is_string(feed)) return wrong(failure, "feed");
  bool has_edge = edge != NULL && !(is_string(edge) && edge->size == 0);
  if (has_edge && !(is_string(edge) && is_ticket(edge->text, edge->size))) return wrong(failure, "edge");
  if (most != NULL && (!json_integer(most, &run->most_output) || run->most_output < 0))
    return wrong(failure, "maxOutput");
  run->code = is_string(code) ? code : NULL;
  run->command = is_string(command) ? command : NULL;
  if (cwd != NULL) run->cwd = cwd->text;
  run->input = input;
  run->is_live = json_is(json_get(body, "live"), JSON_TRUE);
  run->feed = feed == NULL ? "" : feed->text;
  run->edge = has_edge ? edge->text : "";
  return true;
}

bool run_script(const struct run_request *run, struct bytes *script, struct bytes *text, struct failure *failure) {
  struct program program = {
      .env = run->env,
      .cwd = run->cwd,
      .has_input = (run->input != NULL && run->input->size > 0) || run->feed[0] != '\0',
  };
  if (run->code != NULL) {
    program.code = run->code->text;
    program.code_size = run->code->size;
  } else {
    program.command = run->command->text;
    program.command_size = run->command->size;
  }
  return script_of(&program, script, text, failure);
}

static void start_run(struct asked *asked, const struct json *body) {
  struct failure failure;
  struct run_request run;
  struct bytes script = {0}, text = {0};
  int64_t pid;
  struct spare *spare = NULL;
  bool can_start = run_request_read(&run, body, &failure) && run_script(&run, &script, &text, &failure) &&
                   asked_number(asked, "spare", -1, &pid, &failure) && (spare = spare_take(pid, &failure)) != NULL;
  if (can_start) execute(asked, spare, &run, &(struct start){.script = &script, .text = &text});
  else answer_failure(asked, &failure);
  bytes_free(&script);
  bytes_free(&text);
}

static void post_run(struct asked *asked) { asked_json(asked, start_run); }

static void post_output_end(struct asked *asked) {
  const char *ticket = asked_text(asked, "ticket");
  bool is_open = piping_end(ticket == NULL ? "" : ticket, asked_flag(asked, "whole"));
  answer_format(asked, "{\"open\":%s}", is_open ? "true" : "false");
}

const struct operation runs_operations[] = {
    {"POST /run",        post_run           },
    {"GET /feed",        feed_begun         },
    {"POST /feed",       feed_piece         },
    {"POST /feed/edge",  feed_from_edge     },
    {"GET /feed/edge",   feed_came_from_edge},
    {"POST /output/end", post_output_end    },
    {NULL,               NULL               },
};
