/* Lists directories, and counts the files of the workspace. */

#pragma once

#include "asked.h"

/* Answers with a page of the entries below `path`, sorted by the bytes of their paths. EFBIG when they are too many. */
void list_directory(struct asked *asked, const char *path, bool recursive, int64_t limit, int64_t offset);

/* Counts regular files in the workspace and calls `then`, at once or later. Looks at a bounded number of entries. */
void count_files(const char *workspace, void (*then)(void *self, long files), void *self);
