/* What whoever started this process has said about its place: a pure function of the environment.
 * Understood: Open MPI's mpirun, Slurm's srun, the hydra of MPICH and Intel MPI; OpenMP's and
 * CUDA's own variables. */
#ifndef LAUNCH_SURROUNDINGS_H
#define LAUNCH_SURROUNDINGS_H

#include <stdbool.h>
#include <stdint.h>

/* The value of an environment variable; NULL: not set. */
typedef const char *(*environment_lookup)(void *user, const char *name);

/* The process's own environment; user is not used. */
const char *environment_of_process(void *user, const char *name);

struct surroundings {
  const char *launcher;     /* "mpirun", "srun", "mpiexec"; NULL: none known */
  int32_t local_rank;       /* among the ranks of this host */
  int32_t local_size;       /* how many ranks this host has; >= 1 */
  const char *bound_by;     /* who has bound this rank, for people; NULL: nobody has said so */
  bool may_be_bound;        /* a launcher that does not say whether it binds */
  int32_t threads;          /* OMP_NUM_THREADS; 0: not set */
  const char *visible_gpus; /* CUDA_VISIBLE_DEVICES; NULL: not set */
  const char *wish;         /* SWITCHYARD_BIND; NULL: not set */
};

struct surroundings surroundings_read(environment_lookup lookup, void *user);

#endif
