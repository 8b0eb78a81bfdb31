/* One output stream of a background process, on its way into the log, in entries that split no character. */

#pragma once

#include "flow.h"
#include "logs.h"
#include "pipes.h"

enum { CHARACTER = 3 }; /* bytes of an incomplete character at most */

struct process_output {
  struct taker taker;
  struct reader reader;
  struct flow_waiter waiter;
  struct log *log;
  char kind;
  bool has_ended;
  uint8_t rest[CHARACTER];
  size_t rest_size;
  void (*ended)(struct process_output *output);
};

/* Reads the pipe, which it takes, into the log, which must live until `ended`. There the output may be freed. */
void output_begin(struct process_output *output, int fd, char kind, struct log *log,
                  void (*ended)(struct process_output *));
/* Takes all that was written before, also bytes that have not become a whole character yet. */
void output_settle(struct process_output *output);
/* Looks whether nothing holds the pipe any more: then `ended` is called. */
void output_look(struct process_output *output);

/* How many bytes at the end are the beginning of a UTF-8 character. */
size_t incomplete_character(const uint8_t *bytes, size_t size);
