/* mpirun's command line. */
#ifndef LAUNCH_RUN_LINE_H
#define LAUNCH_RUN_LINE_H

#include <stdio.h>

#include "launch/run/variables.h"

/* argv of mpirun for the program, each rank through its keeper (`self` is this program's path); ends
 * with NULL. Owns its words; NULL: out of memory. */
char **line_make(const struct circumstances *here, const struct variables *variables,
                 const char *self, char **program);
void line_free(char **line);

/* The hosts, every variable with its value and reason, and the line as a shell would read it. */
void line_print(FILE *out, const struct circumstances *here, const struct variables *variables,
                char **line);

#endif
