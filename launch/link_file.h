/* Link figures in a file: `switchyard doctor` measures and writes them, plans are given them. JSON:
 *
 *   {"switchyard_link": 1, "ranks_per_host": 4,
 *    "in_host": {"latency_us": 1.2, "message_us": 0.3, "bandwidth_gbs": 9.5},
 *    "between_hosts": {"latency_us": 28, "message_us": 1, "bandwidth_gbs": 2.9}}
 *
 * A level that was not measured is left out; other keys say where the figures come from. */
#ifndef LAUNCH_LINK_FILE_H
#define LAUNCH_LINK_FILE_H

#include <stdbool.h>

#include "launch/machine.h"
#include "runtime/switchyard.h"

/* Ranges of a figure in a file, and on a command line; 1e9 bytes per second. */
#define LINK_MIN 1e-3
#define LINK_MAX 1e6

/* Levels that the file has replace those of *link. False: error names the file, key and value; *link
 * is untouched. */
bool link_file_read(const char *path, sy_link *link, char error[LAUNCH_ERROR_BYTES]);

struct link_source {
  int32_t world, num_hosts;
  bool has_in_host, has_between_hosts; /* measured */
};

bool link_file_write(const char *path, const sy_link *link, const struct link_source *source,
                     char error[LAUNCH_ERROR_BYTES]);

#endif
