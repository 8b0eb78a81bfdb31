/* Checks of JSON. */

#include "json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failures;

static void check(bool holds, const char *what, const char *about) {
  if (holds) return;
  printf("json: %s: %s\n", what, about);
  failures++;
}

/* What is parsed is written so. NULL: it is not JSON. */
static void becomes_bytes(const void *bytes, size_t size, const char *expected) {
  /* exactly so large, so that reading beyond is found */
  char *exact = malloc(size > 0 ? size : 1);
  memcpy(exact, bytes, size);
  struct json *value = json_parse(exact, size);
  free(exact);
  struct bytes text = {0};
  if (value != NULL) json_put_value(&text, value);
  const char *written = value == NULL ? "(not JSON)" : bytes_string(&text);
  bool is_right = expected == NULL ? value == NULL : value != NULL && strcmp(written, expected) == 0;
  if (!is_right) printf("json: %.*s became %s instead of %s\n", (int)size, (const char *)bytes, written, expected);
  failures += !is_right;
  bytes_free(&text);
  json_free(value);
}

static void becomes(const char *text, const char *expected) { becomes_bytes(text, strlen(text), expected); }

static void same(const char *text) { becomes(text, text); }

static void writes(double number, const char *expected) {
  struct bytes text = {0};
  json_put_number(&text, number);
  check(strcmp(bytes_string(&text), expected) == 0, expected, (char *)text.data);
  bytes_free(&text);
}

static void numbers(void) {
  static const char *const kept[] = {"0",
                                     "-1",
                                     "1",
                                     "0.1",
                                     "-0.25",
                                     "123456789.5",
                                     "9007199254740991",
                                     "1e+21",
                                     "100000000000000000000",
                                     "1.5e+300",
                                     "1e-7",
                                     "0.000001",
                                     "1.7976931348623157e+308",
                                     "5e-324",
                                     "0.30000000000000004",
                                     "1700000000.123"};
  for (size_t at = 0; at < COUNT(kept); at++) same(kept[at]);
  becomes("123456.789e-1", "12345.6789");
  becomes("-0", "0");
  becomes("1E2", "100");
  becomes("1e999", "null"); /* infinite */
  becomes("9007199254740993", "9007199254740992");
  becomes("0.1000000000000000000000000000000000000000000000000000000000000000000000000000000001", "0.1");
  static const char *const wrong[] = {"01",  "1.",  ".5",  "+1",  "1e",       "1e+", "-",
                                      "--1", "0x1", "1 2", "NaN", "Infinity", "1.e1"};
  for (size_t at = 0; at < COUNT(wrong); at++) becomes(wrong[at], NULL);
  writes(1e21 / 3, "333333333333333300000");
  writes(1.0 / 3, "0.3333333333333333");
  writes(-1.5, "-1.5");
  writes(2e-7, "2e-7");
  writes(123e-9, "1.23e-7");
  int64_t whole;
  static const struct {
    const char *text;
    bool is_whole;
  } integers[] = {
      {"5",                true },
      {"-5",               true },
      {"5.0",              true },
      {"1e3",              true },
      {"5.5",              false},
      {"9007199254740991", true },
      {"9007199254740992", false},
      {"1e400",            false},
      {"\"5\"",            false},
      {"null",             false}
  };
  for (size_t at = 0; at < COUNT(integers); at++) {
    struct json *value = json_parse(integers[at].text, strlen(integers[at].text));
    check(json_integer(value, &whole) == integers[at].is_whole, "integer", integers[at].text);
    json_free(value);
  }
}

static void strings(void) {
  same("\"\"");
  same("\"a\\\"\\\\\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\"");
  becomes("\"\\/\\u0041\\u00e9\\u20AC\"", "\"/A\xc3\xa9\xe2\x82\xac\"");
  becomes("\"\\ud83d\\ude00\"", "\"\xf0\x9f\x98\x80\"");
  becomes("\"\\ud83d\"", "\"\xef\xbf\xbd\"");
  becomes("\"\\ude00\\ud83d\"", "\"\xef\xbf\xbd\xef\xbf\xbd\"");
  becomes("\"\\ud83d\\ud83d\\ude00\"", "\"\xef\xbf\xbd\xf0\x9f\x98\x80\"");
  becomes("\"\\ud83d\\n\"", "\"\xef\xbf\xbd\\n\"");
  becomes("\"\\ud83dx\"", "\"\xef\xbf\xbdx\"");
  same("\"\xf0\x9f\x98\x80\xe2\x80\xa8\"");
  becomes("\"a\xff\x62\xe2\x82\"", "\"a\xef\xbf\xbd\x62\xef\xbf\xbd\"");
  becomes("\"\xed\xa0\x80\"", "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"");
  becomes("\"\xc0\xaf\"", "\"\xef\xbf\xbd\xef\xbf\xbd\"");
  static const char *const wrong[] = {"\"",   "\"a",    "\"\n\"", "\"\\x\"", "\"\\u12\"",      "\"\\u12g4\"",
                                      "\"\\", "\"\\\"", "'a'",    "\"\\u\"", "\"\\ud83d\\u\"", "\"\\ud83d\\u12\""};
  for (size_t at = 0; at < COUNT(wrong); at++) becomes(wrong[at], NULL);
  becomes_bytes("\"a\0b\"", 5, NULL);
  becomes_bytes("\"\\\0\"", 4, NULL);
  becomes_bytes("\0", 1, NULL);
}

static void structures(void) {
  same("[]");
  same("{}");
  same("[[],{},[{}],{\"a\":[]}]");
  becomes(" \t\n\r[ 1 , true ,\"x\",null , false ] ", "[1,true,\"x\",null,false]");
  becomes(" { \"a\" : 1 , \"b\" : { \"c\" : [ ] } } ", "{\"a\":1,\"b\":{\"c\":[]}}");
  becomes("{\"a\":1,\"b\":2,\"a\":[3]}", "{\"a\":[3],\"b\":2}");
  becomes("{\"a\":{\"x\":[1]},\"a\":2,\"a\":3,\"\":4,\"\":5}", "{\"a\":3,\"\":5}");
  same("{\"a\\u0000b\":1,\"a\":2}");
  becomes("\xef\xbb\xbf[1]", "[1]");
  becomes("\xef\xbb\xbf\xef\xbb\xbf[1]", NULL);
  static const char *const wrong[] = {"",          " ",          "[",     "]",     "[1",        "[1,",     "[1,]",
                                      "[,1]",      "[1 2]",      "{",     "}",     "{\"a\"",    "{\"a\":", "{\"a\":1",
                                      "{\"a\":1,", "{\"a\":1,}", "{a:1}", "{1:1}", "{\"a\" 1}", "[}",      "{]",
                                      "[1}",       "nul",        "nulll", "tru",   "[1]]",      "[1][",    "1,",
                                      "{,}",       "//",         "\xff",  "[\xff]"};
  for (size_t at = 0; at < COUNT(wrong); at++) becomes(wrong[at], NULL);
}

static void depth(void) {
  for (size_t deep = 199; deep <= 202; deep++) {
    struct bytes text = {0};
    for (size_t at = 0; at < deep; at++) bytes_byte(&text, '[');
    for (size_t at = 0; at < deep; at++) bytes_byte(&text, ']');
    becomes_bytes(text.data, text.size, deep <= 200 ? bytes_string(&text) : NULL);
    becomes_bytes(text.data, text.size - 1, NULL);
    bytes_free(&text);
  }
}

static void duplicates(void) {
  struct bytes text = {0};
  bytes_byte(&text, '{');
  for (int at = 0; at < 100000; at++) bytes_format(&text, "%s\"n%d\":\"%d\"", at > 0 ? "," : "", at % 1000, at);
  bytes_byte(&text, '}');
  struct json *value = json_parse(text.data, text.size);
  check(value != NULL && value->count == 1000, "duplicates", "count");
  check(value != NULL && strcmp(value->names[7].text, "n7") == 0, "duplicates", "place");
  const char *last = json_text(json_get(value, "n7"));
  check(last != NULL && strcmp(last, "99007") == 0, "duplicates", "the last value");
  check(json_get(value, "n") == NULL && json_get(NULL, "n") == NULL, "get", "a missing one");
  json_free(value);
  bytes_free(&text);
}

/* No part of a document is one, and every part is read within its bounds. */
static void truncation(void) {
  static const char sample[] =
      "{\"a\":[1,-2.5e3,true,false,null,{\"b\":\"\\u00e9\\ud83d\\ude00\\n\xc3\xa9\"}],\"c\":{\"d\":[[]]}}";
  for (size_t size = 0; size < sizeof sample - 1; size++) becomes_bytes(sample, size, NULL);
  becomes(sample,
          "{\"a\":[1,-2500,true,false,null,{\"b\":\"\xc3\xa9\xf0\x9f\x98\x80\\n\xc3\xa9\"}],\"c\":{\"d\":[[]]}}");
  /* with one byte replaced, nothing but an answer is expected */
  char damaged[sizeof sample];
  for (size_t at = 0; at < sizeof sample - 1; at++) {
    static const char harm[] = "\0\"\\{}[],:u0e-\xff\xe2 ";
    for (size_t which = 0; which < sizeof harm - 1; which++) {
      memcpy(damaged, sample, sizeof sample);
      damaged[at] = harm[which];
      json_free(json_parse(damaged, sizeof sample - 1));
    }
  }
}

static void paths(void) {
  struct bytes text = {0};
  json_put_path(&text, "/a\xff\xe2\x82\xc3\xa9\"", 8);
  check(strcmp(bytes_string(&text), "\"/a\\udcff\\udce2\\udc82\xc3\xa9\\\"\"") == 0, "path", (char *)text.data);
  bytes_free(&text);
  json_put_text(&text, NULL);
  check(strcmp(bytes_string(&text), "null") == 0, "text", "NULL");
  bytes_free(&text);
}

static void base64(void) {
  static const char *const pairs[][2] = {
      {"",                 ""        },
      {"a",                "YQ=="    },
      {"ab",               "YWI="    },
      {"abc",              "YWJj"    },
      {"\xff\xfe\xfd\xfc", "//79/A=="}
  };
  for (size_t at = 0; at < COUNT(pairs); at++) {
    struct bytes text = {0}, back = {0};
    bytes_base64(&text, pairs[at][0], strlen(pairs[at][0]));
    check(strcmp(bytes_string(&text), pairs[at][1]) == 0, "base64", pairs[at][1]);
    bytes_from_base64(&back, (char *)text.data, text.size);
    check(strcmp(bytes_string(&back), pairs[at][0]) == 0, "from base64", pairs[at][1]);
    bytes_free(&text);
    bytes_free(&back);
  }
  struct bytes odd = {0};
  bytes_from_base64(&odd, "Y W\nJ-_!j=YWJj", 14);
  check(odd.size == 4 && memcmp(odd.data, "ab~\xfe", 4) == 0, "from base64", "odd");
  bytes_free(&odd);
}

int main(void) {
  numbers();
  strings();
  structures();
  depth();
  duplicates();
  truncation();
  paths();
  base64();
  return failures > 0;
}
