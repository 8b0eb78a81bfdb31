/* The frames of an answer that streams (frames.h). */

#include "frames.h"

void frame_seal(uint8_t *frame, size_t size, char type) {
  frame[0] = (uint8_t)type;
  put_number(frame + 1, (uint32_t)(size - FRAME_HEADER));
}

void frame_add(struct bytes *into, char type, const void *payload, size_t size) {
  bytes_room(into, FRAME_HEADER + size);
  frame_seal(into->data + into->size, FRAME_HEADER + size, type);
  into->size += FRAME_HEADER;
  bytes_add(into, payload, size);
}
