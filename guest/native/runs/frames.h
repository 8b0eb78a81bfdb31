/* The frames of an answer that streams: one byte of type, the payload's length in four bytes, the payload. And the
 * outbox, in which they wait for the host. */

#pragma once

#include "asked.h"
#include "loop.h"

enum { FRAME_HEADER = 5 };

/* Fills in the header in front of a payload that is already in place. size: with the header. */
void frame_seal(uint8_t *frame, size_t size, char type);
void frame_add(struct bytes *into, char type, const void *payload, size_t size);

/* Answers `asked` with frames: in one piece when the run is short (5 ms without more, less than 64 KB), otherwise as a
 * stream. Two references keep it: the writer's, given back by outbox_finish, and the answer's own. */
struct outbox;
/* `on_room` is called when outbox_has_room has become true again, and when the host has left. `live`: output never
 * waits for more. */
struct outbox *outbox_begin(struct asked *asked, bool live, void (*on_room)(void *self), void *self);
bool outbox_has_room(const struct outbox *outbox);
/* Memory for the next frame of at most `size` bytes, header included, so that outbox_push need not copy. */
uint8_t *outbox_room(struct outbox *outbox, size_t size);
/* The frame may be what outbox_room returned, or elsewhere. */
void outbox_push(struct outbox *outbox, const uint8_t *frame, size_t size);
/* The last frame. The outbox must not be used after it. */
void outbox_finish(struct outbox *outbox, const uint8_t *frame, size_t size);
/* The host has left: what it would have received is discarded, also from now on. */
void outbox_abandon(struct outbox *outbox);
/* Calls `gone` (once) when the host has left. */
void outbox_on_gone(struct outbox *outbox, void (*gone)(void *self), void *self);
