/* Splits long work into turns, so that other requests are served in between. */

#include "loop.h"
#include "walk.h"

static const double TURN = 5; /* ms */

void pace_begin(struct pace *pace, double turn) {
  *pace = (struct pace){.since = now(), .turn = turn > 0 ? turn : TURN};
}

bool pace_is_due(const struct pace *pace) { return now() - pace->since > pace->turn; }

void pace_rested(struct pace *pace) { pace->since = now(); }
