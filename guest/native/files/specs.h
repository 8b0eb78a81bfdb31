/* The head of a write: which files follow. */

#pragma once

#include "bytes.h"
#include "failure.h"

struct staged;

struct spec {
  char *path;   /* absolute */
  int64_t size; /* bytes of its content in the body */
  int mode;     /* permission bits; -1: 0644 for a new file, unchanged for an old one */
  bool append;
  struct staged *staged; /* NULL until it is staged (staged.h) */
};

struct specs {
  struct spec *items;
  size_t count;
};

bool specs_parse(const struct bytes *head, struct specs *specs, struct failure *failure);
bool specs_append(const struct specs *specs); /* whether one of them does */
void specs_free(struct specs *specs);
