/* MPI counts elements in an int. Messages are counted in blocks of SY_MESSAGE_ALIGN bytes, so that
 * one may have nearly 32 GiB. */
#ifndef SY_COMM_MPI_BLOCKS_H
#define SY_COMM_MPI_BLOCKS_H

#include <limits.h>
#include <mpi.h>

#include "comm/lane.h"

#define SY_MPI_MESSAGE_MAX ((size_t)INT_MAX * SY_MESSAGE_ALIGN)

/* bytes: a multiple of SY_MESSAGE_ALIGN, <= SY_MPI_MESSAGE_MAX. */
static inline int sy_mpi_blocks(size_t bytes) { return (int)(bytes / SY_MESSAGE_ALIGN); }

/* The size of a received message. One that is no whole number of blocks was not sent by us:
 * SY_LANE_TRUNCATED. */
static inline size_t sy_mpi_received_bytes(const MPI_Status *status, MPI_Datatype block) {
  int num_blocks = 0;
  if (MPI_Get_count(status, block, &num_blocks) != MPI_SUCCESS || num_blocks == MPI_UNDEFINED) {
    return SY_LANE_TRUNCATED;
  }
  return (size_t)num_blocks * SY_MESSAGE_ALIGN;
}

#endif
