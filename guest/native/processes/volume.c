/* Files that the guest keeps on the session's volume (volume.h). */

#include "volume.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MOST_DELETED = 1 << 20 /* files of one tree */ };

bool make_directories(const char *path) {
  char *part = copy_text(path);
  for (char *slash = strchr(part + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    mkdir(part, 0700);
    *slash = '/';
  }
  bool is_made = mkdir(part, 0700) == 0 || errno == EEXIST;
  int error = errno;
  free(part);
  errno = error;
  return is_made;
}

bool is_directory(const char *path) {
  struct stat stat;
  return lstat(path, &stat) == 0 && S_ISDIR(stat.st_mode);
}

/* --- Deleting --- */

/* A tree that is deleted. It may be deeper than any path or stack: what is below its second level is moved up into the
 * first one, until nothing is left. */
struct deletion {
  int top;
  unsigned moved; /* names that were given */
  unsigned left;  /* so many files may still be deleted */
};

/* Deletes a file or an empty directory. False for a directory that is not empty, and for what cannot be deleted. */
static bool delete_one(int directory, const char *name) {
  return unlinkat(directory, name, 0) == 0 || unlinkat(directory, name, AT_REMOVEDIR) == 0;
}

static bool move_up(struct deletion *deletion, int directory, const char *name) {
  char fresh[32];
  snprintf(fresh, sizeof fresh, ".deleted-%u", deletion->moved++);
  return renameat(directory, name, deletion->top, fresh) == 0;
}

static bool is_dots(const char *name) { return strcmp(name, ".") == 0 || strcmp(name, "..") == 0; }

static DIR *open_in(int directory, const char *name) {
  int fd = openat(directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  DIR *opened = fd < 0 ? NULL : fdopendir(fd);
  if (opened == NULL && fd >= 0) close(fd);
  return opened;
}

/* Deletes what is in a directory of the first level, or moves it up. */
static void empty_second(struct deletion *deletion, const char *name) {
  DIR *directory = open_in(deletion->top, name);
  if (directory == NULL) return;
  for (struct dirent *entry; deletion->left > 0 && (entry = readdir(directory)) != NULL;) {
    if (is_dots(entry->d_name)) continue;
    deletion->left--;
    if (!delete_one(dirfd(directory), entry->d_name)) move_up(deletion, dirfd(directory), entry->d_name);
  }
  closedir(directory);
}

/* One round through the first level. Returns whether anything was deleted. */
static bool empty_first(struct deletion *deletion, DIR *top) {
  bool any = false;
  rewinddir(top);
  for (struct dirent *entry; deletion->left > 0 && (entry = readdir(top)) != NULL;) {
    if (is_dots(entry->d_name)) continue;
    deletion->left--;
    if (delete_one(deletion->top, entry->d_name)) {
      any = true;
      continue;
    }
    empty_second(deletion, entry->d_name);
    any |= delete_one(deletion->top, entry->d_name);
  }
  return any;
}

void delete_all(const char *path) {
  if (unlink(path) == 0 || errno == ENOENT || rmdir(path) == 0) return;
  DIR *top = open_in(AT_FDCWD, path);
  if (top == NULL) return;
  struct deletion deletion = {.top = dirfd(top), .left = MOST_DELETED};
  while (empty_first(&deletion, top)) {
  }
  closedir(top);
  rmdir(path);
}

/* --- Whole files --- */

static int open_fresh(const char *path) {
  return open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
}

/* Also when something is there, or the directory is missing. */
static int open_new(const char *path) {
  int fd = open_fresh(path);
  if (fd < 0 && errno == ENOENT) {
    char *directory = copy_bytes(path, (size_t)(strrchr(path, '/') - path));
    if (make_directories(directory)) fd = open_fresh(path);
    free(directory);
  } else if (fd < 0 && errno == EEXIST) {
    delete_all(path);
    fd = open_fresh(path);
  }
  return fd;
}

static bool write_all(int fd, const struct bytes *content) {
  for (size_t at = 0; at < content->size;) {
    ssize_t count = write(fd, content->data + at, content->size - at);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return false;
    at += (size_t)count;
  }
  return true;
}

bool replace_file(const char *path, const struct bytes *content) {
  char *fresh = format_text("%s.new", path);
  int fd = open_new(fresh);
  bool is_written = fd >= 0 && write_all(fd, content);
  if (fd >= 0) close(fd);
  bool is_replaced = is_written && rename(fresh, path) == 0;
  free(fresh);
  return is_replaced;
}

bool read_small_file(const char *path, size_t most, struct bytes *into) {
  int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  struct stat stat;
  if (fd < 0) return false;
  bool is_read = fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode);
  if (is_read) {
    size_t size = stat.st_size >= 0 && (uint64_t)stat.st_size < most ? (size_t)stat.st_size : most;
    ssize_t count = pread(fd, bytes_room(into, size), size, 0);
    is_read = count >= 0;
    if (count > 0) into->size += (size_t)count;
  }
  close(fd);
  return is_read;
}
