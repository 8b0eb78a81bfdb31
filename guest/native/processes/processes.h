/* Background processes: what the host can ask for is described in processes.c, and how they run in background.h. */

#pragma once

#include "asked.h"

extern const struct operation processes_operations[];
