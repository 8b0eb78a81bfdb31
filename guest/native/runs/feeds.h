/* Standard input that arrives in pieces while the run is under way. */

#pragma once

#include "asked.h"

struct feed;

/* Feeds the run's input from now on, until feed_end. Takes the descriptor. */
struct feed *feed_begin(const char *name, int fd);
void feed_end(struct feed *feed);

/* The handlers of GET and POST /feed, and of /feed/edge. */
void feed_begun(struct asked *asked);
void feed_piece(struct asked *asked);
void feed_from_edge(struct asked *asked);
void feed_came_from_edge(struct asked *asked);
