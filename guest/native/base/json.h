/* JSON: parsed into a tree, and written into a buffer. */

#pragma once

#include "bytes.h"

enum json_kind { JSON_NULL, JSON_FALSE, JSON_TRUE, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

struct json {
  enum json_kind kind;
  double number;
  char *text;         /* of a string: UTF-8, a NUL behind it; may have NULs in it */
  size_t size;        /* of a string: bytes */
  struct json *items; /* of an array or object: `count` values */
  struct json
      *names; /* of an object: `count` strings. No name is there twice: the last value wins, at the first place */
  size_t count;
};

/* What the bytes say, or NULL when they are not JSON (or nested more than 200 deep). Bytes that are not UTF-8 and lone
 * surrogates become U+FFFD; a byte order mark in front is skipped. To be freed by json_free. */
struct json *json_parse(const void *bytes, size_t size);
void json_free(struct json *value);

/* The member of an object. NULL when there is none, or `object` is NULL or no object. */
const struct json *json_get(const struct json *object, const char *name);
bool json_is(const struct json *value, enum json_kind kind);
/* A string, NULL for anything else. */
const char *json_text(const struct json *value);
/* Whether it is a number that JavaScript's Number.isSafeInteger takes, which is then in `into`. */
bool json_integer(const struct json *value, int64_t *into);

/* Writing. Like JSON.stringify: the same escapes, no spaces. */
/* Text in quotes. What is not UTF-8 becomes U+FFFD. `text` may be NULL: null. */
void json_put_text(struct bytes *into, const char *text);
void json_put_string(struct bytes *into, const void *text, size_t size);
/* A path in quotes, which differs whenever the bytes differ: a byte that is not UTF-8 becomes a lone surrogate,
 * U+DC80 to U+DCFF, written as \udc80. */
void json_put_path(struct bytes *into, const void *path, size_t size);
void json_put_number(struct bytes *into, double number); /* as JavaScript writes it; integers up to 2^53 exactly */
void json_put_value(struct bytes *into, const struct json *value);
