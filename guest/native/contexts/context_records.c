/* The record of each context: a small file on the session's volume, so that a lost context is not an unknown one. */

#include "context_records.h"
#include "asked.h"
#include "cut_text.h"
#include "loop.h"
#include "uuid.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LARGEST = 16 << 10 }; /* bytes of a record */
enum { MOST = 1000 };
enum { LONGEST_WORD = 100, LONGEST_PATH = 4096 }; /* UTF-16 units of a member */

static struct {
  bool is_loaded;
  struct context_record **all;
  size_t count, room;
} records;

bool is_context_id(const char *text, size_t size) {
  if (text == NULL || size != CONTEXT_ID || memcmp(text, "ctx_", 4) != 0) return false;
  for (size_t at = 4; at < size; at++)
    if (!(text[at] >= 'a' && text[at] <= 'z') && !(text[at] >= '0' && text[at] <= '9')) return false;
  return true;
}

/* --- Those in memory --- */

static size_t place_of(const char *id) {
  size_t at = 0;
  while (at < records.count && strcmp(records.all[at]->id, id) != 0) at++;
  return at;
}

struct context_record *context_record_find(const char *id) {
  size_t at = place_of(id);
  return at < records.count ? records.all[at] : NULL;
}

static void forget(size_t at) {
  struct context_record *record = records.all[at];
  records.all[at] = records.all[--records.count];
  free(record->working_dir);
  free(record->lost);
  free(record->ending);
  free(record);
}

static struct context_record *add(const char *id) {
  size_t before = place_of(id);
  if (before < records.count) forget(before);
  if (records.count == records.room) {
    records.room = records.room * 2 + 8;
    records.all = more_memory(records.all, records.room * sizeof *records.all);
  }
  struct context_record *record = memory(sizeof *record);
  memcpy(record->id, id, CONTEXT_ID);
  records.all[records.count++] = record;
  return record;
}

struct context_record *context_record_make(const char *id, const char *working_dir) {
  struct context_record *record = add(id);
  record->created_at = wall_time();
  record->working_dir = copy_text(working_dir);
  return record;
}

void context_record_set(char **member, const char *text) {
  free(*member);
  *member = text == NULL ? NULL : copy_text(text);
}

static int by_age(const void *one, const void *other) {
  const struct context_record *a = *(struct context_record *const *)one, *b = *(struct context_record *const *)other;
  if (a->created_at != b->created_at) return a->created_at < b->created_at ? -1 : 1;
  return strcmp(a->id, b->id);
}

static void sort(void) {
  if (records.count > 0) qsort(records.all, records.count, sizeof *records.all, by_age);
}

/* --- As JSON --- */

void context_record_put(const struct context_record *record, struct bytes *into) {
  bytes_format(into, "{\"id\":\"%s\",\"createdAt\":%lld,\"workingDir\":", record->id, (long long)record->created_at);
  json_put_text(into, record->working_dir);
  bytes_format(into, ",\"runs\":%lld,\"lost\":", (long long)record->runs);
  json_put_text(into, record->lost);
  bytes_text(into, ",\"ending\":");
  json_put_text(into, record->ending);
  bytes_byte(into, '}');
}

void context_records_put(struct bytes *into) {
  sort();
  bytes_byte(into, '[');
  for (size_t at = 0; at < records.count; at++) {
    if (at > 0) bytes_byte(into, ',');
    context_record_put(records.all[at], into);
  }
  bytes_byte(into, ']');
}

/* A string of the file, cut; NULL for anything else. */
static char *text_of(const struct json *found, const char *name, size_t most) {
  const struct json *value = json_get(found, name);
  if (!json_is(value, JSON_STRING)) return NULL;
  struct bytes text = {0};
  cut_text(&text, value->text, value->size, most);
  return bytes_string(&text);
}

static int64_t number_of(const struct json *found, const char *name) {
  int64_t number;
  return json_integer(json_get(found, name), &number) && number >= 0 ? number : 0;
}

static void take_record(const char *id, const struct json *found) {
  struct context_record *record = add(id);
  record->created_at = number_of(found, "createdAt");
  record->working_dir = text_of(found, "workingDir", LONGEST_PATH);
  if (record->working_dir == NULL) record->working_dir = copy_text("/workspace");
  record->runs = number_of(found, "runs");
  record->lost = text_of(found, "lost", LONGEST_WORD);
  if (record->lost == NULL) record->lost = text_of(found, "ending", LONGEST_WORD);
  if (record->lost == NULL) record->lost = copy_text("runtime_ended");
}

/* --- On disk --- */

/* `contexts` beside the directory of processes. */
static char *root_path(void) {
  size_t size = strlen(settings.processes);
  while (size > 1 && settings.processes[size - 1] == '/') size--;
  while (size > 0 && settings.processes[size - 1] != '/') size--;
  return format_text("%.*scontexts", (int)size, settings.processes);
}

/* The session may have changed the file to anything. */
static struct json *read_record(int directory, const char *name) {
  int fd = openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return NULL;
  struct stat stat;
  struct json *found = NULL;
  if (fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && stat.st_size <= LARGEST) {
    uint8_t *text = memory(LARGEST);
    ssize_t size = read(fd, text, LARGEST);
    found = size > 0 ? json_parse(text, (size_t)size) : NULL;
    free(text);
  }
  close(fd);
  return found;
}

static void load_from(DIR *directory) {
  size_t left = MOST;
  for (struct dirent *entry; left > 0 && (entry = readdir(directory)) != NULL;) {
    size_t size = strlen(entry->d_name);
    if (size != CONTEXT_ID + 5 || strcmp(entry->d_name + CONTEXT_ID, ".json") != 0 ||
        !is_context_id(entry->d_name, CONTEXT_ID))
      continue;
    left--;
    struct json *found = read_record(dirfd(directory), entry->d_name);
    entry->d_name[CONTEXT_ID] = 0;
    if (found != NULL && !json_is(found, JSON_NULL)) take_record(entry->d_name, found);
    json_free(found);
  }
}

bool context_records_load(struct failure *failure) {
  if (records.is_loaded) return true;
  char *root = root_path();
  DIR *directory = opendir(root);
  int error = errno;
  bool is_absent = error == ENOENT || error == ENOTDIR || error == EACCES || error == ELOOP;
  if (directory == NULL && !is_absent) fail_at(failure, error, root);
  else records.is_loaded = true;
  free(root);
  if (directory != NULL) {
    load_from(directory);
    closedir(directory);
  }
  return records.is_loaded;
}

/* Makes the directory and those above it. */
static void make_root(char *root) {
  for (char *slash = strchr(root + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    mkdir(root, 0777);
    *slash = '/';
  }
  mkdir(root, 0777);
}

static bool write_fresh(const char *path, const struct bytes *text) {
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (fd < 0) return false;
  bool is_written = write(fd, text->data, text->size) == (ssize_t)text->size;
  close(fd);
  return is_written;
}

void context_record_write(const struct context_record *record) {
  char name[UUID + 1]; /* one that the session cannot have taken */
  make_uuid(name);
  char *root = root_path();
  char *fresh = format_text("%s/%s", root, name);
  char *path = format_text("%s/%s.json", root, record->id);
  struct bytes text = {0};
  context_record_put(record, &text);
  bool is_written = write_fresh(fresh, &text);
  if (!is_written && errno == ENOENT) {
    make_root(root);
    is_written = write_fresh(fresh, &text);
  }
  if (!is_written || rename(fresh, path) != 0) unlink(fresh);
  bytes_free(&text);
  free(path);
  free(fresh);
  free(root);
}

/* A directory that the session has put there is no record, so it may stay when it is not empty. */
static bool remove_file(const char *id, struct failure *failure) {
  char *root = root_path();
  char *path = format_text("%s/%s.json", root, id);
  free(root);
  bool is_gone = unlink(path) == 0 || errno == ENOENT || errno == ENOTDIR;
  int error = errno;
  if (!is_gone && (error == EISDIR || error == EPERM)) {
    is_gone = rmdir(path) == 0 || errno == ENOTEMPTY || errno == EEXIST;
    error = is_gone || errno == ENOTDIR ? error : errno;
  }
  if (!is_gone) fail_at(failure, error, path);
  free(path);
  return is_gone;
}

bool context_record_delete(const char *id, bool *was_known, struct failure *failure) {
  if (!remove_file(id, failure)) return false;
  size_t at = place_of(id);
  *was_known = at < records.count;
  if (*was_known) forget(at);
  return true;
}

void context_records_keep_lost(size_t most) {
  size_t lost = 0;
  for (size_t at = 0; at < records.count; at++) lost += records.all[at]->lost != NULL;
  if (lost <= most) return;
  sort();
  struct context_record **sorted = copy_bytes(records.all, records.count * sizeof *sorted);
  for (size_t at = 0, count = records.count; at < count && lost > most; at++) {
    if (sorted[at]->lost == NULL) continue;
    bool was_known;
    struct failure failure = {0};
    if (!context_record_delete(sorted[at]->id, &was_known, &failure)) failure_free(&failure);
    lost--;
  }
  free(sorted);
}
