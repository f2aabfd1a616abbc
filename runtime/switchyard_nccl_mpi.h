/* Groups on GPUs, one GPU per rank of an MPI communicator. Includes mpi.h, and no header of CUDA or
 * NCCL. Link switchyard_nccl_mpi. */
#ifndef SWITCHYARD_NCCL_MPI_H
#define SWITCHYARD_NCCL_MPI_H

#include <mpi.h>

#include "switchyard_nccl.h"

#ifdef __cplusplus
extern "C" {
#endif

/* sy_group_create_nccl_mpi: a group of the communicator's ranks, each on a GPU. MPI brings them
 * together and tells who is missing after a timeout; what they exchange goes over NCCL.
 *   shapes: none. memory: device. units: desc in ms. ownership: the caller destroys the group, before
 *   MPI_Finalize; the communicator stays the caller's. order: none. scope: collective over comm.
 *   threads: MPI_THREAD_SINGLE suffices; calls come from one thread at a time.
 *   errors: as sy_group_create_mpi and sy_group_create_gpu; a rank without a GPU fails the call on
 *   all. desc.device -1: the ranks of a host take its GPUs in turn. desc NULL means
 *   SY_GROUP_DESC_INIT. */
SY_API sy_status sy_group_create_nccl_mpi(MPI_Comm comm, const sy_group_desc *desc,
                                          sy_group **group_out);

#ifdef __cplusplus
}
#endif

#endif
