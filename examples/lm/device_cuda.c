#include <stdio.h>
#include <switchyard_nccl.h>
#include <switchyard_nccl_mpi.h>

#include "device.h"

bool lm_gpu_is_built(void) { return true; }

static bool fail(char *why, size_t bytes) {
  snprintf(why, bytes, "%s", sy_last_error(NULL));
  return false;
}

bool lm_gpu_find(int32_t local_rank, bool may_share, int32_t *device, char *why, size_t bytes) {
  int32_t count = 0;
  sy_gpu_info info = SY_GPU_INFO_INIT;
  if (sy_gpu_count(&count) != SY_OK) {
    return fail(why, bytes);
  }
  if (count == 0 || (local_rank >= count && !may_share)) {
    snprintf(why, bytes, "the host has %d GPUs for %d ranks or more", (int)count,
             (int)local_rank + 1);
    return false;
  }
  if (*device < 0 || *device >= count) {
    *device = local_rank % count;
  }
  if (sy_gpu_query(*device, &info) != SY_OK) {
    return fail(why, bytes);
  }
  snprintf(why, bytes, "GPU %d (%s) has no kernels: %s", (int)*device, info.name, info.kernels);
  return info.is_usable != 0;
}

sy_status lm_gpu_group(const struct lm_team *team, const sy_group_desc *desc,
                       sy_group **group_out) {
  return team->world == 1 ? sy_group_create_gpu(desc, group_out)
                          : sy_group_create_nccl_mpi(team->comm, desc, group_out);
}
