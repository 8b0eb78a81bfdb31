/* Background processes while they run (background.h). */

#include "background.h"
#include "all_logs.h"
#include "asked.h"
#include "ends.h"
#include "outputs.h"
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { TIMEOUT_EXIT = 124 };
enum { TICK = 1000 }; /* ms; a much longer pause means that the session was asleep, which does not count */

/* It is freed when it has ended and both outputs have. */
struct background {
  struct id_entry entry;
  struct tree tree;
  struct log *log;
  struct input input;
  struct writer script, text, given; /* `given`: the input that was there from the start */
  struct process_output outputs[2];
  struct spare *spare;
  int (*gone)(void *self, int exit_code); /* of an attendant, or NULL */
  void *self;
  struct timer timer;
  double time_left, ticked_at, tick; /* ms */
  int64_t recorded;                  /* bytes of output that its record says */
  bool has_input, has_timed_out, has_ended;
};

static struct id_table running;

struct background *background_find(const char *id) {
  struct id_entry *entry = ids_find(&running, id);
  return entry == NULL ? NULL : MEMBER(entry, struct background, entry);
}

struct log *background_log(struct background *process) { return process->log; }

struct input *background_input(struct background *process) { return process->has_input ? &process->input : NULL; }

bool background_signal(struct background *process, int64_t number) { return tree_signal(&process->tree, number); }

int64_t background_log_bytes(void) {
  int64_t bytes = 0;
  for (struct id_entry *entry = running.first; entry != NULL; entry = entry->next)
    bytes += MEMBER(entry, struct background, entry)->log->size;
  return bytes;
}

struct log *background_largest_log(void) {
  struct log *largest = NULL;
  for (struct id_entry *entry = running.first; entry != NULL; entry = entry->next) {
    struct log *log = MEMBER(entry, struct background, entry)->log;
    if (largest == NULL || log_segments(log) > log_segments(largest)) largest = log;
  }
  return largest;
}

/* --- Time, as far as the session was awake --- */

static void count_down(struct background *process);

static void ticked(struct timer *timer) {
  struct background *process = MEMBER(timer, struct background, timer);
  double passed = now() - process->ticked_at;
  process->time_left -= passed > process->tick + TICK ? process->tick : passed;
  if (process->time_left > 0) return count_down(process);
  process->has_timed_out = true;
  tree_signal(&process->tree, SIGKILL);
}

static void count_down(struct background *process) {
  process->tick = process->time_left < TICK ? process->time_left : TICK;
  process->ticked_at = now();
  timer_begin(&process->timer, process->tick, ticked);
}

/* --- The end --- */

/* What it left behind went on writing after its end. */
static void record_output(const struct background *process) {
  struct record *record = process->log->end == process->recorded ? NULL : records_find(process->entry.id);
  if (record == NULL) return;
  if (record->status != STATUS_EXITED || record->output == process->log->end) return record_done(record);
  record->output = process->log->end;
  records_put(record);
}

static void forget_if_over(struct background *process) {
  if (!process->has_ended || !process->outputs[0].has_ended || !process->outputs[1].has_ended) return;
  log_close(process->log);
  record_output(process);
  ids_remove(&running, &process->entry);
  all_logs_ended(process->log);
  log_release(process->log);
  tree_end(&process->tree);
  free(process);
}

static void output_ended(struct process_output *output) {
  struct background *process = MEMBER(output - (output->kind == 'e'), struct background, outputs[0]);
  forget_if_over(process);
}

static void record_end(struct background *process, int exit_code) {
  struct record *record = records_find(process->entry.id);
  process->recorded = process->log->end;
  if (record == NULL) return;
  record->status = STATUS_EXITED;
  record->exit_code = process->has_timed_out ? TIMEOUT_EXIT : exit_code;
  record->ended_at = wall_time();
  record->reason = process->has_timed_out ? REASON_TIMEOUT : record->ending;
  record->output = process->recorded;
  record->ending = REASON_NONE;
  struct end end = {.exit_code = record->exit_code, .reason = record->reason};
  records_put(record);
  ends_add(process->entry.id, end);
}

static void finish(struct background *process, int exit_code) {
  for (int at = 0; at < 2; at++) output_settle(&process->outputs[at]);
  record_end(process, exit_code);
  /* The end of pipes that nothing holds any more is noticed now. Only then may it be freed. */
  struct log *log = log_keep(process->log);
  for (int at = 0; at < 2; at++) output_look(&process->outputs[at]);
  process->has_ended = true;
  forget_if_over(process);
  log_wake(log);
  log_release(log);
}

static void process_ended(struct spare *spare, void *self) {
  struct background *process = self;
  int exit_code = spare->status;
  process->spare = NULL;
  spare_free(spare);
  timer_end(&process->timer);
  writer_close(&process->text);
  writer_close(&process->script);
  writer_close(&process->given);
  input_close(&process->input);
  if (process->gone != NULL) exit_code = process->gone(process->self, exit_code);
  finish(process, exit_code);
}

/* --- The start --- */

void background_make_room(int64_t all_log_bytes) {
  all_logs_limit(all_log_bytes);
  records_make_room(all_logs_forget);
}

/* Puts what the process prints into its log. All ends of the spare's pipes are handed on. */
static struct background *capture(struct spare *spare, const struct record *record, int64_t log_bytes,
                                  bool is_attendant) {
  struct background *process = memory(sizeof *process);
  process->entry = (struct id_entry){0};
  for (size_t at = 0; at < PROCESS_ID; at++) process->entry.id[at] = record->entry.id[at];
  process->spare = spare;
  process->log = log_new(record->entry.id, log_bytes);
  process->input.fd = -1;
  process->script.watch.fd = process->text.watch.fd = process->given.watch.fd = -1;
  tree_begin(&process->tree, record->pid, is_attendant);
  ids_add(&running, &process->entry);
  output_begin(&process->outputs[0], spare->output, 'o', process->log, output_ended);
  output_begin(&process->outputs[1], spare->errors, 'e', process->log, output_ended);
  return process;
}

static void hand_on(struct spare *spare) {
  spare->script = spare->text = spare->input = spare->output = spare->errors = -1;
}

void background_attend(struct spare *spare, const struct record *record, int64_t log_bytes,
                       int (*ended)(void *self, int exit_code), void *self) {
  close(spare->input);
  struct background *process = capture(spare, record, log_bytes, true);
  hand_on(spare);
  process->gone = ended;
  process->self = self;
  spare_on_end(spare, process_ended, process);
}

static void attend(struct spare *spare, const struct record *record, const struct started *started,
                   struct bytes *script, struct bytes *text) {
  struct background *process = capture(spare, record, started->log_bytes, false);
  process->has_input = started->input == NULL;
  if (process->has_input) input_begin(&process->input, spare->input);
  writer_begin(&process->text, spare->text, text);
  writer_begin(&process->script, spare->script, script);
  if (started->input != NULL) {
    struct bytes given = {0};
    bytes_from_base64(&given, started->input->text, started->input->size);
    writer_begin(&process->given, spare->input, &given);
  }
  hand_on(spare);
  if (started->timeout > 0) {
    process->time_left = started->timeout * 1000;
    count_down(process);
  }
  spare_on_end(spare, process_ended, process);
}

static bool script_for(const struct started *started, struct bytes *script, struct bytes *text,
                       struct failure *failure) {
  struct program program = {
      .env = started->env,
      .cwd = started->cwd,
      .has_input = started->input == NULL || started->input->size > 0,
  };
  if (started->code != NULL) {
    program.code = started->code->text;
    program.code_size = started->code->size;
  } else {
    program.command = started->command->text;
    program.command_size = started->command->size;
  }
  return script_of(&program, script, text, failure);
}

const struct record *background_start(int64_t pid, const struct started *started, struct failure *failure) {
  struct bytes script = {0}, text = {0};
  struct record *record = NULL;
  struct spare *spare = NULL;
  if (script_for(started, &script, &text, failure)) {
    background_make_room(started->all_log_bytes);
    spare = spare_take(pid, failure);
  }
  if (spare != NULL) {
    const struct json *shown = started->command != NULL ? started->command : started->code, *name = started->name;
    record = record_new(started->id, spare->pid, shown->text, shown->size, name == NULL ? NULL : name->text,
                        name == NULL ? 0 : name->size);
    records_put(record);
    attend(spare, record, started, &script, &text);
  }
  bytes_free(&script);
  bytes_free(&text);
  return record;
}
