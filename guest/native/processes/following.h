/* Logs on their way to the host, in pages. A page is some entries as they are in the log, and then a `p`,
 *
 *     {"cursor", "dropped", "end", "last", "process": record}
 *
 * or a single `n` instead of a page: {"why": "absent" | "cursor"}. */

#pragma once

#include "asked.h"

/* GET /processes/logs?id=&cursor=&limit=&follow=. With `follow`, pages as they come, the first one at once. Reads
 * nothing that the host does not take. */
void logs_asked(struct asked *asked);
