/* The keeper: what mpirun starts in place of each rank. It is the rank's parent, so that it learns
 * how the rank ended, or that it was stopped, and tells the supervisor; and the rank ends with it. */
#ifndef LAUNCH_RUN_KEEPER_H
#define LAUNCH_RUN_KEEPER_H

#include "launch/run/job.h"

/* Runs the program as a rank; returns the keeper's exit code, which is the rank's. */
int keeper_run(const struct job *job, char **program);

#endif
