/* The environment of a job: what is set, and why. Names beginning with OMPI_MCA_ are parameters of
 * Open MPI's, which mpirun also takes as options. */
#ifndef LAUNCH_RUN_VARIABLES_H
#define LAUNCH_RUN_VARIABLES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "launch/environment.h"
#include "launch/run/hosts.h"
#include "launch/run/job.h"

#define VARIABLES_CAPACITY 64

struct variables {
  size_t count;
  struct environment_setting list[VARIABLES_CAPACITY];
};

/* What variables depend on beyond the user's environment. */
struct circumstances {
  const struct job *job;
  const struct hosts *hosts;
  int64_t num_ranks;
  int64_t num_cores; /* of this host, that this process may use */
  bool reads_others; /* processes may read each other's memory here */
  int32_t num_topology;
  struct environment_setting topology[ENVIRONMENT_CAPACITY]; /* what this machine calls for */
  char note[LAUNCH_ERROR_BYTES]; /* why its topology calls for nothing; empty: it was read */
};

void circumstances_find(const struct job *job, const struct hosts *hosts, int64_t num_ranks,
                        struct circumstances *here_out);

/* Those that the job needs, those of the topology, then the user's own of the libraries concerned,
 * which mpirun would not carry to other hosts by itself. */
void variables_choose(const struct circumstances *here, struct variables *variables_out);

#endif
