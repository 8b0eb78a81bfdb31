/* Memory and growing buffers.
 *
 * Small allocations cannot fail: the process ends when the system has no memory left, and so does the session. An
 * allocation whose size a request chooses is made with `try_memory`, and its failure is ENOMEM for that request. */

#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory. Never NULL. */
void *memory(size_t size);
/* NULL when there is not enough. Not zeroed. */
void *try_memory(size_t size);
void *more_memory(void *before, size_t size);
char *copy_text(const char *text);
void *copy_bytes(const void *bytes, size_t size); /* with a NUL behind them */
char *format_text(const char *format, ...) __attribute__((format(printf, 1, 2)));

#define MEMBER(pointer, type, member) ((type *)((char *)(pointer) - offsetof(type, member)))
#define COUNT(array) (sizeof(array) / sizeof *(array))

/* A buffer that grows. All zeros is an empty one. `data` is NULL or has `room` bytes. */
struct bytes {
  uint8_t *data;
  size_t size;
  size_t room;
};

/* Room for so many bytes behind those that are there. Returns where they go. Then add to `size`. */
uint8_t *bytes_room(struct bytes *bytes, size_t more);
void bytes_add(struct bytes *bytes, const void *data, size_t size);
void bytes_text(struct bytes *bytes, const char *text);
void bytes_byte(struct bytes *bytes, uint8_t byte);
void bytes_format(struct bytes *bytes, const char *format, ...) __attribute__((format(printf, 2, 3)));
void bytes_arguments(struct bytes *bytes, const char *format, va_list arguments) __attribute__((format(printf, 2, 0)));
/* Makes the content a C string (a NUL behind it, not counted in `size`) and returns it. */
char *bytes_string(struct bytes *bytes);
/* Frees the memory. Then it is empty. */
void bytes_free(struct bytes *bytes);

uint32_t number_at(const uint8_t *four);         /* big-endian */
void put_number(uint8_t *four, uint32_t number); /* big-endian */

/* The length of the UTF-8 character at `at` (1 to 4), or 0 when the bytes there are none. */
size_t utf8_length(const uint8_t *at, size_t left);
bool is_utf8(const void *bytes, size_t size);
/* Adds the text as UTF-8: what is not UTF-8 becomes U+FFFD, as WHATWG's decoder does it. */
void bytes_utf8(struct bytes *bytes, const void *text, size_t size);
void bytes_base64(struct bytes *bytes, const void *data, size_t size);
/* As Node's Buffer.from(text, "base64") reads it: it skips what is no digit, takes both alphabets, stops at `=`. */
void bytes_from_base64(struct bytes *bytes, const char *text, size_t size);
