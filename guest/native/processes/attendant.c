/* The shell of a service (attendant.h). */

#include "attendant.h"
#include "input.h"
#include "pipes.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* SIGTERM is for the program: the shell goes on until that has ended. A subshell has no traps. Its descriptor 6 is for
 * what it tells the guest: the pipe for text (4), the other way round. */
#define PREPARE "trap : TERM INT HUP; exec 6>/proc/self/fd/4 3<&- 4<&-\n"

enum {
  LONGEST = 64, /* bytes of a line that it tells; what is longer comes from the session and is left out */
  DIGITS = 7,
  PIDS = 1 << 22
};

struct attendant {
  struct taker taker;
  struct reader reader;
  struct input input;
  int text; /* our writing end keeps the pipe from ending before the shell has opened it */
  const struct told *told;
  void *self;
  char line[LONGEST + 1];
  size_t size;
  bool is_long;
  bool is_over; /* its shell has ended, and nobody else holds it */
};

/* --- What it tells. Any program of the session can write here, too. --- */

static void heed(struct attendant *attendant) {
  char *line = attendant->line;
  line[attendant->size] = 0;
  if (strlen(line) != attendant->size || attendant->size < 3 || line[1] != ' ') return;
  size_t digits = strspn(line + 2, "0123456789");
  if (digits > DIGITS || digits + 2 != attendant->size) return;
  int number = atoi(line + 2);
  if (line[0] == 'p' && number > 0 && number < PIDS) attendant->told->begun(attendant->self, number);
  if (line[0] == 'e' && number < 256) attendant->told->ended(attendant->self, number);
}

static void take(struct taker *taker, uint8_t *chunk, size_t size) {
  struct attendant *attendant = MEMBER(taker, struct attendant, taker);
  for (size_t at = 0; at < size; at++) {
    if (chunk[at] != '\n') {
      if (attendant->size < LONGEST) attendant->line[attendant->size++] = (char)chunk[at];
      else attendant->is_long = true;
      continue;
    }
    if (!attendant->is_long) heed(attendant);
    attendant->size = 0;
    attendant->is_long = false;
  }
}

/* --- Its life --- */

static void closed(struct reader *reader) {
  struct attendant *attendant = MEMBER(reader, struct attendant, reader);
  if (attendant->is_over) free(attendant);
}

/* The reading end of the pipe, which the guest does not have yet. -1 with errno, also when the session has mounted
 * something else over /proc. */
static int reading_end(int text) {
  char path[64];
  struct stat ours, found;
  snprintf(path, sizeof path, "/proc/self/fd/%d", text);
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
  if (fd < 0) return -1;
  if (fstat(text, &ours) == 0 && fstat(fd, &found) == 0 && S_ISFIFO(found.st_mode) && ours.st_ino == found.st_ino &&
      ours.st_dev == found.st_dev)
    return fd;
  close(fd);
  errno = EIO;
  return -1;
}

struct attendant *attendant_begin(struct spare *spare, const struct told *told, void *self) {
  int tells = reading_end(spare->text);
  if (tells < 0) return NULL;
  struct attendant *attendant = memory(sizeof *attendant);
  attendant->taker.take = take;
  attendant->told = told;
  attendant->self = self;
  attendant->text = spare->text;
  attendant->reader.closed = closed;
  input_begin(&attendant->input, spare->script);
  reader_begin(&attendant->reader, tells, &attendant->taker);
  spare->script = spare->text = -1;
  input_send(&attendant->input, PREPARE, sizeof PREPARE - 1, false);
  return attendant;
}

void attendant_run(struct attendant *attendant, const struct bytes *program) {
  struct bytes script = {0};
  bytes_text(&script, "(\nread -r p q </proc/self/stat; echo \"p $p\" >&6\n");
  bytes_add(&script, program->data, program->size);
  bytes_text(&script, "\n)\necho \"e $?\" >&6\n");
  input_send(&attendant->input, script.data, script.size, false);
  bytes_free(&script);
}

void attendant_end(struct attendant *attendant, int exit_code) {
  char text[32];
  int size = snprintf(text, sizeof text, "exit %d\n", exit_code);
  input_send(&attendant->input, text, (size_t)size, true);
}

void attendant_close(struct attendant *attendant) {
  reader_drain(&attendant->reader);
  input_close(&attendant->input);
  close(attendant->text);
  attendant->is_over = true;
  if (reader_is_open(&attendant->reader)) reader_drop(&attendant->reader);
  else free(attendant);
}

bool program_of(const struct started *started, struct bytes *program, struct failure *failure) {
  static const int none[] = {-1};
  const char *shell = session_shell();
  const char *argv[] = {shell, "-c", started->command->text};
  return start_of(argv, shell == NULL ? 0 : COUNT(argv), started->env, started->cwd, SPARE_NOTHING, none, "6>&-",
                  program, failure);
}
