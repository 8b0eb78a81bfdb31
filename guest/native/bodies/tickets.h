/* Tickets, and what each of them opens (bodies.h). For the modules of bodies alone. */

#pragma once

#include "loop.h"

enum { TICKET = 32 };

/* One transfer of a body. Part of an object that frees itself. */
struct transfer {
  char ticket[TICKET + 1];
  bool brings; /* the edge brings bytes (PUT); otherwise it fetches them (GET) */
  bool is_known;
  struct transfer *next, *previous;
  struct timer patience;
  /* The edge has come: takes the connection, which is not watched, with what arrived behind its head. Called once at
   * most. The bytes are valid until it returns. */
  void (*begin)(struct transfer *transfer, int fd, const uint8_t *rest, size_t size);
  /* Nobody came. */
  void (*leave)(struct transfer *transfer);
};

/* The ticket opens the transfer, whose `brings`, `begin` and `leave` are filled in, until its patience is over. An
 * older transfer with the same ticket cannot be reached any more. */
void ticket_issue(struct transfer *transfer, const char *ticket);
/* Nothing when it is not issued. */
void ticket_withdraw(struct transfer *transfer);
/* The transfer, whose ticket is then used up, or NULL. `ticket`: TICKET characters. */
struct transfer *ticket_redeem(bool brings, const char *ticket);
