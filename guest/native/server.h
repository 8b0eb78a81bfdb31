/* What the guest answers. */

#pragma once

#include "asked.h"

/* Answers a request by the handler of its operation. 404 ENOSYS when there is none. */
void server_answer(struct asked *asked);
