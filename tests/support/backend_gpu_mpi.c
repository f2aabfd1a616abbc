#include <mpi.h>

#include "runtime/switchyard_nccl_mpi.h"
#include "tests/support/backend.h"

sy_status backend_group_mpi(const sy_group_desc *desc, sy_group **group_out) {
  return sy_group_create_nccl_mpi(MPI_COMM_WORLD, desc, group_out);
}
