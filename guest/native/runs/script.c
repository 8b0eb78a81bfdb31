/* The script that turns a spare shell into the program of a run. */

#include "spares.h"
#include "asked.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  LONGEST_ARGUMENT = (128 << 10) - 1, /* bytes: the kernel's MAX_ARG_STRLEN, less the final NUL */
  DEFAULT_TOTAL = 1900 << 10,         /* bytes of arguments and environment that fit with the usual 8 MiB of stack */
  LARGEST_TOTAL = 5900 << 10,         /* the kernel passes at most 6 MiB, whatever the stack */
  STACK_FOR_LARGEST = 24 << 10,       /* KiB: a quarter of it may be arguments and environment */
  POINTER = 9                         /* bytes that the kernel counts for each string: its NUL and its pointer */
};

static const char NO_SHELL[] = "buntime: this needs a shell, and the session's image has neither bash nor /bin/sh";

/* Runs the code from the text pipe like the code of `bun -e`, so that stdin stays the program's. */
static const char EVALUATE[] =
    "const s=process.cwd()+\"/[eval]\",f=require(\"fs\"),c=f.readFileSync(4,\"utf8\");f.closeSync(4);"
    "Bun.plugin({name:\"code\",setup(b){b.module(s,()=>({contents:c,loader:\"tsx\"}))}});await import(s)";

/* --- Text --- */

static void add_quoted(struct bytes *into, const char *text, size_t size) {
  bytes_byte(into, '\'');
  for (const char *quote; (quote = memchr(text, '\'', size)) != NULL;) {
    bytes_add(into, text, (size_t)(quote - text));
    bytes_text(into, "'\\''");
    size -= (size_t)(quote + 1 - text);
    text = quote + 1;
  }
  bytes_add(into, text, size);
  bytes_byte(into, '\'');
}

static void quoted(struct bytes *into, const char *text) { add_quoted(into, text, strlen(text)); }

/* A name that a shell can export. OPTIND and LINENO have a meaning for the shell itself. */
static bool is_exportable(const char *name) {
  if (strcmp(name, "OPTIND") == 0 || strcmp(name, "LINENO") == 0) return false;
  if (*name != '_' && !(*name >= 'A' && *name <= 'Z') && !(*name >= 'a' && *name <= 'z')) return false;
  for (; *name != '\0'; name++) {
    bool is_letter = (*name >= 'A' && *name <= 'Z') || (*name >= 'a' && *name <= 'z');
    if (!is_letter && *name != '_' && !(*name >= '0' && *name <= '9')) return false;
  }
  return true;
}

/* --- The environment --- */

bool is_env(const struct json *value) {
  if (value == NULL || (value->kind != JSON_OBJECT && value->kind != JSON_ARRAY)) return false;
  for (size_t at = 0; at < value->count; at++)
    if (value->items[at].kind != JSON_STRING) return false;
  return value->kind == JSON_OBJECT || value->count == 0;
}

static size_t count_of(const struct json *env) { return env == NULL ? 0 : env->count; }

/* Fails with EINVAL for what no program can receive, and E2BIG for what the kernel would refuse. */
static bool check_env(const struct json *env, struct failure *failure) {
  for (size_t at = 0; at < count_of(env); at++) {
    const struct json *name = &env->names[at], *value = &env->items[at];
    bool has_nul = memchr(name->text, '\0', name->size) != NULL || memchr(value->text, '\0', value->size) != NULL;
    if (name->size == 0 || memchr(name->text, '=', name->size) != NULL || has_nul)
      return fail(failure, EINVAL, "an environment variable that no program can receive");
    if (name->size + 1 + value->size > LONGEST_ARGUMENT)
      return fail(failure, E2BIG, "the environment variable %.100s is too long", name->text);
  }
  return true;
}

static size_t exported_size(const struct json *env) {
  size_t size = 0;
  for (size_t at = 0; at < count_of(env); at++)
    if (is_exportable(env->names[at].text)) size += env->names[at].size + 1 + env->items[at].size + POINTER;
  return size;
}

/* `/usr/bin/env` sets what a shell cannot: its words in front of the program's. Their number and size are added. */
static size_t odd_words(const struct json *env, struct bytes *into) {
  size_t size = 0;
  for (size_t at = 0; at < count_of(env); at++) {
    const struct json *name = &env->names[at], *value = &env->items[at];
    if (is_exportable(name->text)) continue;
    if (size == 0) {
      size += strlen("/usr/bin/env") + POINTER;
      if (into != NULL) bytes_text(into, " '/usr/bin/env'");
    }
    size += name->size + 1 + value->size + POINTER;
    if (into == NULL) continue;
    char *word = memory(name->size + 1 + value->size + 1);
    memcpy(word, name->text, name->size);
    word[name->size] = '=';
    memcpy(word + name->size + 1, value->text, value->size);
    bytes_byte(into, ' ');
    add_quoted(into, word, name->size + 1 + value->size);
    free(word);
  }
  return size;
}

/* --- The script --- */

static void add_complaint(struct bytes *script, const char *cwd, const char *why) {
  char *text = format_text("buntime: workingDir %s: %s", cwd, why);
  bytes_text(script, "printf '%s\\n' ");
  quoted(script, text);
  bytes_text(script, " >&2");
  free(text);
}

static void add_enter(struct bytes *script, const char *cwd) {
  bytes_text(script, "cd ");
  quoted(script, cwd);
  bytes_format(script, " 2>&%d || { if [ -e ", SPARE_NOTHING);
  quoted(script, cwd);
  bytes_text(script, " ]; then ");
  add_complaint(script, cwd, "Not a directory");
  bytes_text(script, "; else ");
  add_complaint(script, cwd, "No such file or directory");
  bytes_text(script, "; fi; exit 1; }\nunset OLDPWD\n");
}

static void add_exports(struct bytes *script, const struct json *env) {
  for (size_t at = 0; at < count_of(env); at++) {
    if (!is_exportable(env->names[at].text)) continue;
    bytes_format(script, "export %s=", env->names[at].text);
    add_quoted(script, env->items[at].text, env->items[at].size);
    bytes_byte(script, '\n');
  }
}

static bool is_kept(const int *kept, int fd) {
  for (; *kept >= 0; kept++)
    if (*kept == fd) return true;
  return false;
}

/* Takes stdin from `input`, closes what the program must not see, and becomes the program. A shell reads ahead, so only
 * its last line may replace its input with the program's. */
static void add_last_line(struct bytes *script, const char *const *argv, size_t count, const struct json *env,
                          int input, const int *kept, const char *moved) {
  static const int ends[] = {SPARE_INPUT, SPARE_TEXT, SPARE_NOTHING};
  bytes_format(script, "exec <&%d %s", input, moved);
  for (size_t at = 0; at < COUNT(ends); at++)
    if (!is_kept(kept, ends[at])) bytes_format(script, " %d>&-", ends[at]);
  bytes_text(script, "; ");
  if (count == 0) { /* as a shell that does not find a program */
    bytes_text(script, "printf '%s\\n' ");
    quoted(script, NO_SHELL);
    bytes_text(script, " >&2; exit 127\n");
    return;
  }
  bytes_text(script, "exec");
  odd_words(env, script);
  for (size_t at = 0; at < count; at++) {
    bytes_byte(script, ' ');
    quoted(script, argv[at]);
  }
  bytes_byte(script, '\n');
}

bool start_of(const char *const *argv, size_t count, const struct json *env, const char *cwd, int input,
              const int *kept, const char *moved, struct bytes *script, struct failure *failure) {
  if (!check_env(env, failure)) return false;
  size_t total = exported_size(env) + (count > 0 ? odd_words(env, NULL) : 0);
  for (size_t at = 0; at < count; at++) total += strlen(argv[at]) + POINTER;
  if (total > LARGEST_TOTAL) return fail(failure, E2BIG, "the environment as a whole is too large");
  add_enter(script, cwd);
  add_exports(script, env);
  if (total > DEFAULT_TOTAL) bytes_format(script, "ulimit -S -s %d 2>&%d\n", STACK_FOR_LARGEST, SPARE_NOTHING);
  add_last_line(script, argv, count, env, input, kept, moved);
  return true;
}

/* --- Programs --- */

static bool has_no_nul(const char *text, size_t size, struct failure *failure) {
  return memchr(text, '\0', size) == NULL || fail(failure, EINVAL, "a NUL byte in the program");
}

/* The length of the white space, as JavaScript's trim() knows it, at the start of the UTF-8 text. 0: there is none. */
static size_t space_length(const unsigned char *at, size_t left) {
  if (left > 0 && (*at == ' ' || (*at >= 9 && *at <= 13))) return 1;
  if (left > 1 && at[0] == 0xc2 && at[1] == 0xa0) return 2;
  if (left < 3) return 0;
  unsigned code = (unsigned)(at[0] << 16 | at[1] << 8 | at[2]);
  bool is_space = code == 0xe19a80 || (code >= 0xe28080 && code <= 0xe2808a) || code == 0xe280a8 || code == 0xe280a9 ||
                  code == 0xe280af || code == 0xe2819f || code == 0xe38080 || code == 0xefbbbf;
  return is_space ? 3 : 0;
}

static bool is_blank(const char *text, size_t size) {
  for (size_t at = 0, length; at < size; at += length)
    if ((length = space_length((const unsigned char *)text + at, size - at)) == 0) return false;
  return true;
}

bool code_of(const char *code, size_t size, struct bytes *into, struct failure *failure) {
  if (is_blank(code, size)) bytes_byte(into, ';'); /* `bun -e ''` would print Bun's help */
  else {
    if (!has_no_nul(code, size, failure)) return false;
    bytes_add(into, code, size);
  }
  bytes_string(into);
  return true;
}

static bool command_script(const struct program *program, struct bytes *script, struct bytes *text,
                           struct failure *failure) {
  static const int kept_text[] = {SPARE_TEXT, -1}, *const kept_none = kept_text + 1;
  const char *shell = session_shell();
  if (!has_no_nul(program->command, program->command_size, failure)) return false;
  int input = program->has_input ? SPARE_INPUT : SPARE_NOTHING;
  if (shell == NULL) return start_of(NULL, 0, program->env, program->cwd, input, kept_none, "", script, failure);
  bool is_long = program->command_size > LONGEST_ARGUMENT;
  struct bytes long_command = {0};
  bytes_format(&long_command, "eval \"exec %d<&-; $(%s</proc/self/fd/%d)\"", SPARE_TEXT, is_bash(shell) ? "" : "cat ",
               SPARE_TEXT);
  struct bytes command = {0};
  bytes_add(&command, program->command, program->command_size);
  const char *argv[] = {shell, "-c", bytes_string(is_long ? &long_command : &command)};
  const int *kept = is_long ? kept_text : kept_none;
  bool is_made = start_of(argv, 3, program->env, program->cwd, input, kept, "", script, failure);
  if (is_made && is_long) bytes_add(text, program->command, program->command_size);
  bytes_free(&command);
  bytes_free(&long_command);
  return is_made;
}

static bool code_script(const struct program *program, const char *bun, struct bytes *script, struct bytes *text,
                        struct failure *failure) {
  static const int kept_text[] = {SPARE_TEXT, -1}, *const kept_none = kept_text + 1;
  struct bytes code = {0};
  if (!code_of(program->code, program->code_size, &code, failure)) {
    bytes_free(&code);
    return false;
  }
  bool is_long = code.size > LONGEST_ARGUMENT, reads_code = is_long && !program->has_input;
  const char *argv[] = {bun, "--install=fallback", "-e", is_long ? EVALUATE : bytes_string(&code)};
  if (reads_code) argv[2] = "-";
  int input = reads_code ? SPARE_TEXT : program->has_input ? SPARE_INPUT : SPARE_NOTHING;
  const int *kept = is_long && !reads_code ? kept_text : kept_none;
  bool is_made = start_of(argv, reads_code ? 3 : 4, program->env, program->cwd, input, kept, "", script, failure);
  if (is_made && is_long) bytes_add(text, code.data, code.size);
  bytes_free(&code);
  return is_made;
}

bool script_of(const struct program *program, struct bytes *script, struct bytes *text, struct failure *failure) {
  if (program->code != NULL) return code_script(program, settings.bun, script, text, failure);
  return command_script(program, script, text, failure);
}
