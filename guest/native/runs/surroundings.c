/* What Bun reads when it starts: the environment, settings, and names in the working directory and above
 * (surroundings.h). */

#include "surroundings.h"
#include "asked.h"
#include "loop.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  LARGEST_ENV = 64 << 10,       /* bytes */
  LARGEST_SETTINGS = 256 << 10, /* bytes of a file that is looked into */
  JUST_NOW = 20                 /* ms: on old kernels, a change within this time may leave the time stamp as it is */
};

/* Files that Bun reads as it starts, in the working directory or above. */
static const char *const SETTINGS[] = {
    ".env",
    ".env.local",
    ".env.development",
    ".env.development.local",
    ".env.production",
    ".env.production.local",
    ".env.test",
    ".env.test.local",
    "bunfig.toml",
    "tsconfig.json",
    "jsconfig.json",
    "package.json",
    ".npmrc",
    "bun.lock",
    "bun.lockb",
    "node_modules",
};
static const char *const OF_THE_SYSTEM[] = {"/etc/localtime", "/etc/resolv.conf", "/etc/hosts"};
static const char *const OF_A_HOME[] = {".bunfig.toml", ".npmrc"};
static const char *const FILES_NAMED[] = {"NODE_EXTRA_CA_CERTS", "SSL_CERT_FILE"};
/* Words in settings that make Bun read or run more than is checked here. */
static const char *const ODD_WORDS[] = {"preload", "tsconfig", "extends", "env"};

struct stamp {
  int error; /* 0, or why it cannot be looked at */
  dev_t device;
  ino_t number;
  int64_t size, modified, changed;
};

struct seen {
  char *path;
  struct stamp stamp;
};

struct surroundings {
  struct seen *seen;
  size_t count;
  bool is_odd;
};

static int64_t nanoseconds(struct timespec time) { return time.tv_sec * 1000000000LL + time.tv_nsec; }

/* Differs after any change of the file or directory. */
static struct stamp stamp_of(const char *path) {
  struct stat stats;
  if (stat(path, &stats) != 0) return (struct stamp){.error = errno};
  struct stamp stamp = {.device = stats.st_dev, .number = stats.st_ino, .modified = nanoseconds(stats.st_mtim)};
  /* On overlayfs, the first write below a directory of the image changes the parent but none of its names. */
  if (strcmp(path, "/") == 0) return stamp;
  stamp.size = stats.st_size;
  /* Images that are made of one base link its files. Each new link changes the ctime of the file, and nothing else. */
  bool is_of_the_image = strncmp(path, "/etc/", 5) == 0 || strncmp(path, "/usr/", 5) == 0;
  if (stats.st_nlink <= 1 || !is_of_the_image) stamp.changed = nanoseconds(stats.st_ctim);
  return stamp;
}

static bool is_same(const struct stamp *one, const struct stamp *other) {
  return one->error == other->error && one->device == other->device && one->number == other->number &&
         one->size == other->size && one->modified == other->modified && one->changed == other->changed;
}

/* --- Settings that cannot be judged by a stamp --- */

static bool ends_with(const char *text, const char *end) {
  size_t size = strlen(text), end_size = strlen(end);
  return size >= end_size && strcmp(text + size - end_size, end) == 0;
}

static bool has_odd_words(int fd) {
  struct stat stats;
  if (fstat(fd, &stats) != 0 || !S_ISREG(stats.st_mode) || stats.st_size > LARGEST_SETTINGS) return true;
  struct bytes text = {0};
  ssize_t count;
  bytes_room(&text, (size_t)stats.st_size + 1);
  while (text.size <= LARGEST_SETTINGS && (count = read(fd, bytes_room(&text, 4096), 4096)) > 0)
    text.size += (size_t)count;
  bool is_odd = text.size > LARGEST_SETTINGS;
  for (size_t at = 0; at < COUNT(ODD_WORDS); at++)
    is_odd |= memmem(text.data, text.size, ODD_WORDS[at], strlen(ODD_WORDS[at])) != NULL;
  bytes_free(&text);
  return is_odd;
}

static bool is_odd_file(const char *path) {
  if (!ends_with(path, "bunfig.toml") && !ends_with(path, "tsconfig.json") && !ends_with(path, "jsconfig.json"))
    return false;
  int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) return errno != ENOENT && errno != ENOTDIR;
  bool is_odd = has_odd_words(fd);
  close(fd);
  return is_odd;
}

static bool is_odd_variable(const char *name) {
  static const char *const starts[] = {"BUN_", "LD_", "MALLOC", "MIMALLOC"};
  for (size_t at = 0; at < COUNT(starts); at++)
    if (strncmp(name, starts[at], strlen(starts[at])) == 0) return true;
  return strcmp(name, "NODE_OPTIONS") == 0;
}

/* --- What there is --- */

/* Takes the memory of the path. */
static void see(struct surroundings *all, char *path) {
  if (all->count % 16 == 0) all->seen = more_memory(all->seen, (all->count + 16) * sizeof *all->seen);
  all->is_odd |= is_odd_file(path);
  all->seen[all->count++] = (struct seen){.path = path, .stamp = stamp_of(path)};
}

/* Calls `look` with each directory from the root to this one. */
static void each_above(const char *cwd, void (*look)(void *self, const char *directory), void *self) {
  look(self, "/");
  char *path = copy_text(cwd);
  for (size_t at = 1; path[0] != '\0' && path[1] != '\0'; at++) {
    char end = path[at];
    if (end != '/' && end != '\0') continue;
    path[at] = '\0';
    look(self, path);
    if (end == '\0') break;
    path[at] = end;
  }
  free(path);
}

static void see_directory(void *self, const char *directory) {
  const char *slash = strcmp(directory, "/") == 0 ? "" : "/";
  see(self, copy_text(directory));
  for (size_t at = 0; at < COUNT(SETTINGS); at++) {
    char *path = format_text("%s%s%s", directory, slash, SETTINGS[at]);
    /* A new file changes its directory. */
    if (access(path, F_OK) == 0) see(self, path);
    else free(path);
  }
}

static void see_home(struct surroundings *all, const char *home) {
  for (size_t at = 0; at < COUNT(OF_A_HOME); at++) see(all, format_text("%s/%s", home, OF_A_HOME[at]));
}

static void see_the_rest(struct surroundings *all, const struct json *env) {
  const char *home = json_text(json_get(env, "HOME")), *more = json_text(json_get(env, "XDG_CONFIG_HOME"));
  for (size_t at = 0; at < COUNT(OF_THE_SYSTEM); at++) see(all, copy_text(OF_THE_SYSTEM[at]));
  for (size_t at = 0; at < COUNT(FILES_NAMED); at++) {
    const char *named = json_text(json_get(env, FILES_NAMED[at]));
    if (named != NULL) see(all, copy_text(named));
  }
  see_home(all, home == NULL ? "/root" : home);
  if (more != NULL) see_home(all, more);
  see(all, copy_text(settings.bun));
}

static bool is_real(const char *cwd) {
  char *real = realpath(cwd, NULL);
  bool is_same_path = real != NULL && strcmp(real, cwd) == 0;
  free(real);
  return is_same_path;
}

void environment_name(struct bytes *into, const struct json *env, const char *cwd) {
  bytes_byte(into, '[');
  json_put_text(into, cwd);
  for (size_t at = 0; env != NULL && at < env->count; at++) {
    bytes_byte(into, ',');
    json_put_string(into, env->names[at].text, env->names[at].size);
    bytes_byte(into, ',');
    json_put_string(into, env->items[at].text, env->items[at].size);
  }
  bytes_byte(into, ']');
}

static bool is_plain_env(const struct json *env, const char *cwd) {
  struct bytes name = {0};
  environment_name(&name, env, cwd);
  bool is_plain = name.size <= LARGEST_ENV;
  bytes_free(&name);
  for (size_t at = 0; env != NULL && at < env->count; at++) is_plain &= !is_odd_variable(env->names[at].text);
  return is_plain;
}

struct surroundings *surroundings_of(const struct json *env, const char *cwd) {
  if (!is_real(cwd) || !is_plain_env(env, cwd)) return NULL;
  struct surroundings *all = memory(sizeof *all);
  each_above(cwd, see_directory, all);
  see_the_rest(all, env);
  if (!all->is_odd) return all;
  surroundings_free(all);
  return NULL;
}

void surroundings_free(struct surroundings *all) {
  if (all == NULL) return;
  for (size_t at = 0; at < all->count; at++) free(all->seen[at].path);
  free(all->seen);
  free(all);
}

const char *surroundings_changed(const struct surroundings *all) {
  for (size_t at = 0; at < all->count; at++) {
    struct stamp stamp = stamp_of(all->seen[at].path);
    if (!is_same(&stamp, &all->seen[at].stamp)) return all->seen[at].path;
  }
  return NULL;
}

static void look_for_change(void *self, const char *directory) {
  struct stat stats;
  bool *has_changed = self;
  if (stat(directory, &stats) == 0 && wall_time() - nanoseconds(stats.st_ctim) / 1000000 < JUST_NOW)
    *has_changed = true;
}

bool changed_just_now(const char *cwd) {
  bool has_changed = false;
  each_above(cwd, look_for_change, &has_changed);
  return has_changed;
}
