/* A file that is there whole or not at all: it is written beside its place, and put there when it is
 * complete. What lay there before stays until then. A device or a pipe is written to directly. */
#ifndef LAUNCH_NEW_FILE_H
#define LAUNCH_NEW_FILE_H

#include <stdbool.h>
#include <stdio.h>

struct new_file {
  FILE *out;
  const char *path; /* the caller's; must last until the file is closed */
  char *beside;     /* NULL: written to directly */
};

/* False: errno says why. */
bool new_file_open(struct new_file *file, const char *path);

/* is_complete: all was handed to `out`, as far as the caller knows. False: it could not be written, or
 * was not complete; errno says why, and nothing is left of it. */
bool new_file_close(struct new_file *file, bool is_complete);

#endif
