/* Plain files: opening never blocks, reading never takes more memory than the caller allows. */
#ifndef SY_RUNTIME_CHECKPOINT_FILE_H
#define SY_RUNTIME_CHECKPOINT_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <time.h>

#include "runtime/switchyard.h"

/* "folder/name", or with folder NULL a copy of name; to be freed with sy_free. */
sy_status sy_path_join(const char *folder, const char *name, char **path_out);

/* The part of a path that fits in an error text: its last bytes. */
const char *sy_path_shown(const char *path);

bool sy_path_exists(const char *path);

/* What tells a file that has been written to from the one that was opened. Renaming or unlinking it
 * meanwhile is no change. */
struct sy_file_version {
  size_t bytes;
  struct timespec modified;
};

/* Opens a regular file for reading; a pipe or a device is an error, not a wait. */
sy_status sy_file_open(const char *path, int *fd_out, struct sy_file_version *version_out);

/* IO unless the file is still the one that was opened. `where` begins the error texts: the file,
 * and what in it. */
sy_status sy_file_check_unchanged(int fd, const char *where, const struct sy_file_version *opened);

/* Reads exactly [offset, offset + bytes); a file that ends earlier is an error. */
sy_status sy_file_read_at(int fd, const char *where, size_t offset, void *buffer, size_t bytes);

/* Reads a whole file of at most max_bytes; *text_out is to be freed with
 * sy_free. */
sy_status sy_file_read(const char *path, size_t max_bytes, char **text_out, size_t *bytes_out);

#endif
