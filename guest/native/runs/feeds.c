/* Standard input that arrives in pieces while the run is under way.
 *
 * A piece is answered when it is in the program's pipe, so the guest holds nothing for a program that does not read. */

#include "feeds.h"
#include "bodies.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
  PATIENCE = 30000, /* ms to wait for a run to begin */
  MOST_WAITING = 64,
  UNCLAIMED = 60000 /* ms that the end of an arrival waits for the host's question */
};

/* The writing end of a pipe. */
struct feed {
  char *name;
  struct watch watch;
  struct bytes rest; /* of the piece that is on its way */
  size_t at;
  void (*taken)(void *self, bool is_open); /* NULL: no piece is on its way */
  void *self;
  struct feed *next;
};

/* A question whether a run has begun. */
struct waiting {
  struct asked *asked;
  char *name;
  struct timer timer;
  struct waiting *next;
};

/* What the edge brings for a feed. */
struct arrival {
  char *name, *ticket;
  struct arriving *arriving; /* NULL: no more comes */
  int64_t missing;
  struct asked *asked; /* the host's question, if it waits */
  struct timer timer;
  bool is_taking;           /* a part is being handed over */
  bool was_taken, was_open; /* at once */
  struct arrival *next;
};

static struct {
  struct feed *feeds;
  struct waiting *waiting;
  int waiting_count;
  struct arrival *arrivals;
} all;

static struct feed *feed_named(const char *name) {
  struct feed *feed = all.feeds;
  while (feed != NULL && strcmp(feed->name, name) != 0) feed = feed->next;
  return feed;
}

static bool is_open(const struct feed *feed) { return feed != NULL && feed->watch.fd >= 0; }

static void answer_open(struct asked *asked, bool open) {
  answer_format(asked, "{\"open\":%s}", open ? "true" : "false");
}

static const char *name_in(struct asked *asked, const char *parameter) {
  const char *name = asked_text(asked, parameter);
  return name == NULL ? "" : name;
}

/* --- A piece on its way --- */

static void tell_taken(struct feed *feed) {
  void (*taken)(void *, bool) = feed->taken;
  feed->taken = NULL;
  bytes_free(&feed->rest);
  if (taken != NULL) taken(feed->self, is_open(feed));
}

static void close_feed(struct feed *feed) {
  if (is_open(feed)) {
    int fd = feed->watch.fd;
    watch_end(&feed->watch);
    close(fd);
  }
  tell_taken(feed);
}

static void advance(struct feed *feed) {
  while (feed->at < feed->rest.size) {
    ssize_t count = write(feed->watch.fd, feed->rest.data + feed->at, feed->rest.size - feed->at);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0 && errno == EAGAIN) return watch_change(&feed->watch, EPOLLOUT);
    if (count < 0) return close_feed(feed);
    feed->at += (size_t)count;
  }
  watch_change(&feed->watch, 0);
  tell_taken(feed);
}

static void ready(struct watch *watch, uint32_t events) {
  struct feed *feed = MEMBER(watch, struct feed, watch);
  if (events & EPOLLERR) close_feed(feed); /* nobody reads any more */
  else advance(feed);
}

/* Calls `taken` when all of it is in the pipe, with false when nobody reads any more. Takes the memory of `bytes`.
 * Fails with EAGAIN when a piece is on its way already. */
static bool write_piece(struct feed *feed, struct bytes *bytes, void (*taken)(void *, bool), void *self,
                        struct failure *failure) {
  if (feed->taken != NULL) {
    bytes_free(bytes);
    return fail(failure, EAGAIN, "a piece is on its way already");
  }
  feed->rest = *bytes;
  *bytes = (struct bytes){0};
  feed->at = 0;
  feed->taken = taken;
  feed->self = self;
  if (is_open(feed)) advance(feed);
  else tell_taken(feed);
  return true;
}

/* --- The run's side --- */

static void stop_waiting(struct waiting *waiting, bool has_begun) {
  struct waiting **at = &all.waiting;
  while (*at != waiting) at = &(*at)->next;
  *at = waiting->next;
  all.waiting_count--;
  timer_end(&waiting->timer);
  answer_open(waiting->asked, has_begun);
  free(waiting->name);
  free(waiting);
}

struct feed *feed_begin(const char *name, int fd) {
  struct feed *feed = memory(sizeof *feed);
  feed->name = copy_text(name);
  make_nonblocking(fd);
  watch_begin(&feed->watch, fd, 0, ready);
  feed->next = all.feeds;
  all.feeds = feed;
  for (struct waiting *waiting = all.waiting, *next; waiting != NULL; waiting = next) {
    next = waiting->next;
    if (strcmp(waiting->name, name) == 0) stop_waiting(waiting, true);
  }
  return feed;
}

void feed_end(struct feed *feed) {
  struct feed **at = &all.feeds;
  while (*at != feed) at = &(*at)->next;
  *at = feed->next;
  close_feed(feed);
  for (struct arrival *arrival = all.arrivals; arrival != NULL; arrival = arrival->next)
    if (arrival->arriving != NULL && strcmp(arrival->name, feed->name) == 0) arriving_finish(arrival->arriving);
  free(feed->name);
  free(feed);
}

/* --- Pieces from the host --- */

static void waited(struct timer *timer) { stop_waiting(MEMBER(timer, struct waiting, timer), false); }

void feed_begun(struct asked *asked) {
  const char *name = name_in(asked, "name");
  if (feed_named(name) != NULL) return answer_open(asked, true);
  if (all.waiting_count >= MOST_WAITING) return answer_error(asked, EAGAIN, "too many feeds wait for their runs");
  struct waiting *waiting = memory(sizeof *waiting);
  waiting->asked = asked;
  waiting->name = copy_text(name);
  waiting->next = all.waiting;
  all.waiting = waiting;
  all.waiting_count++;
  timer_begin(&waiting->timer, PATIENCE, waited);
}

static void piece_taken(void *self, bool open) { answer_open(self, open); }

static void got_piece(struct asked *asked, const uint8_t *piece, size_t size) {
  struct feed *feed = feed_named(name_in(asked, "name"));
  if (feed == NULL) return answer_open(asked, false);
  if (size == 0) { /* the end */
    close_feed(feed);
    return answer_open(asked, false);
  }
  struct bytes bytes = {0};
  struct failure failure;
  bytes_add(&bytes, piece, size);
  if (!write_piece(feed, &bytes, piece_taken, asked, &failure)) answer_failure(asked, &failure);
}

void feed_piece(struct asked *asked) { asked_whole(asked, got_piece); }

/* --- Pieces from the edge --- */

static void forget_arrival(struct timer *timer) {
  struct arrival *arrival = MEMBER(timer, struct arrival, timer), **at = &all.arrivals;
  while (*at != arrival) at = &(*at)->next;
  *at = arrival->next;
  free(arrival->name);
  free(arrival->ticket);
  free(arrival);
}

static void answer_missing(struct arrival *arrival) {
  struct asked *asked = arrival->asked;
  arrival->asked = NULL;
  asked_on_gone(asked, NULL);
  answer_format(asked, "{\"missing\":%lld,\"open\":%s}", (long long)arrival->missing,
                is_open(feed_named(arrival->name)) ? "true" : "false");
}

static void arrival_over(void *self, int64_t missing) {
  struct arrival *arrival = self;
  arrival->arriving = NULL;
  arrival->missing = missing;
  timer_begin(&arrival->timer, UNCLAIMED, forget_arrival);
  if (arrival->asked != NULL) answer_missing(arrival);
}

static void part_taken(void *self, bool open) {
  struct arrival *arrival = self;
  arrival->was_taken = arrival->is_taking;
  arrival->was_open = open;
  if (!arrival->is_taking && arrival->arriving != NULL) arriving_taken(arrival->arriving, open);
}

static enum taken take_part(void *self, const uint8_t *part, size_t size) {
  struct arrival *arrival = self;
  struct feed *feed = feed_named(arrival->name);
  struct bytes bytes = {0};
  struct failure failure;
  if (!is_open(feed)) return TAKEN_ENOUGH;
  bytes_add(&bytes, part, size);
  arrival->is_taking = true;
  arrival->was_taken = false;
  bool is_written = write_piece(feed, &bytes, part_taken, arrival, &failure);
  arrival->is_taking = false;
  if (is_written && !arrival->was_taken) return TAKEN_LATER;
  if (!is_written) failure_free(&failure);
  return is_written && arrival->was_open ? TAKEN_MORE : TAKEN_ENOUGH;
}

void feed_from_edge(struct asked *asked) {
  static const struct arriving_target target = {.take = take_part, .over = arrival_over};
  struct failure failure;
  bool failed = false;
  int64_t size;
  const char *ticket = ticket_in(asked, &failed, &failure);
  if (failed || !asked_number(asked, "size", 0, &size, &failure)) return answer_failure(asked, &failure);
  struct arrival *arrival = memory(sizeof *arrival);
  arrival->name = copy_text(name_in(asked, "name"));
  arrival->ticket = copy_text(ticket == NULL ? "" : ticket);
  arrival->next = all.arrivals;
  all.arrivals = arrival;
  arrival->arriving = arriving_begin(arrival->ticket, size, &target, arrival);
  answer_empty(asked);
}

static void asker_left(struct asked *asked) {
  struct arrival *arrival = asked_self(asked);
  if (arrival->arriving != NULL) arriving_stop(arrival->arriving);
}

void feed_came_from_edge(struct asked *asked) {
  const char *ticket = name_in(asked, "ticket");
  struct arrival *arrival = all.arrivals;
  while (arrival != NULL && strcmp(arrival->ticket, ticket) != 0) arrival = arrival->next;
  if (arrival == NULL) return answer_error(asked, ETIME, "there is no such ticket");
  if (arrival->asked != NULL) return answer_error(asked, EAGAIN, "this is being asked already");
  arrival->asked = asked;
  if (arrival->arriving == NULL) return answer_missing(arrival);
  asked_keep(asked, arrival);
  asked_on_gone(asked, asker_left);
}
