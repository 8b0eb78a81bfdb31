/* Where a write goes: through links, with the directories that it needs, and beside its target under a hidden name. */

#pragma once

#include "bytes.h"
#include "failure.h"
#include <sys/stat.h>

/* Directories that were made, the outermost first. All zeros: none. */
struct made {
  char **paths;
  size_t count, room;
};

/* A file that is written: what stands there now, too. */
struct place {
  char *target;    /* without links, to be freed */
  bool has_before; /* a regular file is there */
  struct stat before;
};

/* Where a write to `path` goes: through symbolic links, like an editor's. Makes the parents. */
bool locate(const char *path, struct made *made, struct place *place, struct failure *failure);
/* Makes the directory and its parents, and notes them in `made`. */
bool make_parents(const char *directory, struct made *made, struct failure *failure);
/* Removes the directories that `make_parents` made, unless something is in them. Then none is noted. */
void unmake(struct made *made);
/* They stay. Then none is noted. */
void made_forget(struct made *made);

/* The mode of a new file that replaces this one. */
mode_t mode_of(const struct place *place);
/* A hidden path in the target's directory, which is in use until hidden_forget. */
char *hidden_beside(const char *target);
/* Frees the path, and its name is no longer in use. NULL does nothing. */
void hidden_forget(char *hidden);
/* Opens it to be written. EPERM under `path` where no file can be made. -1 on failure. */
int open_hidden(const char *hidden, int flags, const char *path, struct failure *failure);
bool keep_owner(int fd, const struct place *place, struct failure *failure);
/* Writes all. */
bool write_all(int fd, const uint8_t *bytes, size_t size, struct failure *failure);
