/* The standard input of a background process. Input may arrive in any pieces and is written as the process reads. */

#pragma once

#include "loop.h"

struct input {
  int fd; /* -1: closed */
  struct watch watch;
  uint8_t *waiting; /* what is not written yet: from `at` on */
  size_t at, size, room;
  bool is_closing;
};

/* Takes the writing end of a pipe. */
void input_begin(struct input *input, int fd);
/* Copies what cannot be written at once. Returns "sent", "closed" or "busy". */
const char *input_send(struct input *input, const void *bytes, size_t size, bool close);
/* Gives up on what is not written yet. Nothing when it is closed. */
void input_close(struct input *input);
