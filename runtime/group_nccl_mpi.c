/* A group on GPUs of the ranks of an MPI communicator. */
#include "comm/clock.h"
#include "comm/side_mpi.h"
#include "runtime/group_mpi.h"
#include "runtime/group_nccl.h"
#include "runtime/switchyard_nccl_mpi.h"

sy_status sy_group_create_nccl_mpi(MPI_Comm comm, const sy_group_desc *desc, sy_group **group_out) {
  static const char call[] = "sy_group_create_nccl_mpi";
  sy_group_desc checked;
  struct sy_side *side = NULL;
  SY_TRY(sy_group_check_comm(call, comm));
  const sy_status own = sy_gpu_check_arguments(desc, group_out, &checked);
  const int64_t deadline_ns = sy_clock_ns() + (int64_t)checked.load_timeout_ms * 1000000;
  SY_TRY(sy_side_create_mpi(comm, deadline_ns, &side));
  return sy_group_create_over_side(call, &checked, own, side, group_out);
}
