/* Text that is cut as JavaScript cuts it, so that records and messages stay the same to the byte. */

#include "cut_text.h"

void cut_text(struct bytes *into, const void *text, size_t size, size_t most) {
  size_t at = into->size, units = 0;
  bytes_utf8(into, text, size);
  while (at < into->size) {
    size_t length = utf8_length(into->data + at, into->size - at);
    size_t here = length == 4 ? 2 : 1;
    if (units + here > most) break;
    units += here;
    at += length;
  }
  if (at == into->size) return;
  into->size = at;
  if (units < most) bytes_text(into, "\xef\xbf\xbd"); /* the cut went through a pair of units */
}
