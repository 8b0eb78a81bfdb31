/* Prepared processes: each a Bun that has started and waits for the code of one run (boot/boot.js).
 *
 *     POST /spares/prepare?spare=   {env, cwd} → {}   it has become a prepared Bun that waits for code
 *     POST /prepared/run?spare=     as /run           in a prepared Bun; ESTALE when it does not fit. The last frame
 * has "started": false when the process ended before the code ran POST /rehearsal               → {}; a guest that had
 * to be compiled ran nothing here
 *
 * Bun reads its surroundings when it starts. The code of a run goes to a prepared Bun only when all of that is
 * unchanged. Otherwise the run starts like any other. A process may be killed just as it is handed the code. The token
 * tells whether the code may have run. */

#include "execute.h"
#include "surroundings.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  LONGEST_CODE = 16 << 10, /* bytes that have room in the placeholder */
  TAKEN = 7, /* the descriptors of a prepared process (see boot.js), none of which Bun itself takes next */
  READY = 8,
  CODE = 9,
  PATIENCE = 5000, /* ms for a prepared process to start */
  LOOK = 3,        /* ms between looks whether it has */
  JUST_NOW = 20    /* ms, as in surroundings.c */
};

/* --- The token ---
 *
 * One byte for a prepared process, which reads it when nothing is left to do but to run the code. Only the process
 * itself reads it, and a killed one gets no further. So the code has not run before the byte is in the pipe, nor while
 * it is there. That the code was read says less: a process that is being killed may still read what it was waiting for.
 */

struct token {
  struct go go;
  int fd; /* the writing end of a pipe, or -1 */
  bool is_given, is_taken;
  struct writer script, code; /* what the process is told */
};

static bool is_taken(struct go *go) {
  struct token *token = MEMBER(go, struct token, go);
  if (token->fd >= 0 && token->is_given && pipe_available(token->fd) != 1) token->is_taken = true;
  return token->is_taken;
}

static void give(struct go *go) {
  struct token *token = MEMBER(go, struct token, go);
  if (token->fd < 0) return;
  /* EPIPE: the process has ended. EAGAIN: the session has filled the pipe, so nothing is certain. */
  token->is_given = write(token->fd, "1", 1) == 1 || errno != EPIPE;
}

/* A process that has not been given it ends. */
static void close_token(struct go *go) {
  struct token *token = MEMBER(go, struct token, go);
  writer_close(&token->script);
  writer_close(&token->code);
  if (token->fd < 0) return;
  is_taken(go);
  close(token->fd);
  token->fd = -1;
}

static void free_token(struct go *go) {
  close_token(go);
  free(MEMBER(go, struct token, go));
}

static struct token *token_new(int fd) {
  struct token *token = memory(sizeof *token);
  *token = (struct token){
      .go = {give, is_taken, close_token, free_token},
        .fd = fd
  };
  token->script.watch.fd = token->code.watch.fd = -1;
  make_nonblocking(fd); /* a session may have filled the pipe */
  return token;
}

/* --- Processes that wait --- */

struct prepared {
  struct spare *spare;
  struct token *token;
  struct bytes environment;
  struct surroundings *seen;
  struct prepared *next;
};

static struct prepared *waiting;

static struct prepared *find(int64_t pid) {
  struct prepared *prepared = waiting;
  while (prepared != NULL && prepared->spare->pid != pid) prepared = prepared->next;
  return prepared;
}

/* Does not free the spare or the token. */
static void forget(struct prepared *prepared) {
  struct prepared **at = &waiting;
  while (*at != prepared) at = &(*at)->next;
  *at = prepared->next;
  bytes_free(&prepared->environment);
  surroundings_free(prepared->seen);
  free(prepared);
}

static void ended_waiting(struct spare *spare, void *self) {
  struct prepared *prepared = self;
  free_token(&prepared->token->go);
  forget(prepared);
  spare_free(spare);
}

/* --- Preparing --- */

/* A request of POST /spares/prepare that waits. It frees itself with its answer. */
struct preparation {
  struct asked *asked;
  struct timer timer;
  struct bytes body; /* until the process is told to start */
  int64_t pid;
  double deadline;
};

static bool is_there(pid_t pid, int fd) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd/%d", (int)pid, fd);
  return access(path, F_OK) == 0;
}

/* It has started completely (see boot.js). */
static bool is_ready(pid_t pid) { return is_there(pid, CODE) && !is_there(pid, READY); }

static void look(struct timer *timer) {
  struct preparation *preparation = MEMBER(timer, struct preparation, timer);
  struct prepared *prepared = find(preparation->pid);
  bool has_ended = prepared == NULL, is_late = now() > preparation->deadline;
  if (!has_ended && !is_late && !is_ready((pid_t)preparation->pid)) return timer_begin(timer, LOOK, look);
  if (has_ended || is_late) answer_error(preparation->asked, ESTALE, "the process does not start");
  else {
    spare_watch(prepared->spare);
    answer_empty(preparation->asked);
  }
  free(preparation);
}

static bool prepared_script(const struct json *env, const char *cwd, struct bytes *script, struct failure *failure) {
  static const int kept[] = {-1};
  char moved[64];
  snprintf(moved, sizeof moved, "%d<&%d %d<&%d %d<&%d", TAKEN, SPARE_INPUT, READY, SPARE_INPUT, CODE, SPARE_TEXT);
  struct bytes placeholder = {0}; /* a length that nothing else in memory has */
  bytes_text(&placeholder, "//");
  for (int at = 0; at < LONGEST_CODE / 8; at++) bytes_text(&placeholder, "waiting ");
  bytes_byte(&placeholder, '\n');
  const char *argv[] = {settings.bun, "--install=fallback",      "--preload", settings.boot,
                        "-e",         bytes_string(&placeholder)};
  bool is_made = start_of(argv, COUNT(argv), env, cwd, SPARE_NOTHING, kept, moved, script, failure);
  bytes_free(&placeholder);
  return is_made;
}

/* Turns the spare into a prepared process. Fails with ESRCH, and ESTALE when it would differ from a fresh start: the
 * spare then stays parked. */
static bool begin(int64_t pid, const struct json *env, const char *cwd, struct failure *failure) {
  struct bytes script = {0};
  struct surroundings *seen = surroundings_of(env, cwd);
  if (seen == NULL) return fail(failure, ESTALE, "no process can be prepared for this");
  struct spare *spare = NULL;
  if (!prepared_script(env, cwd, &script, failure) || (spare = spare_take(pid, failure)) == NULL) {
    bytes_free(&script);
    surroundings_free(seen);
    return false;
  }
  struct prepared *prepared = memory(sizeof *prepared);
  *prepared = (struct prepared){.spare = spare, .token = token_new(spare->input), .seen = seen, .next = waiting};
  environment_name(&prepared->environment, env, cwd);
  waiting = prepared;
  writer_begin(&prepared->token->script, spare->script, &script);
  spare->script = spare->input = -1;
  spare_on_end(spare, ended_waiting, prepared);
  return true;
}

static const char *directory_in(const struct json *body) {
  const struct json *cwd = json_get(body, "cwd");
  return cwd == NULL ? settings.workspace : cwd->text;
}

static bool is_environment(const struct json *body, struct failure *failure) {
  const struct json *env = json_get(body, "env"), *cwd = json_get(body, "cwd");
  if ((env == NULL || is_env(env)) && (cwd == NULL || is_working_directory(cwd))) return true;
  return fail(failure, EINVAL, "env or cwd has the wrong form");
}

static void prepare(struct preparation *preparation, const struct json *body) {
  struct failure failure;
  struct asked *asked = preparation->asked;
  bool has_begun = asked_number(asked, "spare", -1, &preparation->pid, &failure) &&
                   begin(preparation->pid, json_get(body, "env"), directory_in(body), &failure);
  bytes_free(&preparation->body);
  preparation->deadline = now() + PATIENCE;
  if (has_begun) return look(&preparation->timer);
  answer_failure(asked, &failure);
  free(preparation);
}

static void prepare_later(struct timer *timer) {
  struct preparation *preparation = MEMBER(timer, struct preparation, timer);
  struct json *body = json_parse(preparation->body.data, preparation->body.size);
  prepare(preparation, body);
  json_free(body);
}

static void got_environment(struct asked *asked, const uint8_t *bytes, size_t size) {
  struct json *body = json_parse(bytes, size);
  struct failure failure;
  if (body == NULL) return answer_error(asked, EINVAL, "the body is not JSON");
  if (is_environment(body, &failure)) {
    struct preparation *preparation = memory(sizeof *preparation);
    preparation->asked = asked;
    if (changed_just_now(directory_in(body))) {
      bytes_add(&preparation->body, bytes, size);
      timer_begin(&preparation->timer, JUST_NOW, prepare_later);
    } else prepare(preparation, body);
  } else answer_failure(asked, &failure);
  json_free(body);
}

static void post_prepare(struct asked *asked) { asked_whole(asked, got_environment); }

/* --- Running --- */

/* Hands the code to the process. It runs when it is given the token. NULL with ESTALE when the process does not fit or
 * has ended: it does not run the code then. Takes the memory of the code. */
static struct prepared *hand_code(int64_t pid, const struct run_request *run, struct bytes *code,
                                  struct failure *failure) {
  struct prepared *prepared = find(pid);
  struct bytes environment = {0};
  if (prepared == NULL) {
    fail(failure, ESTALE, "there is no such process");
    return NULL;
  }
  environment_name(&environment, run->env, run->cwd);
  bool fits = code->size <= LONGEST_CODE && environment.size == prepared->environment.size &&
              memcmp(environment.data, prepared->environment.data, environment.size) == 0;
  bytes_free(&environment);
  if (!fits) {
    fail(failure, ESTALE, "it is for another run");
    return NULL;
  }
  /* It wakes and puts the code in its place while we look whether it still equals a fresh start. */
  writer_begin(&prepared->token->code, prepared->spare->text, code);
  prepared->spare->text = -1;
  return prepared;
}

static void ended_unused(struct spare *spare, void *self) { spare_free(spare); }

/* Lets go of a process that does not fit any more: it ends when it finds that nobody can give it the token. */
static void give_up(struct spare *spare, struct token *token) {
  free_token(&token->go);
  close(spare->output);
  close(spare->errors);
  spare->output = spare->errors = -1;
  spare_on_end(spare, ended_unused, NULL);
}

static void run_code(struct asked *asked, const struct run_request *run, struct bytes *code) {
  struct failure failure;
  int64_t pid;
  struct prepared *prepared = NULL;
  if (!asked_number(asked, "spare", -1, &pid, &failure) || (prepared = hand_code(pid, run, code, &failure)) == NULL)
    return answer_failure(asked, &failure);
  struct spare *spare = prepared->spare;
  struct token *token = prepared->token;
  const char *changed = surroundings_changed(prepared->seen);
  if (changed != NULL) {
    fail(&failure, ESTALE, "it does not fit any more");
    failure.path = copy_text(changed);
  }
  forget(prepared);
  if (changed == NULL) return execute(asked, spare, run, &(struct start){.go = &token->go});
  give_up(spare, token);
  answer_failure(asked, &failure);
}

static void got_run(struct asked *asked, const struct json *body) {
  struct run_request run;
  struct failure failure;
  struct bytes code = {0};
  if (!run_request_read(&run, body, &failure)) return answer_failure(asked, &failure);
  if (run.code == NULL || (run.input != NULL && run.input->size > 0) || run.feed[0] != '\0')
    return answer_error(asked, ESTALE, "it is started in another way");
  if (code_of(run.code->text, run.code->size, &code, &failure)) run_code(asked, &run, &code);
  else answer_failure(asked, &failure);
  bytes_free(&code);
}

static void post_prepared_run(struct asked *asked) { asked_json(asked, got_run); }

const struct operation prepared_operations[] = {
    {"POST /spares/prepare", post_prepare     },
    {"POST /prepared/run",   post_prepared_run},
    {"POST /rehearsal",      answer_empty     }, /* nothing here has to be compiled */
    {NULL,                   NULL             },
};
