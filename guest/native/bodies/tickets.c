/* Tickets: each opens one transfer, for one connection, in one direction, and for a short time. */

#include "tickets.h"
#include "bodies.h"
#include <errno.h>
#include <string.h>

enum {
  PATIENCE = 10000, /* ms that a ticket waits for its connection */
  MOST_TICKETS = 256,
};

static struct {
  struct transfer *first;
  size_t count;
} tickets;

bool is_ticket(const char *text, size_t size) {
  if (size != TICKET) return false;
  for (size_t at = 0; at < size; at++)
    if (!(text[at] >= '0' && text[at] <= '9') && !(text[at] >= 'a' && text[at] <= 'f')) return false;
  return true;
}

const char *ticket_in(struct asked *asked, bool *failed, struct failure *failure) {
  const char *ticket = asked_text(asked, "ticket");
  *failed = false;
  if (ticket == NULL) return NULL;
  if (!is_ticket(ticket, strlen(ticket))) *failed = !fail(failure, EINVAL, "ticket");
  else if (tickets.count >= MOST_TICKETS) *failed = !fail(failure, EAGAIN, "too many tickets");
  return *failed ? NULL : ticket;
}

static void forget(struct transfer *transfer) {
  if (!transfer->is_known) return;
  transfer->is_known = false;
  tickets.count--;
  if (transfer->next != NULL) transfer->next->previous = transfer->previous;
  if (transfer->previous != NULL) transfer->previous->next = transfer->next;
  else tickets.first = transfer->next;
}

static struct transfer *find(const char *ticket) {
  for (struct transfer *each = tickets.first; each != NULL; each = each->next)
    if (memcmp(each->ticket, ticket, TICKET) == 0) return each;
  return NULL;
}

static void nobody_came(struct timer *timer) {
  struct transfer *transfer = MEMBER(timer, struct transfer, patience);
  forget(transfer);
  transfer->leave(transfer);
}

void ticket_issue(struct transfer *transfer, const char *ticket) {
  memset(transfer->ticket, 0, sizeof transfer->ticket);
  memcpy(transfer->ticket, ticket, strnlen(ticket, TICKET));
  timer_begin(&transfer->patience, PATIENCE, nobody_came);
  struct transfer *before = find(transfer->ticket);
  if (before != NULL) forget(before); /* its patience still ends it */
  transfer->is_known = true;
  transfer->previous = NULL;
  transfer->next = tickets.first;
  if (tickets.first != NULL) tickets.first->previous = transfer;
  tickets.first = transfer;
  tickets.count++;
}

void ticket_withdraw(struct transfer *transfer) {
  timer_end(&transfer->patience);
  forget(transfer);
}

struct transfer *ticket_redeem(bool brings, const char *ticket) {
  struct transfer *found = find(ticket);
  if (found == NULL || found->brings != brings) return NULL;
  ticket_withdraw(found);
  return found;
}
