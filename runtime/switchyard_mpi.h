/* Groups over MPI. The only header of Switchyard that includes mpi.h; link switchyard_mpi. */
#ifndef SWITCHYARD_MPI_H
#define SWITCHYARD_MPI_H

#include <mpi.h>

#include "switchyard.h"

#ifdef __cplusplus
extern "C" {
#endif

/* sy_group_create_mpi: a group of the communicator's ranks. Works on a duplicate of it, so that the
 * caller's messages and ours never meet.
 *   shapes: none. memory: host. units: desc in ms. ownership: the caller destroys the group, before
 *   MPI_Finalize; the communicator stays the caller's. order: none. scope: collective over comm.
 *   threads: MPI_THREAD_SINGLE suffices; calls come from one thread at a time.
 *   errors: ARGUMENT (MPI not initialised, an inter-communicator), MEMORY, MISMATCH (another
 *   version of the library on some rank: names them), PEER, TRANSPORT.
 * desc NULL means SY_GROUP_DESC_INIT. */
SY_API sy_status sy_group_create_mpi(MPI_Comm comm, const sy_group_desc *desc,
                                     sy_group **group_out);

#ifdef __cplusplus
}
#endif

#endif
