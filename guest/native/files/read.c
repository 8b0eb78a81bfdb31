/* Reading files. The size is taken once, when the file is opened. */

#include "read.h"
#include "bodies.h"
#include "names.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
  WHOLE = 256 << 10,  /* bytes that are read at once */
  PIECE = 256 << 10,  /* bytes of a larger file that are held */
  MADE_UP = 16 << 20, /* bytes of a file that claims to be empty: those of /proc may be endless */
  SMALL_PIECE = 4096, /* bytes that are asked of such a file at once */
  /* Opening a FIFO must not block, and a terminal must not become the guest's own. */
  FLAGS = O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC,
};

/* The rest of a file that is too large to be held. It frees itself at the end, or when it is dropped. */
struct streamed {
  struct source source;
  int fd;
  int64_t at, end;
  size_t room;
  uint8_t piece[];
};

static void streamed_free(struct streamed *streamed) {
  if (streamed->fd >= 0) close(streamed->fd);
  free(streamed);
}

/* Exactly the bytes up to `end`. The answer breaks off when the file becomes shorter. */
static enum pulled streamed_next(struct source *source, const uint8_t **piece, size_t *size, const char **why) {
  struct streamed *streamed = MEMBER(source, struct streamed, source);
  if (streamed->at == streamed->end) {
    streamed_free(streamed);
    return PULLED_END;
  }
  int64_t left = streamed->end - streamed->at;
  size_t wanted = left < (int64_t)streamed->room ? (size_t)left : streamed->room;
  ssize_t count;
  do count = pread(streamed->fd, streamed->piece, wanted, streamed->at);
  while (count < 0 && errno == EINTR);
  if (count <= 0) {
    *why = count == 0 ? "the file became shorter" : strerror(errno);
    streamed_free(streamed);
    return PULLED_FAILED;
  }
  streamed->at += count;
  *piece = streamed->piece;
  *size = (size_t)count;
  return PULLED_PIECE;
}

static void streamed_drop(struct source *source) { streamed_free(MEMBER(source, struct streamed, source)); }

/* Takes the descriptor. */
static struct source *stream_file(int fd, int64_t start, int64_t end) {
  size_t room = end - start < PIECE ? (size_t)(end - start) : PIECE;
  struct streamed *streamed = memory(sizeof *streamed + room);
  streamed->source = (struct source){.next = streamed_next, .drop = streamed_drop};
  streamed->fd = fd;
  streamed->at = start;
  streamed->end = end;
  streamed->room = room;
  return &streamed->source;
}

/* Opens the file, which must be a regular one. Returns -1 on failure. `tells_path`: of a directory. */
static int open_regular(const char *path, struct stat *stats, bool tells_path, struct failure *failure) {
  int fd = open(path, FLAGS);
  if (fd < 0) {
    /* sockets, absent devices */
    if (errno == ENXIO || errno == ENODEV) fail_not_regular(failure, path);
    else fail_call(failure, errno, "open", path);
    return -1;
  }
  if (fstat(fd, stats) < 0) fail_call(failure, errno, "fstat", NULL);
  else if (S_ISREG(stats->st_mode)) return fd;
  else if (S_ISDIR(stats->st_mode)) fail_at(failure, EISDIR, tells_path ? path : NULL);
  else fail_not_regular(failure, path);
  close(fd);
  return -1;
}

static bool fail_too_large(struct failure *failure, const char *path, int64_t size) {
  fail_status(failure, EFBIG, 413, NULL);
  failure->path = copy_text(path);
  failure->size = size;
  return false;
}

/* Room for `more` bytes, where there is as much memory. */
static bool grow(struct bytes *bytes, size_t more, struct failure *failure) {
  if (bytes->room - bytes->size >= more) return true;
  size_t room = bytes->room + bytes->room / 2;
  if (room < bytes->size + more) room = bytes->size + more;
  uint8_t *data = realloc(bytes->data, room);
  if (data == NULL) return fail(failure, ENOMEM, "there is not enough memory for the file");
  bytes->data = data;
  bytes->room = room;
  return true;
}

static bool read_piece(int fd, const char *path, struct bytes *into, size_t size, ssize_t *count,
                       struct failure *failure) {
  if (!grow(into, size, failure)) return false;
  do *count = read(fd, into->data + into->size, size);
  while (*count < 0 && errno == EINTR);
  if (*count >= 0) {
    into->size += (size_t)*count;
    return true;
  }
  /* Some files of /proc would wait for content (kmsg). They do not count as regular files. */
  if (errno == EAGAIN || errno == EIO) return fail_not_regular(failure, path);
  return fail_call(failure, errno, "read", NULL);
}

/* All of a small file, or of one that claims to be empty. */
static bool read_whole(int fd, const char *path, int64_t limit, size_t size, struct bytes *into,
                       struct failure *failure) {
  for (;;) {
    size_t wanted = size > into->size ? size - into->size : SMALL_PIECE;
    ssize_t count;
    if (!read_piece(fd, path, into, wanted, &count, failure)) return false;
    if ((int64_t)into->size > limit) return fail_too_large(failure, path, (int64_t)into->size);
    if (count == 0 || (size > 0 && into->size >= size)) return true;
  }
}

static void answer_whole(struct asked *asked, int fd, const char *path, int64_t limit, size_t size) {
  struct bytes content = {0};
  struct failure failure;
  bool is_read = read_whole(fd, path, limit, size, &content, &failure);
  close(fd);
  if (!is_read) {
    bytes_free(&content);
    return answer_failure(asked, &failure);
  }
  char fields[64];
  snprintf(fields, sizeof fields, "{\"size\":\"%zu\"}", content.size);
  answer_bytes(asked, fields, &content);
}

void read_file(struct asked *asked, const char *path, int64_t limit) {
  struct failure failure;
  struct stat stats;
  int fd = open_regular(path, &stats, true, &failure);
  if (fd < 0) return answer_failure(asked, &failure);
  if (stats.st_size > limit) {
    close(fd);
    fail_too_large(&failure, path, stats.st_size);
    return answer_failure(asked, &failure);
  }
  /* Files of /proc claim to be empty. */
  if (stats.st_size <= WHOLE) return answer_whole(asked, fd, path, limit, (size_t)stats.st_size);
  char fields[64];
  snprintf(fields, sizeof fields, "{\"size\":\"%lld\"}", (long long)stats.st_size);
  answer_source(asked, fields, stream_file(fd, 0, stats.st_size));
}

/* A number to the base 36, as in a version. */
static void put_base_36(struct bytes *into, int64_t number) {
  static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
  char text[16];
  size_t at = sizeof text;
  uint64_t left = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
  do text[--at] = digits[left % 36];
  while ((left /= 36) > 0);
  if (number < 0) bytes_byte(into, '-');
  bytes_add(into, text + at, sizeof text - at);
}

/* A part of a file. */
struct part {
  int64_t size; /* of the whole file */
  int64_t start, end;
};

static struct part part_of(int64_t size, int64_t start, int64_t end) {
  if (start < 0) return (struct part){.size = size, .start = size > end ? size - end : 0, .end = size};
  struct part part = {.size = size, .start = start < size ? start : size, .end = end < size ? end : size};
  if (part.end < part.start) part.end = part.start;
  return part;
}

static char *fields_of(const struct part *part, const struct stat *stats, bool is_held) {
  struct bytes fields = {0};
  struct timespec time = stats->st_mtim;
  long long modified = (long long)time.tv_sec + (time.tv_sec < 0 && time.tv_nsec > 0); /* cut, not rounded down */
  bytes_format(&fields, "{\"size\":\"%lld\",\"start\":\"%lld\",\"end\":\"%lld\",\"modified\":\"%lld\",\"version\":\"",
               (long long)part->size, (long long)part->start, (long long)part->end, modified);
  put_base_36(&fields, (int64_t)stats->st_ino);
  bytes_byte(&fields, '-');
  put_base_36(&fields, (int64_t)((uint64_t)stats->st_ctim.tv_sec * 1000000000u + (uint64_t)stats->st_ctim.tv_nsec));
  bytes_byte(&fields, '-');
  put_base_36(&fields, part->size);
  bytes_text(&fields, is_held ? "\",\"held\":\"1\"}" : "\"}");
  return bytes_string(&fields);
}

/* Answers with a part of what was read. Takes its memory. */
static void answer_cut(struct asked *asked, const struct stat *stats, int64_t start, int64_t end,
                       struct bytes *content) {
  struct part part = part_of((int64_t)content->size, start, end);
  char *fields = fields_of(&part, stats, false);
  size_t size = (size_t)(part.end - part.start);
  if (size > 0) memmove(content->data, content->data + part.start, size);
  content->size = size;
  answer_bytes(asked, fields, content);
  free(fields);
}

static void part_of_small(struct asked *asked, int fd, const char *path, const struct stat *stats, int64_t start,
                          int64_t end) {
  struct bytes content = {0};
  struct failure failure;
  bool is_read = read_whole(fd, path, MADE_UP, (size_t)stats->st_size, &content, &failure);
  close(fd);
  if (is_read) return answer_cut(asked, stats, start, end, &content);
  bytes_free(&content);
  answer_failure(asked, &failure);
}

/* Takes the descriptor. */
static void part_of_large(struct asked *asked, int fd, const struct stat *stats, struct part part, const char *ticket) {
  int64_t size = part.end - part.start;
  bool is_held = ticket != NULL && size > WHOLE;
  char *fields = fields_of(&part, stats, is_held);
  if (size == 0) {
    close(fd);
    answer_bytes(asked, fields, &(struct bytes){0});
  } else {
    answer_source(asked, fields,
                  is_held ? sending_begin(ticket, fd, part.start, part.end) : stream_file(fd, part.start, part.end));
  }
  free(fields);
}

void read_part(struct asked *asked, const char *path, int64_t start, int64_t end, const char *ticket) {
  struct failure failure;
  struct stat stats;
  int fd = open_regular(path, &stats, false, &failure);
  if (fd < 0) return answer_failure(asked, &failure);
  if (stats.st_size <= WHOLE) return part_of_small(asked, fd, path, &stats, start, end);
  part_of_large(asked, fd, &stats, part_of(stats.st_size, start, end), ticket);
}
