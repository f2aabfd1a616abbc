/* The supervisor: runs mpirun, hears how each rank ends, keeps the deadline. */
#ifndef LAUNCH_RUN_SUPERVISOR_H
#define LAUNCH_RUN_SUPERVISOR_H

#include "launch/run/job.h"

struct supervision {
  const struct job *job;
  char **line; /* mpirun's argv */
  int num_ranks;
  int64_t start_ms; /* until every rank has begun */
};

/* Runs the job to its end and leaves nothing of it behind. Prints what went wrong, on standard
 * error. Returns the exit code: 0, that of the rank that failed first (RUN_SIGNAL_BASE + n for
 * signal n), or as run.h says. */
int supervisor_run(const struct supervision *what);

#endif
