/* JSON, written as JSON.stringify writes it. */

#include "json.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void put_escaped(struct bytes *into, uint8_t byte) {
  static const char meanings[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt";
  const char *found = byte == 0 ? NULL : strchr(meanings, byte);
  if (found != NULL) bytes_format(into, "\\%c", names[found - meanings]);
  else bytes_format(into, "\\u%04x", byte);
}

/* `foreign`: how a byte is written that is not UTF-8. */
static void put_quoted(struct bytes *into, const void *text, size_t size, void (*foreign)(struct bytes *, uint8_t)) {
  const uint8_t *at = text, *end = at + size, *start = at;
  bytes_byte(into, '"');
  while (at < end) {
    if (*at >= 0x20 && *at < 0x80 && *at != '"' && *at != '\\') {
      at++;
      continue;
    }
    size_t length = utf8_length(at, (size_t)(end - at));
    if (length > 1) {
      at += length;
      continue;
    }
    bytes_add(into, start, (size_t)(at - start));
    if (length == 1) put_escaped(into, *at);
    else foreign(into, *at);
    start = ++at;
  }
  bytes_add(into, start, (size_t)(end - start));
  bytes_byte(into, '"');
}

static void put_surrogate(struct bytes *into, uint8_t byte) { bytes_format(into, "\\udc%02x", byte); }

static void put_replacement(struct bytes *into, uint8_t byte) { bytes_text(into, "\xef\xbf\xbd"); }

void json_put_text(struct bytes *into, const char *text) {
  if (text == NULL) bytes_text(into, "null");
  else json_put_string(into, text, strlen(text));
}

void json_put_string(struct bytes *into, const void *text, size_t size) {
  if (is_utf8(text, size)) {
    put_quoted(into, text, size, put_replacement);
    return;
  }
  struct bytes decoded = {0}; /* several bytes may become one U+FFFD */
  bytes_utf8(&decoded, text, size);
  put_quoted(into, decoded.data, decoded.size, put_replacement);
  bytes_free(&decoded);
}

void json_put_path(struct bytes *into, const void *path, size_t size) { put_quoted(into, path, size, put_surrogate); }

/* The fewest digits that stand for the number, without a point. Returns how many are left of it. */
static int shortest(double number, char *digits) {
  char text[40];
  for (int precision = 0; precision <= 16; precision++) {
    snprintf(text, sizeof text, "%.*e", precision, number);
    if (strtod(text, NULL) == number) break;
  }
  char *exponent = strchr(text, 'e');
  size_t count = 0;
  for (char *at = text; at < exponent; at++)
    if (*at != '.') digits[count++] = *at;
  digits[count] = 0;
  return atoi(exponent + 1) + 1;
}

static void put_zeros(struct bytes *into, int count) {
  for (; count > 0; count--) bytes_byte(into, '0');
}

/* A positive number that is no integer, or a large one, as JavaScript's Number::toString does it. */
static void put_fraction(struct bytes *into, double number) {
  char digits[24];
  int left = shortest(number, digits), count = (int)strlen(digits);
  if (left > 21 || left <= -6) {
    bytes_byte(into, (uint8_t)digits[0]);
    if (count > 1) bytes_format(into, ".%s", digits + 1);
    bytes_format(into, "e%c%d", left > 0 ? '+' : '-', abs(left - 1));
  } else if (left <= 0) {
    bytes_text(into, "0.");
    put_zeros(into, -left);
    bytes_text(into, digits);
  } else if (left >= count) {
    bytes_text(into, digits);
    put_zeros(into, left - count);
  } else bytes_format(into, "%.*s.%s", left, digits, digits + left);
}

void json_put_number(struct bytes *into, double number) {
  if (!isfinite(number)) bytes_text(into, "null");
  else if (fabs(number) < 9007199254740992.0 && number == (double)(int64_t)number)
    bytes_format(into, "%lld", (long long)number);
  else {
    if (number < 0) bytes_byte(into, '-');
    put_fraction(into, fabs(number));
  }
}

static void put_list(struct bytes *into, const struct json *value) {
  bool is_object = value->kind == JSON_OBJECT;
  bytes_byte(into, is_object ? '{' : '[');
  for (size_t at = 0; at < value->count; at++) {
    if (at > 0) bytes_byte(into, ',');
    if (is_object) {
      json_put_string(into, value->names[at].text, value->names[at].size);
      bytes_byte(into, ':');
    }
    json_put_value(into, &value->items[at]);
  }
  bytes_byte(into, is_object ? '}' : ']');
}

/* As deep as json_parse goes. */
void json_put_value(struct bytes *into, const struct json *value) {
  switch (value->kind) {
    case JSON_NULL: bytes_text(into, "null"); break;
    case JSON_FALSE: bytes_text(into, "false"); break;
    case JSON_TRUE: bytes_text(into, "true"); break;
    case JSON_NUMBER: json_put_number(into, value->number); break;
    case JSON_STRING: json_put_string(into, value->text, value->size); break;
    case JSON_ARRAY:
    case JSON_OBJECT: put_list(into, value); break;
  }
}
