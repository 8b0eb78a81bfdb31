/* Output of background processes (outputs.h). */

#include "outputs.h"
#include <string.h>

enum { HEADROOM = ENTRY_HEADER + CHARACTER };

size_t incomplete_character(const uint8_t *bytes, size_t size) {
  for (size_t back = 1; back <= CHARACTER && back <= size; back++) {
    uint8_t byte = bytes[size - back];
    size_t whole = byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
    if (byte >= 0xc2 && byte <= 0xf4) return back < whole ? back : 0;
    if (byte < 0x80 || byte > 0xbf) return 0;
  }
  return 0;
}

static void resume(struct flow_waiter *waiter) {
  reader_advance(&MEMBER(waiter, struct process_output, waiter)->reader);
}

static bool wants(struct taker *taker) { return flow_wants(&MEMBER(taker, struct process_output, taker)->waiter); }

/* The rest from before goes in front, and what is incomplete now waits. */
static void take(struct taker *taker, uint8_t *chunk, size_t size) {
  struct process_output *output = MEMBER(taker, struct process_output, taker);
  flow_took(size);
  uint8_t *start = chunk + HEADROOM - output->rest_size, *end = chunk + size;
  memcpy(start, output->rest, output->rest_size);
  output->rest_size = incomplete_character(start, (size_t)(end - start));
  end -= output->rest_size;
  memcpy(output->rest, end, output->rest_size);
  if (end > start) log_append(output->log, output->kind, start - ENTRY_HEADER, (size_t)(end - start) + ENTRY_HEADER);
}

/* Writes bytes that never became a whole character. */
static void flush(struct process_output *output) {
  uint8_t entry[HEADROOM];
  size_t size = output->rest_size;
  if (size == 0) return;
  memcpy(entry + ENTRY_HEADER, output->rest, size);
  output->rest_size = 0;
  log_append(output->log, output->kind, entry, ENTRY_HEADER + size);
}

static void closed(struct reader *reader) {
  struct process_output *output = MEMBER(reader, struct process_output, reader);
  flow_leave(&output->waiter);
  flush(output);
  output->has_ended = true;
  output->ended(output);
}

void output_begin(struct process_output *output, int fd, char kind, struct log *log,
                  void (*ended)(struct process_output *)) {
  output->taker = (struct taker){.headroom = HEADROOM, .wants = wants, .take = take};
  output->waiter = (struct flow_waiter){.resume = resume};
  output->log = log;
  output->kind = kind;
  output->ended = ended;
  output->reader.closed = closed;
  reader_begin(&output->reader, fd, &output->taker);
}

void output_settle(struct process_output *output) {
  reader_drain(&output->reader);
  flush(output);
}

void output_look(struct process_output *output) { reader_advance(&output->reader); }
