/* The transport over MPI point-to-point messages, in host memory. */
#ifndef SY_COMM_MPI_TRANSPORT_H
#define SY_COMM_MPI_TRANSPORT_H

#include <mpi.h>

#include "comm/transport.h"

/* Collective over comm, an intra-communicator, which stays the caller's: works on a duplicate. The
 * clock passes deadline_ns before all ranks have called: PEER, and what MPI may still write to is
 * left allocated. MEMORY, TRANSPORT. */
sy_status sy_transport_create_mpi(MPI_Comm comm, int64_t deadline_ns,
                                  struct sy_transport **transport_out);

/* The transport's duplicate of the communicator, and the tag of it that is for beats. */
#define SY_MPI_BEAT_TAG 100
MPI_Comm sy_transport_mpi_comm(struct sy_transport *t);

#endif
