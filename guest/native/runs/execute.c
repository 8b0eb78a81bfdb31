/* A run in a process that was parked for it (execute.h). */

#include "execute.h"
#include "feeds.h"
#include <stdlib.h>
#include <unistd.h>

struct run {
  struct outbox *outbox; /* until the end */
  struct spare *spare;
  struct run_output outputs[2];
  struct reader readers[2];
  struct writer input, text, script;
  struct feed *feed;
  struct piping *piping;
  struct go *go;
  change_mark mark;
  int status;
  int parts; /* that are not over yet: two readers, and the answer. The last one frees the run */
};

static const char HELD[] = "held"; /* to the host, in place of the output that the edge fetches */

static void part_is_over(struct run *run) {
  if (--run->parts > 0) return;
  if (run->go != NULL) run->go->free(run->go);
  free(run);
}

static void output_closed(struct reader *reader) { part_is_over(MEMBER(reader, struct run, readers[0])); }
static void errors_closed(struct reader *reader) { part_is_over(MEMBER(reader, struct run, readers[1])); }

static bool has_started(void *self) {
  struct run *run = self;
  return run->go == NULL || run->go->is_taken(run->go);
}

static void host_has_room(void *self) {
  struct run *run = self;
  reader_advance(&run->readers[0]);
  reader_advance(&run->readers[1]);
}

static void edge_has_room(void *self) { reader_advance(&((struct run *)self)->readers[0]); }

static void host_left(void *self) {
  struct run *run = self;
  if (run->piping != NULL) piping_leave(run->piping);
}

/* Tells the host when the first output has come. */
static void edge_may_come(void *self) {
  struct run *run = self;
  uint8_t frame[FRAME_HEADER + sizeof HELD - 1];
  for (size_t at = 0; at < sizeof HELD - 1; at++) frame[FRAME_HEADER + at] = (uint8_t)HELD[at];
  frame_seal(frame, sizeof frame, 'o');
  outbox_push(run->outbox, frame, sizeof frame);
}

/* --- The end --- */

static void finish(struct run *run, struct bytes *json) {
  struct bytes frame = {0};
  frame_add(&frame, 'x', json->data, json->size);
  bytes_free(json);
  outbox_finish(run->outbox, frame.data, frame.size);
  run->outbox = NULL;
  bytes_free(&frame);
  part_is_over(run);
}

static void answer_end(void *self, struct bytes *members) {
  struct run *run = self;
  struct bytes json = {0};
  bool is_truncated = run->outputs[0].is_truncated || run->outputs[1].is_truncated;
  bytes_format(&json, "{\"exitCode\":%d,\"truncated\":%s,", run->status, is_truncated ? "true" : "false");
  bytes_add(&json, members->data, members->size);
  bytes_byte(&json, '}');
  finish(run, &json);
}

static void program_ended(struct spare *spare, void *self) {
  struct run *run = self;
  run->status = spare->status;
  writer_close(&run->input);
  writer_close(&run->text);
  writer_close(&run->script);
  if (run->feed != NULL) feed_end(run->feed);
  bool started = has_started(run);
  if (run->go != NULL) run->go->close(run->go);
  spare->script = spare->input = spare->text = spare->output = spare->errors = -1; /* they belong to the run */
  spare_free(spare);
  for (int at = 0; started && at < 2; at++) reader_drain(&run->readers[at]);
  for (int at = 0; at < 2; at++) reader_drop(&run->readers[at]);
  if (run->piping != NULL) piping_release(run->piping);
  run->piping = NULL;
  if (started) return written_since(run->mark, answer_end, run);
  struct bytes json = {0};
  bytes_format(&json, "{\"exitCode\":%d,\"started\":false}", run->status);
  finish(run, &json);
}

/* --- The start --- */

static void begin_outputs(struct run *run, const struct run_request *request) {
  run_output_begin(&run->outputs[0], 'o', request->most_output, run->outbox, has_started, run);
  run_output_begin(&run->outputs[1], 'e', request->most_output, run->outbox, has_started, run);
  if (request->edge[0] != '\0') run->piping = piping_begin(request->edge, edge_may_come, edge_has_room, run);
  struct taker *first = run->piping == NULL ? &run->outputs[0].taker : piping_taker(run->piping);
  run->readers[0].closed = output_closed;
  run->readers[1].closed = errors_closed;
  reader_begin(&run->readers[0], run->spare->output, first);
  reader_begin(&run->readers[1], run->spare->errors, &run->outputs[1].taker);
}

static void begin_input(struct run *run, const struct run_request *request) {
  run->input.watch.fd = run->text.watch.fd = run->script.watch.fd = -1;
  if (request->feed[0] != '\0') {
    run->feed = feed_begin(request->feed, run->spare->input);
    return;
  }
  struct bytes input = {0};
  if (request->input != NULL) bytes_from_base64(&input, request->input->text, request->input->size);
  if (run->spare->input >= 0) writer_begin(&run->input, run->spare->input, &input);
  bytes_free(&input); /* a prepared process has none */
}

static void start_run(struct run *run, const struct run_request *request, const struct start *start) {
  run->go = start->go;
  run->mark = mark_now();
  run->parts = 3;
  begin_outputs(run, request);
  begin_input(run, request);
  if (start->go == NULL) {
    writer_begin(&run->text, run->spare->text, start->text);
    writer_begin(&run->script, run->spare->script, start->script);
  } else start->go->give(start->go);
  outbox_on_gone(run->outbox, host_left, run);
  spare_on_end(run->spare, program_ended, run);
}

void execute(struct asked *asked, struct spare *spare, const struct run_request *run, const struct start *start) {
  struct run *mine = memory(sizeof *mine);
  mine->spare = spare;
  mine->outbox = outbox_begin(asked, run->is_live, host_has_room, mine);
  start_run(mine, run, start);
}

/* --- An output --- */

static bool output_wants(struct taker *taker) {
  struct run_output *output = MEMBER(taker, struct run_output, taker);
  if (output->has_started != NULL && !output->has_started(output->self)) return false;
  return outbox_has_room(output->outbox);
}

static uint8_t *output_room(struct taker *taker, size_t size) {
  struct run_output *output = MEMBER(taker, struct run_output, taker);
  return outbox_room(output->outbox, size);
}

static void output_take(struct taker *taker, uint8_t *chunk, size_t size) {
  struct run_output *output = MEMBER(taker, struct run_output, taker);
  int64_t came = (int64_t)(size - FRAME_HEADER), sent = came < output->left ? came : output->left;
  output->is_truncated |= sent < came;
  output->left -= sent;
  if (sent == 0) return;
  frame_seal(chunk, FRAME_HEADER + (size_t)sent, output->type);
  outbox_push(output->outbox, chunk, FRAME_HEADER + (size_t)sent);
}

void run_output_begin(struct run_output *output, char type, int64_t limit, struct outbox *outbox,
                      bool (*started)(void *self), void *self) {
  *output = (struct run_output){
      .taker = {.headroom = FRAME_HEADER, .wants = output_wants, .room = output_room, .take = output_take},
      .type = type,
      .left = limit,
      .outbox = outbox,
      .has_started = started,
      .self = self,
  };
}
