/* The other ranks that this program was started with. One of two files is built: peers_mpi.c, or
 * peers_alone.c where there is no MPI. */
#ifndef LAUNCH_PEERS_H
#define LAUNCH_PEERS_H

#include <stdbool.h>
#include <stddef.h>

/* Joins the ranks that a launcher (mpirun, srun) started; without a launcher, a world of one.
 * False: the ranks cannot be joined. */
bool peers_open(int *rank_out, int *world_out);

/* `bytes` from each rank, in rank order, to every rank. Collective. */
bool peers_allgather(const void *mine, void *all, size_t bytes);

void peers_close(void);

/* Ends all ranks: this one has failed where the others may wait for it. */
void peers_abort(int exit_code);

/* The version of the MPI library; NULL where there is none. */
const char *peers_library(void);

#endif
