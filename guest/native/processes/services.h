/* All services (services.c). */

#pragma once

/* They are about to be ended with the session's other processes: none is started again. */
void services_halt(void);
