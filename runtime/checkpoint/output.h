/* Files being written: under a temporary name until they are whole and on the disk. The name is of one
 * writer alone: what a writer renames is its own work, even where another believed it dead. */
#ifndef SY_RUNTIME_CHECKPOINT_OUTPUT_H
#define SY_RUNTIME_CHECKPOINT_OUTPUT_H

#include <stddef.h>

#include "runtime/switchyard.h"

/* The end of temporary names. */
#define SY_OUTPUT_SUFFIX ".writing"

struct sy_output {
  int fd;
  char *temporary;
};

/* Begins "path.<something>.writing". */
sy_status sy_output_create(const char *path, struct sy_output *output_out);

sy_status sy_output_write_at(const struct sy_output *output, size_t offset, const void *bytes,
                             size_t num_bytes);

/* Sees to it that all is on the disk, then renames to `path`. The output is closed and released,
 * whatever happens; a failure removes the temporary file. */
sy_status sy_output_commit(struct sy_output *output, const char *path);

/* Gives up: removes the temporary file and releases the output. */
void sy_output_abandon(struct sy_output *output);

/* Removes what interrupted writers have left in a folder. */
sy_status sy_output_clean(const char *folder);

/* A whole small file at once. */
sy_status sy_output_save(const char *path, const void *bytes, size_t num_bytes);

#endif
