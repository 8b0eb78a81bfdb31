/* Making directories, moving, and what a path is. */

#pragma once

#include "bytes.h"
#include "failure.h"

bool make_directory(const char *path, bool *created, struct failure *failure);
/* Renames atomically. EEXIST, EINVAL for a directory into itself, and EXDEV between file systems. */
bool move_path(const char *from, const char *to, bool overwrite, struct failure *failure);
/* {"type","size","modified","mode","target"}, the last one for links, in base64. */
bool put_status(const char *path, struct bytes *into, struct failure *failure);
