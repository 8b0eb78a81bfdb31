/* One terminal: its screen, its program, and the client at it. */

#include "terminal.h"
#include "frames.h"
#include <stdlib.h>
#include <string.h>

enum { TOLD = 32 << 10 }; /* bytes of input that are read before the host is told */
enum { REDRAW = 60 };     /* ms that a full-screen program has to notice a new size */

/* One client at a terminal. Its outbox keeps it, and so does each piece of its input until it is read. */
struct attachment {
  struct terminal *terminal; /* NULL: it is no longer attached */
  struct outbox *outbox;     /* NULL: it gets nothing more */
  struct outbox *left;       /* of a client that has left, until the next turn */
  char *name;
  uint32_t untold;
  size_t references;
  struct later leaving;
};

static struct terminal *terminals;

size_t terminal_count(void) {
  size_t count = 0;
  for (struct terminal *terminal = terminals; terminal != NULL; terminal = terminal->next) count++;
  return count;
}

struct terminal *terminal_find(const char *id) {
  struct terminal *terminal = id == NULL ? NULL : terminals;
  while (terminal != NULL && strcmp(terminal->id, id) != 0) terminal = terminal->next;
  return terminal;
}

/* --- Clients --- */

static void release(void *self) {
  struct attachment *attachment = self;
  if (--attachment->references > 0) return;
  free(attachment->name);
  free(attachment);
}

static void tell_taken(void *self, size_t count) {
  struct attachment *attachment = self;
  attachment->untold += (uint32_t)count;
  if (attachment->untold < TOLD || attachment->outbox == NULL) return;
  uint8_t frame[FRAME_HEADER + 4];
  put_number(frame + FRAME_HEADER, attachment->untold);
  frame_seal(frame, sizeof frame, 'a');
  attachment->untold = 0;
  outbox_push(attachment->outbox, frame, sizeof frame);
}

static void has_room(void *self) {
  struct attachment *attachment = self;
  if (attachment->terminal != NULL) pty_advance(&attachment->terminal->pty);
}

static struct outbox *detach(struct attachment *attachment) {
  struct outbox *outbox = attachment->outbox;
  attachment->outbox = NULL;
  if (attachment->terminal != NULL) attachment->terminal->attached = NULL;
  attachment->terminal = NULL;
  return outbox;
}

static void finish(struct attachment *attachment, char type, const struct bytes *payload) {
  struct outbox *outbox = detach(attachment);
  struct bytes frame = {0};
  frame_add(&frame, type, payload->data, payload->size);
  outbox_finish(outbox, frame.data, frame.size);
  bytes_free(&frame);
  release(attachment);
}

static void leave(struct later *later) {
  struct attachment *attachment = MEMBER(later, struct attachment, leaving);
  outbox_finish(attachment->left, NULL, 0);
  release(attachment);
}

/* In a turn of its own, because the outbox is in the midst of telling it. */
static void host_left(void *self) {
  struct attachment *attachment = self;
  attachment->left = detach(attachment);
  outbox_abandon(attachment->left);
  later_begin(&attachment->leaving, leave);
}

static struct attachment *attachment_new(struct terminal *terminal, struct asked *asked, const char *name) {
  struct attachment *attachment = memory(sizeof *attachment);
  attachment->terminal = terminal;
  attachment->name = copy_text(name);
  attachment->references = 1;
  attachment->outbox = outbox_begin(asked, true, has_room, attachment);
  outbox_on_gone(attachment->outbox, host_left, attachment);
  return attachment;
}

/* --- Output --- */

static struct terminal *of(struct audience *audience) { return MEMBER(audience, struct terminal, audience); }

static bool wants(struct audience *audience) {
  struct attachment *attached = of(audience)->attached;
  return attached == NULL || outbox_has_room(attached->outbox);
}

static uint8_t *room(struct audience *audience) {
  struct terminal *terminal = of(audience);
  terminal->is_in_outbox = terminal->attached != NULL;
  return terminal->is_in_outbox ? outbox_room(terminal->attached->outbox, FRAME_HEADER + PTY_CHUNK) + FRAME_HEADER
                                : NULL;
}

static void take(struct audience *audience, uint8_t *chunk, size_t size) {
  struct terminal *terminal = of(audience);
  screen_take(&terminal->screen, chunk, size);
  if (!terminal->is_in_outbox) return;
  uint8_t *frame = chunk - FRAME_HEADER;
  frame_seal(frame, FRAME_HEADER + size, 'o');
  outbox_push(terminal->attached->outbox, frame, FRAME_HEADER + size);
}

static void end_redraw(struct timer *timer) {
  struct terminal *terminal = MEMBER(timer, struct terminal, redraw);
  pty_resize(&terminal->pty, terminal->cols, terminal->rows);
}

/* Changes the size twice, because the kernel reports only a size that differs. */
static void redraw(struct terminal *terminal) {
  pty_resize(&terminal->pty, terminal->cols, terminal->rows > 1 ? terminal->rows - 1 : 1);
  timer_begin(&terminal->redraw, REDRAW, end_redraw);
}

void terminal_attach(struct terminal *terminal, struct asked *asked, const char *name) {
  if (asked_is_gone(asked)) {
    answer_empty(asked); /* to nobody */
    return;
  }
  if (terminal->attached != NULL) finish(terminal->attached, 'd', &(struct bytes){0});
  struct bytes first = {0};
  bytes_room(&first, FRAME_HEADER + terminal->screen.held.size);
  first.size = FRAME_HEADER;
  if (terminal->is_seen) screen_replay(&terminal->screen, &first);
  else bytes_add(&first, terminal->screen.held.data, terminal->screen.held.size);
  frame_seal(first.data, first.size, 'o');
  bool is_to_redraw = terminal->is_seen && screen_alternate(&terminal->screen);
  terminal->is_seen = true;
  terminal->attached = attachment_new(terminal, asked, name);
  outbox_push(terminal->attached->outbox, first.data, first.size);
  bytes_free(&first);
  if (is_to_redraw) redraw(terminal);
  pty_advance(&terminal->pty);
}

/* --- Input --- */

bool terminal_has(const struct terminal *terminal, const char *name) {
  return terminal->attached != NULL && strcmp(terminal->attached->name, name) == 0;
}

void terminal_input(struct terminal *terminal, const uint8_t *bytes, size_t size) {
  terminal->attached->references++;
  pty_write(&terminal->pty, bytes, size, tell_taken, release, terminal->attached);
}

void terminal_resize(struct terminal *terminal, unsigned cols, unsigned rows) {
  terminal->cols = cols;
  terminal->rows = rows;
  pty_resize(&terminal->pty, cols, rows);
}

/* --- The beginning and the end --- */

/* In a turn of its own: it may be what a caller is in the midst of. */
static void free_terminal(struct later *later) {
  struct terminal *terminal = MEMBER(later, struct terminal, freeing);
  screen_free(&terminal->screen);
  free(terminal->id);
  free(terminal);
}

static void remove_from_list(struct terminal *terminal) {
  for (struct terminal **at = &terminals; *at != NULL; at = &(*at)->next)
    if (*at == terminal) {
      *at = terminal->next;
      return;
    }
}

/* `exit_code`: NULL when it has none. */
static void end(struct terminal *terminal, const int *exit_code, const char *reason) {
  if (terminal->is_over) return;
  terminal->is_over = true;
  remove_from_list(terminal);
  pty_drain(&terminal->pty);
  pty_close(&terminal->pty);
  timer_end(&terminal->redraw);
  if (terminal->program != NULL) terminal_program_forget(terminal->program);
  struct bytes how = {0};
  if (exit_code == NULL) bytes_text(&how, "{\"exitCode\":null,\"reason\":");
  else bytes_format(&how, "{\"exitCode\":%d,\"reason\":", *exit_code);
  json_put_text(&how, reason);
  bytes_byte(&how, '}');
  if (terminal->attached != NULL) finish(terminal->attached, 'x', &how);
  bytes_free(&how);
  later_begin(&terminal->freeing, free_terminal);
}

static void program_ended(void *self, int exit_code) { end(self, &exit_code, NULL); }

bool terminal_create(struct asked *asked, const struct terminal_request *request, struct failure *failure) {
  struct terminal *terminal = memory(sizeof *terminal);
  terminal->audience = (struct audience){.wants = wants, .room = room, .take = take};
  terminal->cols = request->cols;
  terminal->rows = request->rows;
  if (!pty_begin(&terminal->pty, request->cols, request->rows, &terminal->audience, failure)) {
    free(terminal);
    return false;
  }
  terminal->program = terminal_start(asked, request->shell, terminal->pty.number, request->env, request->cwd,
                                     program_ended, terminal, failure);
  if (terminal->program == NULL) {
    end(terminal, NULL, NULL);
    return false;
  }
  terminal->id = copy_text(request->id);
  terminal->next = terminals;
  terminals = terminal;
  return true;
}

void terminals_end(const char *reason) {
  while (terminals != NULL) end(terminals, NULL, reason);
}
