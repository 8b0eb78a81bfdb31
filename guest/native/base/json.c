/* JSON: parsed into a tree. json_put.c writes it. */

#include "json.h"
#include <stdlib.h>
#include <string.h>

enum { DEEPEST = 200 };
#define LARGEST_INTEGER 9007199254740991.0 /* 2^53 - 1 */

/* --- The tree --- */

/* At most DEEPEST calls deep. */
static void clear(struct json *value) {
  for (size_t at = 0; at < value->count; at++) {
    clear(&value->items[at]);
    if (value->names != NULL) free(value->names[at].text);
  }
  free(value->items);
  free(value->names);
  free(value->text);
}

void json_free(struct json *value) {
  if (value == NULL) return;
  clear(value);
  free(value);
}

const struct json *json_get(const struct json *object, const char *name) {
  if (!json_is(object, JSON_OBJECT)) return NULL;
  size_t size = strlen(name);
  for (size_t at = 0; at < object->count; at++)
    if (object->names[at].size == size && memcmp(object->names[at].text, name, size) == 0) return &object->items[at];
  return NULL;
}

bool json_is(const struct json *value, enum json_kind kind) { return value != NULL && value->kind == kind; }

const char *json_text(const struct json *value) { return json_is(value, JSON_STRING) ? value->text : NULL; }

bool json_integer(const struct json *value, int64_t *into) {
  if (!json_is(value, JSON_NUMBER)) return false;
  double number = value->number;
  if (!(number >= -LARGEST_INTEGER && number <= LARGEST_INTEGER) || number != (double)(int64_t)number) return false;
  *into = (int64_t)number;
  return true;
}

/* --- Parsing --- */

struct parser {
  const uint8_t *at, *end;
  /* The arrays and objects that are open. They are copied into the one around when they are complete, because a list
   * that grows moves. */
  struct json open[DEEPEST];
  size_t depth;
};

static void skip_space(struct parser *parser) {
  for (; parser->at < parser->end; parser->at++) {
    uint8_t byte = *parser->at;
    if (byte != ' ' && byte != '\t' && byte != '\n' && byte != '\r') return;
  }
}

/* Skips the byte if it is the next one. */
static bool skip(struct parser *parser, char byte) {
  if (parser->at == parser->end || *parser->at != (uint8_t)byte) return false;
  parser->at++;
  return true;
}

static bool skip_word(struct parser *parser, const char *word) {
  size_t size = strlen(word);
  if ((size_t)(parser->end - parser->at) < size || memcmp(parser->at, word, size) != 0) return false;
  parser->at += size;
  return true;
}

static size_t skip_digits(struct parser *parser) {
  const uint8_t *start = parser->at;
  while (parser->at < parser->end && *parser->at >= '0' && *parser->at <= '9') parser->at++;
  return (size_t)(parser->at - start);
}

static bool skip_number(struct parser *parser) {
  skip(parser, '-');
  if (!skip(parser, '0') && skip_digits(parser) == 0) return false;
  if (skip(parser, '.') && skip_digits(parser) == 0) return false;
  if (!skip(parser, 'e') && !skip(parser, 'E')) return true;
  if (!skip(parser, '+')) skip(parser, '-');
  return skip_digits(parser) > 0;
}

static bool parse_number(struct parser *parser, struct json *value) {
  const uint8_t *start = parser->at;
  if (!skip_number(parser)) return false;
  /* strtod wants a NUL behind it. */
  char few[64], *text = few;
  size_t size = (size_t)(parser->at - start);
  if (size >= sizeof few && (text = try_memory(size + 1)) == NULL) return false;
  memcpy(text, start, size);
  text[size] = 0;
  *value = (struct json){.kind = JSON_NUMBER, .number = strtod(text, NULL)};
  if (text != few) free(text);
  return true;
}

static bool parse_hex(struct parser *parser, uint32_t *into) {
  if (parser->end - parser->at < 4) return false;
  uint32_t unit = 0;
  for (int count = 0; count < 4; count++) {
    uint8_t digit = *parser->at++;
    if (digit >= '0' && digit <= '9') unit = unit << 4 | (uint32_t)(digit - '0');
    else if (digit >= 'a' && digit <= 'f') unit = unit << 4 | (uint32_t)(digit - 'a' + 10);
    else if (digit >= 'A' && digit <= 'F') unit = unit << 4 | (uint32_t)(digit - 'A' + 10);
    else return false;
  }
  *into = unit;
  return true;
}

/* Adds a character, at most three bytes for each unit of UTF-16 that it was written with. */
static void add_character(struct json *text, uint32_t character) {
  uint8_t *into = (uint8_t *)text->text + text->size;
  size_t more = character < 0x80 ? 0 : character < 0x800 ? 1 : character < 0x10000 ? 2 : 3;
  static const uint8_t first[] = {0, 0xc0, 0xe0, 0xf0};
  into[0] = (uint8_t)(first[more] | character >> (6 * more));
  for (size_t at = 1; at <= more; at++) into[at] = (uint8_t)(0x80 | (character >> (6 * (more - at)) & 0x3f));
  text->size += more + 1;
}

/* What follows \u. A surrogate that has no partner becomes U+FFFD. */
static bool parse_unit(struct parser *parser, struct json *text) {
  uint32_t unit, low;
  if (!parse_hex(parser, &unit)) return false;
  if (unit >= 0xd800 && unit < 0xdc00) {
    const uint8_t *before = parser->at;
    if (skip_word(parser, "\\u") && parse_hex(parser, &low) && low >= 0xdc00 && low < 0xe000) {
      add_character(text, 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00));
      return true;
    }
    parser->at = before;
  }
  add_character(text, unit >= 0xd800 && unit < 0xe000 ? 0xfffd : unit);
  return true;
}

static bool parse_escape(struct parser *parser, struct json *text) {
  static const char names[] = "\"\\/bfnrtu", meanings[] = "\"\\/\b\f\n\r\t";
  if (parser->at == parser->end || *parser->at == 0) return false;
  const char *found = strchr(names, *parser->at++);
  if (found == NULL) return false;
  if (*found == 'u') return parse_unit(parser, text);
  text->text[text->size++] = meanings[found - names];
  return true;
}

/* Where the string that begins here ends. In `high`: how many bytes in it are more than ASCII. */
static const uint8_t *end_of_string(const struct parser *parser, size_t *high) {
  *high = 0;
  for (const uint8_t *at = parser->at; at < parser->end; at++) {
    if (*at == '"') return at;
    if (*at < 0x20) return NULL;
    if (*at >= 0x80) ++*high;
    if (*at == '\\' && ++at == parser->end) return NULL;
  }
  return NULL;
}

/* Adds the bytes up to the next escape or the end. */
static void take_plain(struct parser *parser, const uint8_t *end, struct json *text) {
  const uint8_t *start = parser->at;
  while (parser->at < end && *parser->at != '\\') parser->at++;
  size_t size = (size_t)(parser->at - start);
  memcpy(text->text + text->size, start, size);
  text->size += size;
}

/* Makes its bytes UTF-8. */
static void repair(struct json *text) {
  struct bytes repaired = {0};
  bytes_utf8(&repaired, text->text, text->size);
  free(text->text);
  text->text = bytes_string(&repaired);
  text->size = repaired.size;
}

/* What follows the first quote. */
static bool parse_string(struct parser *parser, struct json *text) {
  size_t high;
  const uint8_t *end = end_of_string(parser, &high);
  if (end == NULL) return false;
  *text = (struct json){.kind = JSON_STRING, .text = try_memory((size_t)(end - parser->at) + 1)};
  if (text->text == NULL) return false;
  while (parser->at < end) {
    take_plain(parser, end, text);
    if (parser->at == end) break;
    parser->at++;
    if (parse_escape(parser, text)) continue;
    free(text->text);
    *text = (struct json){0};
    return false;
  }
  parser->at = end + 1;
  text->text[text->size] = 0;
  if (high > 0 && !is_utf8(text->text, text->size)) repair(text);
  return true;
}

static bool grow(struct json **list, size_t count) {
  if (count != 0 && (count < 4 || (count & (count - 1)) != 0)) return true;
  struct json *larger = realloc(*list, (count == 0 ? 4 : 2 * count) * sizeof **list);
  if (larger != NULL) *list = larger;
  return larger != NULL;
}

/* A name and its colon. It has its place before its value comes: `count` includes it only then. */
static bool parse_name(struct parser *parser, struct json *object) {
  struct json name;
  skip_space(parser);
  if (!skip(parser, '"') || !parse_string(parser, &name)) return false;
  skip_space(parser);
  if (skip(parser, ':') && grow(&object->names, object->count)) {
    object->names[object->count] = name;
    if (grow(&object->items, object->count)) {
      object->items[object->count++] = (struct json){0};
      return true;
    }
  }
  free(name.text);
  return false;
}

/* Where the next value of this array or object goes. */
static struct json *next_place(struct parser *parser, struct json *container) {
  if (container->kind == JSON_OBJECT)
    return parse_name(parser, container) ? &container->items[container->count - 1] : NULL;
  if (!grow(&container->items, container->count)) return NULL;
  container->items[container->count] = (struct json){0};
  return &container->items[container->count++];
}

/* A name and its place among the names of its object. */
struct placed {
  const struct json *name;
  size_t place;
};

static int compare_placed(const void *left, const void *right) {
  const struct placed *one = left, *other = right;
  if (one->name->size != other->name->size) return one->name->size < other->name->size ? -1 : 1;
  int order = memcmp(one->name->text, other->name->text, one->name->size);
  return order != 0 ? order : one->place < other->place ? -1 : 1;
}

/* Removes the values whose names are NULL. */
static void close_gaps(struct json *object) {
  size_t kept = 0;
  for (size_t at = 0; at < object->count; at++) {
    if (object->names[at].text == NULL) continue;
    object->names[kept] = object->names[at];
    object->items[kept++] = object->items[at];
  }
  object->count = kept;
}

/* The last value of each name takes the place of the first. */
static bool unite(struct json *object) {
  if (object->count < 2) return true;
  struct placed *sorted = try_memory(object->count * sizeof *sorted);
  if (sorted == NULL) return false;
  for (size_t at = 0; at < object->count; at++) sorted[at] = (struct placed){&object->names[at], at};
  qsort(sorted, object->count, sizeof *sorted, compare_placed);
  bool has_gaps = false;
  size_t first = 0;
  for (size_t at = 1; at < object->count; at++) {
    const struct json *one = sorted[first].name, *other = sorted[at].name;
    if (one->size != other->size || memcmp(one->text, other->text, one->size) != 0) {
      first = at;
      continue;
    }
    struct json *earlier = &object->items[sorted[first].place], *value = &object->items[sorted[at].place];
    clear(earlier);
    *earlier = *value;
    *value = (struct json){0};
    free(object->names[sorted[at].place].text);
    object->names[sorted[at].place] = (struct json){.kind = JSON_STRING, .size = other->size};
    has_gaps = true;
  }
  free(sorted);
  if (has_gaps) close_gaps(object);
  return true;
}

/* A value that is no array and no object. */
static bool parse_simple(struct parser *parser, struct json *value) {
  if (skip(parser, '"')) return parse_string(parser, value);
  enum json_kind kind;
  if (skip_word(parser, "null")) kind = JSON_NULL;
  else if (skip_word(parser, "true")) kind = JSON_TRUE;
  else if (skip_word(parser, "false")) kind = JSON_FALSE;
  else return parse_number(parser, value);
  *value = (struct json){.kind = kind};
  return true;
}

/* Whether the array or object that was just begun, or has just had a value, ends here. */
static bool skip_end(struct parser *parser, const struct json *container) {
  skip_space(parser);
  return skip(parser, container->kind == JSON_ARRAY ? ']' : '}');
}

/* Ends what is complete, up to one of which more follows: `place` is where. */
static bool parse_ends(struct parser *parser, struct json *root, struct json **place) {
  while (parser->depth > 0) {
    struct json *container = &parser->open[parser->depth - 1];
    if (!skip_end(parser, container)) {
      if (container->count > 0 && !skip(parser, ',')) return false;
      return (*place = next_place(parser, container)) != NULL;
    }
    if (container->kind == JSON_OBJECT && !unite(container)) return false;
    struct json complete = *container;
    *container = (struct json){0};
    parser->depth--;
    struct json *around = parser->depth > 0 ? &parser->open[parser->depth - 1] : NULL;
    *(around != NULL ? &around->items[around->count - 1] : root) = complete;
  }
  return true;
}

static bool parse_value(struct parser *parser, struct json *root) {
  struct json *place = root;
  do {
    skip_space(parser);
    enum json_kind kind = skip(parser, '[') ? JSON_ARRAY : skip(parser, '{') ? JSON_OBJECT : JSON_NULL;
    if (kind == JSON_NULL) {
      if (!parse_simple(parser, place)) return false;
    } else {
      if (parser->depth == DEEPEST) return false;
      parser->open[parser->depth++] = (struct json){.kind = kind};
    }
    if (!parse_ends(parser, root, &place)) return false;
  } while (parser->depth > 0);
  skip_space(parser);
  return parser->at == parser->end;
}

struct json *json_parse(const void *bytes, size_t size) {
  struct parser *parser = memory(sizeof *parser);
  parser->at = bytes;
  parser->end = parser->at + size;
  skip_word(parser, "\xef\xbb\xbf");
  struct json *value = memory(sizeof *value);
  bool is_json = size > 0 && parse_value(parser, value);
  if (!is_json) {
    while (parser->depth > 0) clear(&parser->open[--parser->depth]);
    json_free(value);
  }
  free(parser);
  return is_json ? value : NULL;
}
