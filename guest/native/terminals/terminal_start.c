/* The program of a terminal: a spare becomes an interactive shell.
 *
 * A spare leads a process session without a terminal, so the first terminal that it opens becomes its own. It is not a
 * login shell, whose profile would replace the session's PATH. */

#include "terminal_start.h"
#include "pipes.h"
#include "spares.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ENV "/usr/bin/env"

static const char *const DEFAULTS[][2] = {
    {"TERM",      "xterm-256color"},
    {"COLORTERM", "truecolor"     }
};

struct terminal_program {
  struct spare *spare;
  struct writer script;
  struct reader readers[2];
  bool has_ended;
  void (*ended)(void *self, int exit_code);
  void *self;
  struct later freeing;
};

/* --- The script --- */

/* A value that borrows its text. */
static struct json text_value(const char *text) {
  return (struct json){.kind = JSON_STRING, .text = (char *)text, .size = strlen(text)};
}

/* The defaults, and what the request sets, which wins. Its texts belong to `env` and to the program. */
static struct json with_defaults(const struct json *env) {
  size_t count = env == NULL ? 0 : env->count;
  struct json both = {.kind = JSON_OBJECT};
  both.names = memory((count + COUNT(DEFAULTS)) * sizeof *both.names);
  both.items = memory((count + COUNT(DEFAULTS)) * sizeof *both.items);
  for (size_t at = 0; at < COUNT(DEFAULTS); at++) {
    if (json_get(env, DEFAULTS[at][0]) != NULL) continue;
    both.names[both.count] = text_value(DEFAULTS[at][0]);
    both.items[both.count++] = text_value(DEFAULTS[at][1]);
  }
  for (size_t at = 0; at < count; at++) {
    both.names[both.count] = env->names[at];
    both.items[both.count++] = env->items[at];
  }
  return both;
}

static bool has_gnu_env(void) {
  char *path = realpath(ENV, NULL);
  if (path == NULL) return false;
  const char *slash = strrchr(path, '/');
  bool is_busybox = strcmp(slash == NULL ? path : slash + 1, "busybox") == 0;
  free(path);
  return !is_busybox;
}

/* GNU's env gives the signals of job control back to a shell whose ancestors ignored them; without it there may be no
 * Ctrl-Z. BusyBox's cannot. */
static bool script_for(const char *shell, int number, const struct json *env, const char *cwd, struct bytes *script,
                       struct failure *failure) {
  const char *argv[] = {ENV, "--default-signal=TSTP,TTIN,TTOU", shell, "-i"};
  size_t skipped = has_gnu_env() ? 0 : 2;
  static const int none[] = {-1};
  struct json both = with_defaults(env);
  char *moved = format_text("<>/dev/pts/%d >&0 2>&0", number);
  bool is_made =
      start_of(argv + skipped, COUNT(argv) - skipped, &both, cwd, SPARE_NOTHING, none, moved, script, failure);
  free(moved);
  free(both.names);
  free(both.items);
  return is_made;
}

/* --- The process --- */

static void free_program(struct later *later) {
  struct terminal_program *program = MEMBER(later, struct terminal_program, freeing);
  spare_free(program->spare);
  free(program);
}

static void free_if_over(struct terminal_program *program) {
  if (program->has_ended && !reader_is_open(&program->readers[0]) && !reader_is_open(&program->readers[1]))
    later_begin(&program->freeing, free_program);
}

static void output_closed(struct reader *reader) { free_if_over(MEMBER(reader, struct terminal_program, readers[0])); }
static void errors_closed(struct reader *reader) { free_if_over(MEMBER(reader, struct terminal_program, readers[1])); }

static void ended(struct spare *spare, void *self) {
  struct terminal_program *program = self;
  program->has_ended = true;
  writer_close(&program->script);
  free_if_over(program);
  if (program->ended != NULL) program->ended(program->self, spare->status);
}

void terminal_program_forget(struct terminal_program *program) { program->ended = NULL; }

static bool wants_all(struct taker *taker) { return true; }
static void take_nothing(struct taker *taker, uint8_t *chunk, size_t size) {}

/* Before it is at its terminal, its output could only be error messages that nobody reads. */
static void become(struct terminal_program *program, struct bytes *script) {
  static struct taker nobody = {.wants = wants_all, .take = take_nothing};
  struct spare *spare = program->spare;
  close(spare->input);
  close(spare->text);
  program->readers[0].closed = output_closed;
  program->readers[1].closed = errors_closed;
  reader_begin(&program->readers[0], spare->output, &nobody);
  reader_begin(&program->readers[1], spare->errors, &nobody);
  writer_begin(&program->script, spare->script, script);
  spare->script = spare->input = spare->text = spare->output = spare->errors = -1;
  reader_drop(&program->readers[0]);
  reader_drop(&program->readers[1]);
  spare_on_end(spare, ended, program);
}

struct terminal_program *terminal_start(struct asked *asked, const char *shell, int number, const struct json *env,
                                        const char *cwd, void (*on_end)(void *self, int exit_code), void *self,
                                        struct failure *failure) {
  struct bytes script = {0};
  int64_t pid;
  struct spare *spare = NULL;
  if (script_for(shell, number, env, cwd, &script, failure) && asked_number(asked, "spare", -1, &pid, failure))
    spare = spare_take(pid, failure);
  if (spare == NULL) {
    bytes_free(&script);
    return NULL;
  }
  struct terminal_program *program = memory(sizeof *program);
  program->spare = spare;
  program->ended = on_end;
  program->self = self;
  become(program, &script);
  return program;
}
