/* The side channel over MPI. */
#ifndef SY_COMM_SIDE_MPI_H
#define SY_COMM_SIDE_MPI_H

#include <mpi.h>

#include "comm/side.h"

/* Collective over comm, which stays the caller's. As sy_transport_create_mpi. */
SY_API sy_status sy_side_create_mpi(MPI_Comm comm, int64_t deadline_ns, struct sy_side **side_out);

#endif
