/* What the creators of groups over MPI share, across their libraries. */
#ifndef SY_RUNTIME_GROUP_MPI_H
#define SY_RUNTIME_GROUP_MPI_H

#include <mpi.h>

#include "runtime/switchyard.h"

/* ARGUMENT: MPI does not run, or the communicator is none that a group can be of. */
SY_API sy_status sy_group_check_comm(const char *call, MPI_Comm comm);

#endif
