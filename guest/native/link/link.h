/* The guest's end of the link to the server (PROTOCOL.md): connections and their frames. */

#pragma once

#include "asked.h"

enum { PROTOCOL = 2 };

/* Starts to listen at settings.address and settings.port. `answer` is called with each request. False with errno. */
bool link_listen(void (*answer)(struct asked *asked));
