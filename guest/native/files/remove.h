/* Deleting files and trees. */

#pragma once

#include "asked.h"
#include <sys/stat.h>

/* Deletes what is at `path`, or a symbolic link itself, and answers. ENOENT, ENOTEMPTY, and EBUSY for what `holds`
 * names. */
void remove_path(struct asked *asked, const char *path, bool recursive);
/* Whether the directory is the root, the workspace or one of its parents, under any name: 1 or 0. Or -1, with errno. */
int holds(const char *path, const struct stat *stats, const char *workspace);
