/* Copies a file in pieces, and shares the blocks if the file system can. */

#include "copying.h"
#include "names.h"
#include "places.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 128 << 10 };

void copying_end(struct copying *copying) {
  if (copying->from >= 0) close(copying->from);
  copying->from = -1;
}

static bool open_from(struct copying *copying, const char *path, struct failure *failure) {
  copying->from = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (copying->from < 0) return fail_call(failure, errno, "copyfile", path);
  struct stat stats;
  if (fstat(copying->from, &stats) < 0) return fail_call(failure, errno, "fstat", NULL);
  copying->left = stats.st_size;
  return S_ISREG(stats.st_mode) || fail_not_regular(failure, path);
}

bool copying_begin(struct copying *copying, const char *path, const char *hidden, struct failure *failure) {
  *copying = (struct copying){.from = -1, .to = -1};
  bool is_open = open_from(copying, path, failure);
  if (is_open) {
    copying->to = open(hidden, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (copying->to < 0) is_open = fail_call(failure, errno, "copyfile", path);
  }
  if (!is_open) copying_end(copying);
  else if (ioctl(copying->to, FICLONE, copying->from) == 0) copying_end(copying);
  return is_open;
}

bool copying_step(struct copying *copying, struct failure *failure) {
  size_t size = copying->left < PIECE ? (size_t)copying->left : PIECE;
  uint8_t *piece = memory(size);
  ssize_t count = size > 0 ? read(copying->from, piece, size) : 0;
  bool is_copied = count >= 0 || errno == EINTR || fail_call(failure, errno, "copyfile", NULL);
  if (count > 0) {
    is_copied = write_all(copying->to, piece, (size_t)count, failure);
    copying->left -= count;
  }
  free(piece);
  if (count == 0 || copying->left == 0) copying_end(copying);
  return is_copied;
}
