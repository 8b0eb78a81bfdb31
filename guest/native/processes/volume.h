/* Files that the guest keeps on the session's volume. The session can put anything in their place. */

#pragma once

#include "bytes.h"

/* Makes the directory and those above it, for the guest alone. False with errno. */
bool make_directories(const char *path);
/* Deletes whatever is there. What cannot be deleted stays. */
void delete_all(const char *path);
/* Makes a file with this content in place of what is at the path: all of it, or nothing. `path.new` is its own. */
bool replace_file(const char *path, const struct bytes *content);
/* Adds what the file has, at most so many bytes. False when there is none, or it is no regular file. Never blocks. */
bool read_small_file(const char *path, size_t most, struct bytes *into);
bool is_directory(const char *path);
