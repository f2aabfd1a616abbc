#include <stdio.h>

#include "device.h"

bool lm_gpu_is_built(void) { return false; }

bool lm_gpu_find(int32_t local_rank, bool may_share, int32_t *device, char *why, size_t bytes) {
  (void)local_rank;
  (void)may_share;
  (void)device;
  snprintf(why, bytes, "this program was built without CUDA");
  return false;
}

/* Never called: there is no GPU to be found. */
sy_status lm_gpu_group(const struct lm_team *team, const sy_group_desc *desc,
                       sy_group **group_out) {
  (void)team;
  (void)desc;
  (void)group_out;
  return SY_ERR_UNSUPPORTED;
}
