/* switchyard-run: starts a program on every rank of a job, and sees to it that the job ends.
 *
 *   main        options -> hosts -> variables -> mpirun's line -> supervisor
 *   supervisor  mpirun's parent: hears how each rank ended, keeps the deadline, gives the exit code
 *   keeper      started by mpirun, on every host, in place of each rank, which is its child
 *   warden      one process per host, which outlives all others and leaves nothing behind
 */
#ifndef LAUNCH_RUN_RUN_H
#define LAUNCH_RUN_RUN_H

/* Exit codes beyond those of the ranks. A rank ended by signal n counts as RUN_SIGNAL_BASE + n. */
enum {
  RUN_UNHEARD = 4, /* as CLI_PEER: ranks were lost without an error of their own */
  RUN_CANNOT_START = 127,
  RUN_SIGNAL_BASE = 128,
};

#endif
