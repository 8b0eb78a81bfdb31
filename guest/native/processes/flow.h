/* Limits how fast output may enter logs, so that a program that writes without end leaves time for all others. */

#pragma once

#include "bytes.h"

/* All zeros: it does not wait. */
struct flow_waiter {
  struct flow_waiter *next, *previous;
  void (*resume)(struct flow_waiter *waiter);
};

void flow_took(size_t size);
/* Whether more may come now. If not, `resume` is called once when it may. */
bool flow_wants(struct flow_waiter *waiter);
/* It waits no more. */
void flow_leave(struct flow_waiter *waiter);
