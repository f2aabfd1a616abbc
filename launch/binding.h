/* Which GPU, cores, memory and NICs each rank of a host gets: a pure function of the machine and a
 * request.
 *
 * Ranks get disjoint cores, of one NUMA node each where there are at least as many ranks as nodes;
 * their memory is that of their cores. With GPUs, rank r gets visible GPU r mod G and cores of the
 * NUMA node nearest to it. Ranks beyond the cores share them all. */
#ifndef LAUNCH_BINDING_H
#define LAUNCH_BINDING_H

#include "launch/machine.h"

#define BINDING_MAX_RANKS 4096

struct binding_request {
  int32_t num_ranks;           /* on this host, [1, BINDING_MAX_RANKS] */
  hwloc_const_bitmap_t usable; /* hardware threads; NULL: all that the machine allows */
  int32_t threads;             /* of each rank; 0: one per core that it has */
  bool use_gpus;
  const char *visible_gpus; /* as in CUDA_VISIBLE_DEVICES; NULL: all */
};

struct binding {
  int32_t gpu;    /* index into machine->gpus; -1: none, or one that the topology does not show */
  int32_t device; /* CUDA's number of it among the visible ones; -1: none */
  int32_t num_cores; /* of which at least one hardware thread is the rank's */
  int32_t threads;
  bool is_shared;       /* the same cores are given to other ranks too */
  hwloc_bitmap_t cpus;  /* hardware threads */
  hwloc_bitmap_t nodes; /* NUMA nodes, by their numbers in the system */
  int32_t num_nics;
  int32_t nics[MACHINE_MAX_DEVICES]; /* indices into machine->nics: the nearest that are not down */
};

struct binding_table {
  int32_t num_ranks;
  int32_t num_usable_cores;
  struct binding *ranks;         /* [num_ranks] */
  char note[LAUNCH_ERROR_BYTES]; /* what did not work out as usual; empty: nothing */
};

/* False: error has the sentence (no usable core, no visible GPU, out of memory). */
bool binding_table_make(const struct machine *machine, const struct binding_request *request,
                        struct binding_table *table_out, char error[LAUNCH_ERROR_BYTES]);
void binding_table_free(struct binding_table *table); /* of a zeroed one too */

#endif
