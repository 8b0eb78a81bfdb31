/* The screen of a terminal: what a client gets that comes back. */

#include "screen.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int failed;

static void check(bool holds, const char *what) {
  if (holds) return;
  printf("screen: %s\n", what);
  failed = 1;
}

static void take(struct screen *screen, const char *text) { screen_take(screen, (const uint8_t *)text, strlen(text)); }

static bool begins_with(const struct bytes *bytes, const char *text) {
  return bytes->size >= strlen(text) && memcmp(bytes->data, text, strlen(text)) == 0;
}

/* Whether nothing but whole sequences of colour and the four characters come. */
static bool is_whole(const uint8_t *at, const uint8_t *end) {
  while (at < end) {
    size_t length = utf8_length(at, (size_t)(end - at));
    if (length == 0) return false;
    if (*at == 0x1b) {
      for (at += 2; at < end && *at != 'm'; at++)
        if (!strchr("0123456789;", *at)) return false;
      length = 1;
    } else if (length == 1 && *at != 'm') return false;
    at += length;
  }
  return at == end;
}

static void begins_between_sequences(void) {
  struct screen screen = {0};
  struct bytes replay = {0};
  take(&screen, "\x1b[?2004h\x1b[?1049h\x1b[?25l\x1b[1;31m");
  for (int at = 0; at < 40000; at++) {
    char text[64];
    snprintf(text, sizeof text, "\x1b[38;5;%dmmé€😀", at % 256);
    take(&screen, text);
  }
  check(screen_alternate(&screen), "the alternate screen is on");
  screen_replay(&screen, &replay);
  check(begins_with(&replay, "\x1b"
                             "c\x1b[?1049h\x1b[?2004h\x1b[?25l"),
        "the modes come first");
  check(replay.size < 270000, "the replay is small");
  size_t modes = strlen("\x1b"
                        "c\x1b[?1049h\x1b[?2004h\x1b[?25l");
  check(is_utf8(replay.data, replay.size), "characters are whole");
  check(is_whole(replay.data + modes, replay.data + replay.size), "sequences are whole");
  bytes_free(&replay);
  screen_free(&screen);
}

static void has_no_questions(void) {
  static const char *const output[] = {"a",
                                       "\x1b[c",
                                       "\x1b[>c",
                                       "\x1b[6n",
                                       "\x1b[?6n",
                                       "\x1b]11;?\x07",
                                       "\x1b]4;1;?\x1b\\",
                                       "\x1bP+q544e\x1b\\",
                                       "b",
                                       "\x1b[>0q",
                                       "\x1b[?12$p",
                                       "\x1b[18t",
                                       "\x07",
                                       "\x05",
                                       "\x1b[?u",
                                       "\x1b[2x",
                                       "\x1b[=c",
                                       "\x1bZ",
                                       "\x1b]0;title\x07"
                                       "c\x1b[22;0t\x1b[?25$l"};
  struct screen screen = {0};
  struct bytes replay = {0};
  for (size_t at = 0; at < COUNT(output); at++) take(&screen, output[at]);
  screen_replay(&screen, &replay);
  check(strcmp(bytes_string(&replay), "\x1b"
                                      "cab\x1b]0;title\x07"
                                      "c\x1b[22;0t\x1b[?25$l") == 0,
        "no questions");
  bytes_free(&replay);
  screen_free(&screen);
}

static void drops_what_never_ends(void) {
  struct screen screen = {0};
  struct bytes replay = {0};
  static const char *const parts[] = {"\x1b]0;never ends ", "\x1b[", NULL};
  char chunk[10000];
  for (size_t part = 0; part < COUNT(parts); part++)
    for (int time = 0; time < 100; time++) {
      for (size_t at = 0; at < sizeof chunk; at++)
        chunk[at] = parts[part] == NULL ? (char)rand() : parts[part][at % strlen(parts[part])];
      screen_take(&screen, (uint8_t *)chunk, sizeof chunk);
    }
  screen_alternate(&screen);
  screen_replay(&screen, &replay);
  check(replay.size < 300000, "a sequence without an end is dropped");
  bytes_free(&replay);
  screen_free(&screen);
}

static void forgets_colours(void) {
  struct screen screen = {0};
  struct bytes replay = {0};
  take(&screen, "\x1b[31m\x1b[;1m\x1b[44m\x1b=\x1b[?47;1000h\x1b[?1000l");
  static char plain[300000];
  memset(plain, 'x', sizeof plain);
  screen_take(&screen, (uint8_t *)plain, 200000);
  screen_take(&screen, (uint8_t *)plain, 100000);
  screen_replay(&screen, &replay);
  check(begins_with(&replay, "\x1b"
                             "c\x1b[?47h\x1b[?1000l\x1b=\x1b[;1m\x1b[44mx"),
        "colours since the last reset");
  bytes_free(&replay);
  screen_free(&screen);
}

int main(void) {
  begins_between_sequences();
  has_no_questions();
  drops_what_never_ends();
  forgets_colours();
  return failed;
}
