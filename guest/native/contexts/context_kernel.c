/* The guest's side of one kernel (kernel/main.ts): its output, its connection, and the run in it. */

#include "context_kernel.h"
#include "cut_text.h"
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

enum { MOST = 28 << 20 }; /* bytes of the frames of one run */
enum { SAID = 2000 };     /* characters that are kept of the output of a kernel that does not start */

/* A run, until its last frame is on its way. `kernel` is NULL when it has ended, and the files are still looked for. */
struct running {
  struct kernel *kernel;
  struct outbox *outbox;
  change_mark mark;
  size_t bytes;
  struct bytes told; /* the kernel's frame with the result, if it sent one */
  bool has_exited;   /* the kernel has ended with the run */
  int exit_code;
  bool is_truncated;
};

static void advance_readers(struct kernel *kernel) {
  reader_advance(&kernel->readers[0]);
  reader_advance(&kernel->readers[1]);
}

static void drain_readers(struct kernel *kernel) {
  reader_drain(&kernel->readers[0]);
  reader_drain(&kernel->readers[1]);
}

/* --- The end of a run --- */

static void finish(void *self, struct bytes *members) {
  struct running *running = self;
  struct bytes *last = &running->told;
  size_t at = last->size;
  bytes_room(last, FRAME_HEADER + members->size + 100);
  last->size += FRAME_HEADER;
  bytes_text(last, "{\"outcome\":\"ended\",\"exitCode\":");
  if (running->has_exited) bytes_format(last, "%d", running->exit_code);
  else bytes_text(last, "null");
  bytes_format(last, ",\"truncated\":%s,", running->is_truncated ? "true" : "false");
  bytes_add(last, members->data, members->size);
  bytes_byte(last, '}');
  frame_seal(last->data + at, last->size - at, 'x');
  outbox_finish(running->outbox, last->data, last->size);
  bytes_free(last);
  free(running);
}

/* Returns whether a run was under way. */
static bool end_run(struct kernel *kernel, const int *exit_code, struct bytes *told) {
  struct running *running = kernel->running;
  if (running == NULL) return false;
  kernel->running = NULL;
  running->kernel = NULL;
  running->has_exited = exit_code != NULL;
  running->exit_code = exit_code == NULL ? 0 : *exit_code;
  running->is_truncated = kernel->streams[0].is_truncated || kernel->streams[1].is_truncated;
  if (told != NULL) {
    running->told = *told;
    *told = (struct bytes){0};
  }
  context_stream_keep(&kernel->streams[0]);
  context_stream_keep(&kernel->streams[1]);
  if (exit_code == NULL) advance_readers(kernel);
  written_since(running->mark, finish, running);
  return true;
}

/* --- What the kernel sends --- */

/* A program that imitates the kernel with a wrong frame is ended. */
static void take(struct caller *caller, const uint8_t *frame, size_t size, struct bytes *holds) {
  struct kernel *kernel = MEMBER(caller, struct kernel, caller);
  struct running *running = kernel->running;
  if (running == NULL) return;
  running->bytes += size;
  if (running->bytes > MOST || (frame[0] != 'd' && frame[0] != 'v')) {
    kernel_signal(kernel, SIGKILL);
    return;
  }
  drain_readers(kernel); /* output that was written before this frame comes before it */
  if (frame[0] == 'd') {
    outbox_push(running->outbox, frame, size);
    return;
  }
  struct bytes told = {0};
  if (holds == NULL) bytes_add(&told, frame, size);
  end_run(kernel, NULL, holds == NULL ? &told : holds);
  kernel->user->idle(kernel);
}

static void met(struct caller *caller) {
  struct kernel *kernel = MEMBER(caller, struct kernel, caller);
  kernel->user->met(kernel);
}

static void wrong(struct caller *caller) { kernel_signal(MEMBER(caller, struct kernel, caller), SIGKILL); }

/* --- Its process --- */

struct kernel *kernel_new(const struct kernel_user *user, void *self) {
  struct kernel *kernel = memory(sizeof *kernel);
  kernel->user = user;
  kernel->self = self;
  kernel->caller = (struct caller){.met = met, .take = take, .wrong = wrong};
  caller_expect(&kernel->caller);
  return kernel;
}

void kernel_free(struct kernel *kernel) {
  caller_forget(&kernel->caller);
  if (kernel->spare != NULL) spare_free(kernel->spare);
  bytes_free(&kernel->streams[0].kept);
  bytes_free(&kernel->streams[1].kept);
  free(kernel->fate);
  free(kernel);
}

/* In a turn of its own: a reader may be in the midst of its work. */
static void free_later(struct later *later) { kernel_free(MEMBER(later, struct kernel, freeing)); }

static void free_if_over(struct kernel *kernel) {
  if (kernel->has_ended && !reader_is_open(&kernel->readers[0]) && !reader_is_open(&kernel->readers[1]))
    later_begin(&kernel->freeing, free_later);
}

static void output_closed(struct reader *reader) { free_if_over(MEMBER(reader, struct kernel, readers[0])); }
static void errors_closed(struct reader *reader) { free_if_over(MEMBER(reader, struct kernel, readers[1])); }

static void ended(struct spare *spare, void *self) {
  struct kernel *kernel = self;
  int exit_code = spare->status;
  kernel->has_ended = true;
  caller_forget(&kernel->caller);
  writer_close(&kernel->script);
  line_end(&kernel->caller); /* what it displayed before its end */
  drain_readers(kernel);
  bool was_busy = end_run(kernel, &exit_code, NULL);
  kernel->user->ended(kernel, exit_code);
  if (was_busy) kernel->user->idle(kernel);
  reader_drop(&kernel->readers[0]);
  reader_drop(&kernel->readers[1]);
  free_if_over(kernel);
}

void kernel_begin(struct kernel *kernel, struct spare *spare, struct bytes *script) {
  kernel->spare = spare;
  context_stream_begin(&kernel->streams[0], 'o');
  context_stream_begin(&kernel->streams[1], 'e');
  kernel->readers[0].closed = output_closed;
  kernel->readers[1].closed = errors_closed;
  reader_begin(&kernel->readers[0], spare->output, &kernel->streams[0].taker);
  reader_begin(&kernel->readers[1], spare->errors, &kernel->streams[1].taker);
  close(spare->input);
  close(spare->text);
  writer_begin(&kernel->script, spare->script, script);
  spare->script = spare->input = spare->text = spare->output = spare->errors = -1;
  spare_on_end(spare, ended, kernel);
}

void kernel_signal(struct kernel *kernel, int signal) {
  if (!kernel->has_ended) /* otherwise its pid may belong to another process */
    kill(kernel->spare->pid, signal);
}

void kernel_interrupt(struct kernel *kernel) {
  context_stream_end(&kernel->streams[0]);
  context_stream_end(&kernel->streams[1]);
  advance_readers(kernel);
  kernel_signal(kernel, SIGINT);
}

void kernel_set_fate(struct kernel *kernel, const char *fate) {
  free(kernel->fate);
  kernel->fate = fate == NULL ? NULL : copy_text(fate);
}

/* --- A run --- */

static void has_room(void *self) {
  struct running *running = self;
  if (running->kernel != NULL) advance_readers(running->kernel);
}

void kernel_run(struct kernel *kernel, struct asked *asked, struct bytes *frame, int64_t max_output, bool live) {
  struct running *running = memory(sizeof *running);
  running->mark = mark_now();
  running->outbox = outbox_begin(asked, live, has_room, running);
  kernel->running = running;
  context_stream_into(&kernel->streams[0], running->outbox, max_output);
  context_stream_into(&kernel->streams[1], running->outbox, max_output);
  running->kernel = kernel; /* not before: what comes now would overtake what was kept */
  advance_readers(kernel);
  line_send(&kernel->caller, frame);
}

void kernel_said(struct kernel *kernel, struct bytes *into) {
  drain_readers(kernel);
  struct bytes text = {0};
  for (size_t at = 0; at < COUNT(kernel->streams); at++)
    bytes_add(&text, kernel->streams[at].kept.data, kernel->streams[at].kept.size);
  cut_text(into, text.data, text.size, SAID);
  bytes_free(&text);
}
