/* Connections of the edge. For the modules of bodies alone. */

#pragma once

#include "loop.h"

/* Sends what can be sent now. The number of bytes, 0 when there is no room, or -1 when the edge has left. `more`: other
 * bytes follow at once. */
int64_t edge_send(int fd, const void *bytes, size_t size, bool more);
/* Discards what has arrived, or a part of it. False when the edge has left or sends no more. */
bool edge_discard(int fd);

/* Ends a connection after its last byte: the edge gets everything, however slowly it reads. Takes the descriptor. */
void edge_part(int fd);
/* Breaks a connection off: the edge learns that it has not got everything. Takes the descriptor. */
void edge_break_off(int fd);
/* Closes a connection that the edge has closed. Takes the descriptor. */
void edge_leave(int fd);
