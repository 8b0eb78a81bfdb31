/* One terminal: its screen, its program, and the client at it (terminal.c). */

#pragma once

#include "asked.h"
#include "pty.h"
#include "screen.h"
#include "terminal_start.h"

struct attachment;

/* It exists until it ends, with its program or by terminal_end. */
struct terminal {
  struct terminal *next;
  char *id;
  struct pty pty;
  struct audience audience;
  struct screen screen;
  struct attachment *attached;
  struct terminal_program *program;
  bool is_seen;
  bool is_over;
  bool is_in_outbox; /* the memory that the pty reads into */
  unsigned cols, rows;
  struct timer redraw;
  struct later freeing;
};

/* What a request to make one says, checked. */
struct terminal_request {
  const char *id, *shell, *cwd;
  unsigned cols, rows;
  const struct json *env;
};

size_t terminal_count(void);
struct terminal *terminal_find(const char *id); /* id may be NULL */
bool terminal_create(struct asked *asked, const struct terminal_request *request, struct failure *failure);
/* Another client is told that this one has come. Answers the request. */
void terminal_attach(struct terminal *terminal, struct asked *asked, const char *name);
/* Whether the client of this name is at it. */
bool terminal_has(const struct terminal *terminal, const char *name);
/* Input of the client that is at it, which there must be. */
void terminal_input(struct terminal *terminal, const uint8_t *bytes, size_t size);
void terminal_resize(struct terminal *terminal, unsigned cols, unsigned rows);
/* Ends all of them. */
void terminals_end(const char *reason);
