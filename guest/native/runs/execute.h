/* What runs in shells and in prepared processes share. */

#pragma once

#include "bodies.h"
#include "runs.h"

/* A checked request. What it points to belongs to the request's JSON. */
struct run_request {
  const struct json *code; /* exactly one of the two */
  const struct json *command;
  const struct json *env; /* or NULL */
  const char *cwd;
  const struct json *input; /* base64, or NULL */
  int64_t most_output;      /* bytes of each stream */
  bool is_live;             /* a client watches: output is then sent at once */
  const char *feed;         /* the name under which standard input arrives in pieces; "" when it is `input` */
  const char *edge;         /* the ticket with which the edge fetches standard output; "" when it goes to the host */
};

/* Fails with EINVAL. */
bool run_request_read(struct run_request *run, const struct json *body, struct failure *failure);
bool is_working_directory(const struct json *cwd);
bool run_script(const struct run_request *run, struct bytes *script, struct bytes *text, struct failure *failure);

/* What lets a process start that has the program already. */
struct go {
  void (*give)(struct go *go);
  bool (*is_taken)(struct go *go); /* false while it is certain that the program has not started */
  void (*close)(struct go *go);    /* keeps whether it was taken, which is_taken may be asked until `free` */
  void (*free)(struct go *go);
};

/* How the program starts: by a script and a text, whose memory is taken, or by a go. */
struct start {
  struct bytes *script, *text;
  struct go *go;
};

/* Runs the request in the spare, which it takes. The answer streams frames and ends with the program. If the host hangs
 * up, the program goes on. With a go, no output is the program's until the go is taken; if the process ends first, the
 * answer says so. */
void execute(struct asked *asked, struct spare *spare, const struct run_request *run, const struct start *start);
