/* Limits how fast output may enter logs (flow.h). */

#include "flow.h"
#include "loop.h"

enum {
  RATE = 24 << 20,  /* bytes a second … */
  BURST = 16 << 20, /* … beyond a burst of so many bytes */
  TURN = 20         /* ms */
};

static struct {
  double left, since;
  bool has_begun;
  struct timer timer;
  struct flow_waiter waiting, resuming; /* heads of rings, or all zeros */
} flow;

static bool is_empty(const struct flow_waiter *ring) { return ring->next == NULL || ring->next == ring; }

static void begin(void) {
  if (flow.has_begun) return;
  flow.has_begun = true;
  flow.left = BURST;
  flow.since = now();
}

void flow_took(size_t size) {
  begin();
  flow.left -= (double)size;
}

static void refill(void) {
  double time = now();
  flow.left += (time - flow.since) / 1000 * RATE;
  if (flow.left > BURST) flow.left = BURST;
  flow.since = time;
}

static void add(struct flow_waiter *ring, struct flow_waiter *waiter) {
  if (ring->next == NULL) ring->next = ring->previous = ring;
  waiter->next = ring;
  waiter->previous = ring->previous;
  ring->previous->next = waiter;
  ring->previous = waiter;
}

void flow_leave(struct flow_waiter *waiter) {
  if (waiter->next == NULL) return;
  waiter->next->previous = waiter->previous;
  waiter->previous->next = waiter->next;
  waiter->next = waiter->previous = NULL;
}

/* Who is resumed may wait again, and may free others that wait. */
static void resume(struct timer *timer) {
  while (!is_empty(&flow.waiting)) {
    struct flow_waiter *waiter = flow.waiting.next;
    flow_leave(waiter);
    add(&flow.resuming, waiter);
  }
  while (!is_empty(&flow.resuming)) {
    struct flow_waiter *waiter = flow.resuming.next;
    flow_leave(waiter);
    waiter->resume(waiter);
  }
}

bool flow_wants(struct flow_waiter *waiter) {
  begin();
  if (flow.left <= 0) refill();
  if (flow.left > 0) return true;
  if (waiter->next == NULL) add(&flow.waiting, waiter);
  if (!timer_runs(&flow.timer)) timer_begin(&flow.timer, TURN, resume);
  return false;
}
