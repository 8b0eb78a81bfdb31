/* Ends of processes on their way to the host (ends.h). */

#include "ends.h"
#include "frames.h"
#include "loop.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum {
  MOST = 10000,  /* ids that the host asks for */
  AT_ONCE = 500, /* ends in a frame */
  GATHER = 5     /* ms: processes often end together */
};

struct known_end {
  process_id id;
  struct end end;
};

/* An answer that goes on. The link frees it, by `drop`. */
struct ends_follower {
  struct source source;
  struct ends_follower *next;
  struct bytes first; /* frames of what was known at the start; then the piece that is on its way */
  bool is_first;
  struct known_end *waiting;
  size_t count, room;
  struct timer timer;
};

static struct ends_follower *followers;

/* --- Frames --- */

/* Frames in the making. */
struct framing {
  struct bytes *into, frame;
  int count;
};

static void seal(struct framing *framing) {
  if (framing->count == 0) return;
  bytes_byte(&framing->frame, ']');
  frame_add(framing->into, 'd', framing->frame.data, framing->frame.size);
  framing->frame.size = 0;
  framing->count = 0;
}

static void add_end(struct framing *framing, const void *id, size_t id_size, struct end end) {
  struct bytes *frame = &framing->frame;
  bytes_byte(frame, framing->count == 0 ? '[' : ',');
  bytes_text(frame, "{\"id\":");
  json_put_string(frame, id, id_size);
  if (end.exit_code < 0) bytes_text(frame, ",\"exitCode\":null");
  else bytes_format(frame, ",\"exitCode\":%d", end.exit_code);
  bytes_format(frame, ",\"reason\":%s}", reason_json(end.reason));
  if (++framing->count == AT_ONCE) seal(framing);
}

static void finish(struct framing *framing) {
  seal(framing);
  bytes_free(&framing->frame);
}

/* Those that do not run. */
static void frame_known(const struct json *ids, struct bytes *into) {
  struct framing framing = {.into = into};
  for (size_t at = 0; at < ids->count; at++) {
    const struct json *id = &ids->items[at];
    struct record *record = strlen(id->text) == id->size ? records_find(id->text) : NULL;
    if (record == NULL) add_end(&framing, id->text, id->size, (struct end){.exit_code = -1});
    else if (record->status != STATUS_RUNNING)
      add_end(&framing, id->text, id->size, (struct end){record->exit_code, record->reason});
    record_done(record);
  }
  finish(&framing);
}

/* --- Following --- */

static enum pulled pull(struct source *source, const uint8_t **piece, size_t *size, const char **why) {
  struct ends_follower *follower = MEMBER(source, struct ends_follower, source);
  if (!follower->is_first) bytes_free(&follower->first);
  follower->is_first = false;
  if (follower->count > 0 && !timer_runs(&follower->timer)) {
    struct framing framing = {.into = &follower->first};
    for (size_t at = 0; at < follower->count; at++)
      add_end(&framing, follower->waiting[at].id, PROCESS_ID, follower->waiting[at].end);
    finish(&framing);
    free(follower->waiting);
    follower->waiting = NULL;
    follower->count = follower->room = 0;
  }
  if (follower->first.size == 0) return PULLED_LATER;
  *piece = follower->first.data;
  *size = follower->first.size;
  return PULLED_PIECE;
}

static void drop(struct source *source) {
  struct ends_follower *follower = MEMBER(source, struct ends_follower, source), **at = &followers;
  while (*at != follower) at = &(*at)->next;
  *at = follower->next;
  timer_end(&follower->timer);
  bytes_free(&follower->first);
  free(follower->waiting);
  free(follower);
}

static void gathered(struct timer *timer) { source_ready(&MEMBER(timer, struct ends_follower, timer)->source); }

void ends_add(const char *id, struct end end) {
  for (struct ends_follower *follower = followers; follower != NULL; follower = follower->next) {
    if (follower->count == follower->room) {
      follower->room = 2 * follower->room + 4;
      follower->waiting = more_memory(follower->waiting, follower->room * sizeof *follower->waiting);
    }
    if (follower->count == 0) timer_begin(&follower->timer, GATHER, gathered);
    struct known_end *known = &follower->waiting[follower->count++];
    memcpy(known->id, id, sizeof known->id);
    known->end = end;
  }
}

/* --- The request --- */

static const struct json *ids_in(const struct json *body) {
  const struct json *ids = json_get(body, "ids");
  if (!json_is(ids, JSON_ARRAY) || ids->count > MOST) return NULL;
  for (size_t at = 0; at < ids->count; at++)
    if (ids->items[at].kind != JSON_STRING) return NULL;
  return ids;
}

static void answer(struct asked *asked, const struct json *body) {
  const struct json *ids = ids_in(body);
  if (ids == NULL) return answer_error(asked, EINVAL, "ids has the wrong form");
  struct bytes known = {0};
  frame_known(ids, &known);
  if (!asked_flag(asked, "follow")) return answer_bytes(asked, NULL, &known);
  struct ends_follower *follower = memory(sizeof *follower);
  follower->source = (struct source){.next = pull, .drop = drop};
  follower->first = known;
  follower->is_first = true;
  follower->next = followers;
  followers = follower;
  answer_source(asked, NULL, &follower->source);
}

void ends_asked(struct asked *asked) { asked_json(asked, answer); }
