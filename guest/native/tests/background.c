/* The parts of background processes that need no process: characters that are split, the pauses of services, records as
 * the session may have left them, tables by id. */

#include "outputs.h"
#include "records.h"
#include "service.h"
#include "volume.h"
#include "asked.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int failures;

static void check(bool holds, const char *what, const char *which) {
  if (holds) return;
  fprintf(stderr, "%s: %s\n", what, which);
  failures++;
}

static void characters(void) {
  static const struct {
    const char *bytes;
    size_t incomplete;
  } samples[] = {
      {"",                 0},
      {"a",                0},
      {"\xc3",             1},
      {"\xc3\xa9",         0},
      {"\xe2\x82",         2},
      {"\xf0\x9f\x98",     3},
      {"\xf0\x9f\x98\x80", 0},
      {"\x80\x80\x80",     0},
      {"\xff",             0},
      {"\xe2"
       "a",         0},
      {"abc\xe2\x82\xac",  0},
      {"abc\xf0",          1}
  };
  for (size_t at = 0; at < COUNT(samples); at++) {
    size_t found = incomplete_character((const uint8_t *)samples[at].bytes, strlen(samples[at].bytes));
    check(found == samples[at].incomplete, "an incomplete character", samples[at].bytes);
  }
}

static void pauses(void) {
  static const struct {
    unsigned lives;
    double pause;
  } samples[] = {
      {0,          500  },
      {1,          1000 },
      {2,          2000 },
      {7,          60000},
      {1000000000, 60000}
  };
  for (size_t at = 0; at < COUNT(samples); at++)
    check(pause_after(samples[at].lives, &PACE) == samples[at].pause, "the pauses double up to a bound", "");
  check(starts_again(RESTART_ON_FAILURE, 137) && !starts_again(RESTART_ON_FAILURE, 0), "restart", "on-failure");
  check(!starts_again(RESTART_NEVER, 137), "restart", "never");
  check(starts_again(RESTART_ALWAYS, 0) && starts_again(RESTART_ALWAYS, 1), "restart", "always");
}

#define ID "proc_abcdefghi000000001"
#define REST ",\"name\":null,\"exitCode\":3,\"endedAt\":5,\"reason\":null,\"output\":6,\"ending\":null}"
#define PROPER                                                                                                         \
  "{\"id\":\"" ID "\",\"pid\":7,\"status\":\"exited\",\"startedAt\":1,\"command\":\"a\\u0000\xc3\xa9\"" REST

static struct record *parsed(const char *text) {
  struct bytes bytes = {.data = (uint8_t *)(uintptr_t)text, .size = strlen(text)};
  return record_parsed(ID, &bytes);
}

static void written_records(void) {
  struct record *record = parsed(PROPER);
  struct bytes again = {0};
  check(record != NULL, "a record", "is read");
  if (record == NULL) return;
  record_json(record, &again);
  check(strcmp(bytes_string(&again), PROPER) == 0, "a record", "is written as it was");
  bytes_free(&again);
  record_free(record);
  static const char text[] = "{\"id\":\"" ID "\",\"pid\":5,\"status\":\"running\",\"startedAt\":";
  record = record_new(ID, 5, "sleep \xf0\x9f\x98\x80", 10, "n", 1);
  record_json(record, &again);
  check(strncmp(bytes_string(&again), text, sizeof text - 1) == 0, "a new record", (char *)again.data);
  check(strstr((char *)again.data,
               ",\"command\":\"sleep \xf0\x9f\x98\x80\",\"name\":\"n\",\"exitCode\":null,\"endedAt\":null,"
               "\"reason\":null,\"output\":null,\"ending\":null}") != NULL,
        "a new record", (char *)again.data);
  bytes_free(&again);
  record_free(record);
}

static void damaged_records(void) {
  static const char *const samples[][2] = {
      {"\"pid\":7",       "\"pid\":4194304"            },
      {"\"pid\":7",       "\"pid\":-1"                 },
      {"\"pid\":7",       "\"pid\":1.5"                },
      {"exited",          "lost"                       },
      {"exited",          "running"                    },
      {"\"exitCode\":3",  "\"exitCode\":256"           },
      {"\"exitCode\":3",  "\"exitCode\":null"          },
      {"\"endedAt\":5",   "\"endedAt\":-5"             },
      {"\"endedAt\":5,",  ""                           },
      {"\"output\":6",    "\"output\":\"6\""           },
      {"\"output\":6",    "\"output\":9007199254740992"},
      {"\"ending\":null", "\"ending\":\"because\""     },
      {"\"name\":null",   "\"name\":3"                 },
      {"proc_a",          "proc_b"                     },
      {"\"command\":",    "\"commando\":"              },
      {"}",               ""                           }
  };
  for (size_t at = 0; at < COUNT(samples); at++) {
    const char *from = strstr(PROPER, samples[at][0]);
    char *damaged =
        format_text("%.*s%s%s", (int)(from - PROPER), PROPER, samples[at][1], from + strlen(samples[at][0]));
    struct record *record = parsed(damaged);
    check(record == NULL, "a damaged record", samples[at][1]);
    if (record != NULL) record_free(record);
    free(damaged);
  }
}

/* Commands and names as long as the host takes them, and longer. */
static void long_records(void) {
  struct bytes long_command = {0};
  for (int at = 0; at < 999; at++) bytes_byte(&long_command, 'x');
  bytes_text(&long_command, "\xf0\x9f\x98\x80tail");
  struct record *record = record_new(ID, 5, (const char *)long_command.data, long_command.size, NULL, 0);
  check(record->command.size == 1002 && strcmp(record->command.text + 999, "\xef\xbf\xbd") == 0, "a long command",
        "is cut as JavaScript cuts it");
  struct bytes text = {0};
  record->name.text = copy_bytes(long_command.data, 200);
  record->name.size = 200;
  record_json(record, &text);
  struct record *again = record_parsed(ID, &text);
  check(again != NULL && again->command.size == 1002, "a long command", "is read again");
  if (again != NULL) record_free(again);
  free(record->name.text);
  record->name.text = copy_bytes(long_command.data, 201);
  record->name.size = 201;
  text.size = 0;
  record_json(record, &text);
  again = record_parsed(ID, &text);
  check(again == NULL, "a name", "that is too long");
  record_free(record);
  bytes_free(&text);
  bytes_free(&long_command);
}

static void tables(void) {
  enum { MANY = 1000 };
  struct id_entry *entries = memory(MANY * sizeof *entries);
  struct id_table table = {0};
  for (int at = 0; at < MANY; at++) {
    snprintf(entries[at].id, sizeof entries[at].id, "proc_%018d", at);
    ids_add(&table, &entries[at]);
  }
  check(is_process_id(entries[7].id, PROCESS_ID) && !is_process_id("proc_ABCDEFGHI000000001", PROCESS_ID), "ids",
        "form");
  for (int at = 0; at < MANY; at += 2) ids_remove(&table, &entries[at]);
  for (int at = 0; at < MANY; at++)
    check(ids_find(&table, entries[at].id) == (at % 2 == 0 ? NULL : &entries[at]), "ids", entries[at].id);
  size_t count = 0;
  for (struct id_entry *entry = table.first; entry != NULL; entry = entry->next) count++;
  check(count == MANY / 2, "ids", "order");
  for (int at = 1; at < MANY; at += 2) ids_remove(&table, &entries[at]);
  check(table.buckets == NULL && table.first == NULL && ids_find(&table, ID) == NULL, "ids", "empty");
  free(entries);
  check(process_id_time("proc_00000000z000000000") == 35, "ids", "time");
}

static bool exists(const char *path) {
  struct stat stat;
  return lstat(path, &stat) == 0;
}

/* A tree deeper than any path, beside files of all kinds, and a record in a place that the session has filled. */
static void volumes(void) {
  char root[] = "/tmp/guest-volume-XXXXXX";
  struct bytes text = {0};
  if (mkdtemp(root) == NULL) return check(false, "volume", "mkdtemp");
  char *tree = format_text("%s/a/record.json.new", root), *file = format_text("%s/a/record.json", root);
  check(make_directories(tree) && is_directory(tree) && chdir(tree) == 0, "volume", "directories");
  for (int depth = 0; depth < 3000; depth++)
    if (mkdir("deep", 0700) != 0 || symlink("/", "link") != 0 || mkfifo("pipe", 0600) != 0 || chdir("deep") != 0)
      return check(false, "volume", "deep");
  check(chdir("/") == 0, "volume", "chdir");
  bytes_text(&text, "content");
  check(replace_file(file, &text) && !exists(tree), "volume", "a file replaces what is there");
  text.size = 0;
  check(read_small_file(file, 4, &text) && text.size == 4, "volume", "read");
  unlink(file);
  check(mkfifo(file, 0600) == 0 && !read_small_file(file, 4, &text), "volume", "a pipe is not read");
  check(replace_file(file, &text) && read_small_file(file, 4, &text), "volume", "a pipe is replaced");
  unlink(file);
  check(mkdir(file, 0700) == 0 && !replace_file(file, &text), "volume", "a directory stays");
  delete_all(root);
  check(!exists(root), "volume", "deleted");
  bytes_free(&text);
  free(tree);
  free(file);
}

int main(void) {
  characters();
  pauses();
  written_records();
  damaged_records();
  long_records();
  tables();
  volumes();
  return failures > 0;
}
