/* Logs on their way to the host (following.h). */

#include "following.h"
#include "all_logs.h"
#include "frames.h"
#include "loop.h"
#include <stdlib.h>
#include <string.h>

enum {
  DEFAULT_LIMIT = 1 << 18, /* bytes */
  ENOUGH = 64 << 10,       /* bytes */
  GATHER = 4               /* ms */
};

struct page {
  struct bytes bytes;
  int64_t cursor;
  bool is_empty, is_last;
  struct log *log; /* without a reference; NULL when the page is refused */
};

/* An answer that goes on. It frees itself at its end, or the link does by `drop`. */
struct log_follower {
  struct source source;
  process_id id; /* "" for what is none */
  int64_t cursor, limit;
  bool has_begun, is_over;
  double sent_at;
  struct bytes piece; /* on its way */
  struct timer timer;
  struct log_waiter waiter;
  struct log *log; /* while it waits for more output */
  struct later later;
};

/* --- A page --- */

static void refuse(struct page *page, const char *why) {
  struct bytes text = {0};
  bytes_format(&text, "{\"why\":\"%s\"}", why);
  frame_add(&page->bytes, 'n', text.data, text.size);
  bytes_free(&text);
  page->is_last = true;
}

static void seal(struct page *page, const struct record *record, int64_t dropped) {
  struct bytes text = {0};
  bytes_format(&text,
               "{\"cursor\":%lld,\"dropped\":%lld,\"end\":%lld,\"last\":%s,\"process\":", (long long)page->cursor,
               (long long)dropped, (long long)page->log->end, page->is_last ? "true" : "false");
  record_json(record, &text);
  bytes_byte(&text, '}');
  frame_add(&page->bytes, 'p', text.data, text.size);
  bytes_free(&text);
}

static void read_page(struct page *page, const char *id, int64_t cursor, int64_t limit) {
  struct log_page found;
  *page = (struct page){.cursor = cursor};
  struct record *record = records_find(id);
  if (record == NULL) return refuse(page, "absent");
  struct log *log = all_logs_of(record);
  if (log_read(log, cursor, limit, &found)) {
    page->log = log;
    page->bytes = found.entries;
    page->cursor = found.cursor;
    page->is_empty = found.entries.size == 0 && found.dropped == 0;
    page->is_last = record->status != STATUS_RUNNING && found.cursor == log->end;
    seal(page, record, found.dropped);
  } else refuse(page, "cursor");
  record_done(record);
}

/* --- Following --- */

static void stop_waiting(struct log_follower *follower) {
  log_leave(&follower->waiter);
  log_release(follower->log);
  follower->log = NULL;
}

static void free_follower(struct log_follower *follower) {
  stop_waiting(follower);
  timer_end(&follower->timer);
  later_end(&follower->later);
  bytes_free(&follower->piece);
  free(follower);
}

static void drop(struct source *source) { free_follower(MEMBER(source, struct log_follower, source)); }

static void gathered(struct timer *timer) {
  struct log_follower *follower = MEMBER(timer, struct log_follower, timer);
  follower->sent_at = -GATHER;
  source_ready(&follower->source);
}

static void look_again(struct later *later) {
  struct log_follower *follower = MEMBER(later, struct log_follower, later);
  stop_waiting(follower);
  source_ready(&follower->source);
}

/* Output is being written: what it wakes comes when that is done. */
static void look(struct log_waiter *waiter) {
  later_begin(&MEMBER(waiter, struct log_follower, waiter)->later, look_again);
}

static enum pulled send(struct log_follower *follower, struct page *page, const uint8_t **piece, size_t *size) {
  follower->has_begun = true;
  follower->is_over = page->is_last;
  follower->cursor = page->cursor;
  follower->piece = page->bytes;
  if (page->bytes.size < ENOUGH) follower->sent_at = now();
  *piece = page->bytes.data;
  *size = page->bytes.size;
  return PULLED_PIECE;
}

static enum pulled pull(struct source *source, const uint8_t **piece, size_t *size, const char **why) {
  struct log_follower *follower = MEMBER(source, struct log_follower, source);
  bytes_free(&follower->piece);
  if (follower->is_over) {
    free_follower(follower);
    return PULLED_END;
  }
  /* A page costs more than a few bytes of output, so bytes that follow at once travel together. */
  if (now() - follower->sent_at < GATHER) {
    timer_begin(&follower->timer, GATHER, gathered);
    return PULLED_LATER;
  }
  struct page page;
  read_page(&page, follower->id, follower->cursor, follower->limit);
  if (!page.is_empty || page.is_last || !follower->has_begun) return send(follower, &page, piece, size);
  bytes_free(&page.bytes);
  follower->log = log_keep(page.log);
  follower->waiter.look = look;
  log_wait(page.log, &follower->waiter);
  return PULLED_LATER;
}

static void follow(struct asked *asked, const char *id, int64_t cursor, int64_t limit) {
  struct log_follower *follower = memory(sizeof *follower);
  follower->source = (struct source){.next = pull, .drop = drop};
  if (is_process_id(id, strlen(id))) memcpy(follower->id, id, sizeof follower->id);
  follower->cursor = cursor;
  follower->limit = limit;
  follower->sent_at = -GATHER;
  answer_source(asked, NULL, &follower->source);
}

void logs_asked(struct asked *asked) {
  struct failure failure;
  int64_t cursor, limit;
  const char *id = asked_text(asked, "id");
  if (id == NULL) id = "";
  if (!asked_number(asked, "cursor", 0, &cursor, &failure) ||
      !asked_number(asked, "limit", DEFAULT_LIMIT, &limit, &failure))
    return answer_failure(asked, &failure);
  if (asked_flag(asked, "follow")) return follow(asked, id, cursor, limit);
  struct page page;
  read_page(&page, id, cursor, limit);
  answer_bytes(asked, NULL, &page.bytes);
}
