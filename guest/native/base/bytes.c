/* Memory and growing buffers, text encodings. */

#include "bytes.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { FIRST_ROOM = 64 };

static _Noreturn void no_memory(void) {
  static const char text[] = "guest: no memory\n";
  if (write(STDERR_FILENO, text, sizeof text - 1) < 0) _exit(70);
  _exit(70);
}

void *memory(size_t size) {
  void *fresh = calloc(1, size > 0 ? size : 1);
  if (fresh == NULL) no_memory();
  return fresh;
}

void *try_memory(size_t size) { return malloc(size > 0 ? size : 1); }

void *more_memory(void *before, size_t size) {
  void *after = realloc(before, size > 0 ? size : 1);
  if (after == NULL) no_memory();
  return after;
}

char *copy_text(const char *text) { return copy_bytes(text, strlen(text)); }

void *copy_bytes(const void *bytes, size_t size) {
  if (size == SIZE_MAX) no_memory();
  char *copy = more_memory(NULL, size + 1);
  if (size > 0) memcpy(copy, bytes, size);
  copy[size] = 0;
  return copy;
}

void bytes_arguments(struct bytes *bytes, const char *format, va_list arguments) {
  va_list again;
  va_copy(again, arguments);
  int size = vsnprintf((char *)bytes_room(bytes, FIRST_ROOM), FIRST_ROOM, format, arguments);
  if (size >= FIRST_ROOM) vsnprintf((char *)bytes_room(bytes, (size_t)size + 1), (size_t)size + 1, format, again);
  if (size > 0) bytes->size += (size_t)size;
  va_end(again);
}

char *format_text(const char *format, ...) {
  struct bytes text = {0};
  va_list arguments;
  va_start(arguments, format);
  bytes_arguments(&text, format, arguments);
  va_end(arguments);
  return bytes_string(&text);
}

uint8_t *bytes_room(struct bytes *bytes, size_t more) {
  if (more > SIZE_MAX / 4 - bytes->size) no_memory();
  size_t needed = bytes->size + more;
  if (needed > bytes->room || bytes->data == NULL) {
    size_t room = bytes->room + bytes->room / 2;
    if (room < FIRST_ROOM) room = FIRST_ROOM;
    if (room < needed) room = needed;
    bytes->data = more_memory(bytes->data, room);
    bytes->room = room;
  }
  return bytes->data + bytes->size;
}

void bytes_add(struct bytes *bytes, const void *data, size_t size) {
  if (size == 0) return;
  memcpy(bytes_room(bytes, size), data, size);
  bytes->size += size;
}

void bytes_text(struct bytes *bytes, const char *text) { bytes_add(bytes, text, strlen(text)); }

void bytes_byte(struct bytes *bytes, uint8_t byte) {
  *bytes_room(bytes, 1) = byte;
  bytes->size++;
}

void bytes_format(struct bytes *bytes, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  bytes_arguments(bytes, format, arguments);
  va_end(arguments);
}

char *bytes_string(struct bytes *bytes) {
  *bytes_room(bytes, 1) = 0;
  return (char *)bytes->data;
}

void bytes_free(struct bytes *bytes) {
  free(bytes->data);
  *bytes = (struct bytes){0};
}

uint32_t number_at(const uint8_t *four) {
  return (uint32_t)four[0] << 24 | (uint32_t)four[1] << 16 | (uint32_t)four[2] << 8 | four[3];
}

void put_number(uint8_t *four, uint32_t number) {
  four[0] = (uint8_t)(number >> 24);
  four[1] = (uint8_t)(number >> 16);
  four[2] = (uint8_t)(number >> 8);
  four[3] = (uint8_t)number;
}

/* How many bytes at `at` begin a character, and in `whole` how many it needs: 0 when none can begin so. */
static size_t utf8_prefix(const uint8_t *at, size_t left, size_t *whole) {
  uint8_t first = at[0], low = 0x80, high = 0xbf;
  *whole = first < 0x80                     ? 1
           : first >= 0xc2 && first <= 0xdf ? 2
           : (first & 0xf0) == 0xe0         ? 3
           : first >= 0xf0 && first <= 0xf4 ? 4
                                            : 0;
  if (first == 0xe0) low = 0xa0;
  if (first == 0xed) high = 0x9f;
  if (first == 0xf0) low = 0x90;
  if (first == 0xf4) high = 0x8f;
  size_t size = 1;
  for (; size < *whole && size < left && at[size] >= low && at[size] <= high; size++) low = 0x80, high = 0xbf;
  return size;
}

size_t utf8_length(const uint8_t *at, size_t left) {
  if (left == 0) return 0;
  size_t whole;
  return utf8_prefix(at, left, &whole) == whole ? whole : 0;
}

bool is_utf8(const void *bytes, size_t size) {
  const uint8_t *at = bytes;
  for (size_t length; size > 0; at += length, size -= length)
    if ((length = utf8_length(at, size)) == 0) return false;
  return true;
}

void bytes_utf8(struct bytes *bytes, const void *text, size_t size) {
  const uint8_t *start = text, *at = start, *end = start + size;
  while (at < end) {
    size_t whole, length = utf8_prefix(at, (size_t)(end - at), &whole);
    at += length;
    if (length == whole) continue;
    bytes_add(bytes, start, (size_t)(at - length - start));
    bytes_text(bytes, "\xef\xbf\xbd");
    start = at;
  }
  bytes_add(bytes, start, (size_t)(at - start));
}

void bytes_base64(struct bytes *bytes, const void *data, size_t size) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const uint8_t *at = data;
  uint8_t *into = bytes_room(bytes, size / 3 * 4 + 4);
  for (; size > 0; at += 3) {
    size_t count = size < 3 ? size : 3;
    uint32_t three = (uint32_t)at[0] << 16 | (count > 1 ? (uint32_t)at[1] << 8 : 0) | (count > 2 ? at[2] : 0);
    *into++ = (uint8_t)digits[three >> 18];
    *into++ = (uint8_t)digits[three >> 12 & 63];
    *into++ = count > 1 ? (uint8_t)digits[three >> 6 & 63] : '=';
    *into++ = count > 2 ? (uint8_t)digits[three & 63] : '=';
    bytes->size += 4;
    size -= count;
  }
}

static int base64_digit(char digit) {
  if (digit >= 'A' && digit <= 'Z') return digit - 'A';
  if (digit >= 'a' && digit <= 'z') return digit - 'a' + 26;
  if (digit >= '0' && digit <= '9') return digit - '0' + 52;
  if (digit == '+' || digit == '-') return 62;
  return digit == '/' || digit == '_' ? 63 : -1;
}

void bytes_from_base64(struct bytes *bytes, const char *text, size_t size) {
  uint8_t *into = bytes_room(bytes, size / 4 * 3 + 3);
  uint32_t bits = 0;
  int count = 0;
  for (size_t at = 0; at < size && text[at] != '='; at++) {
    int digit = base64_digit(text[at]);
    if (digit < 0) continue;
    bits = bits << 6 | (uint32_t)digit;
    count += 6;
    if (count < 8) continue;
    count -= 8;
    *into++ = (uint8_t)(bits >> count);
    bytes->size++;
  }
}
