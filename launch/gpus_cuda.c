#include <stdio.h>
#include <string.h>

#include "launch/gpus.h"
#include "runtime/switchyard_nccl.h"

static bool describe(int32_t device, int32_t count, struct gpu_facts *facts) {
  sy_gpu_info info = SY_GPU_INFO_INIT;
  if (sy_gpu_query(device, &info) != SY_OK) {
    return false;
  }
  snprintf(facts->name, sizeof facts->name, "%s", info.name);
  snprintf(facts->kernels, sizeof facts->kernels, "%s", info.kernels);
  facts->compute_major = info.compute_major;
  facts->compute_minor = info.compute_minor;
  facts->num_sms = info.num_sms;
  facts->memory_bytes = info.memory_bytes;
  facts->is_usable = info.is_usable != 0;
  for (int32_t peer = 0; peer < count; ++peer) {
    int32_t can = 0;
    if (peer != device && sy_gpu_can_access_peer(device, peer, &can) != SY_OK) {
      return false;
    }
    facts->reaches[peer] = can != 0;
  }
  return true;
}

void gpus_discover(struct gpus *gpus_out) {
  memset(gpus_out, 0, sizeof *gpus_out);
  gpus_out->is_built = true;
  int32_t count = 0;
  bool good = sy_gpu_count(&count) == SY_OK;
  count = count < GPUS_MAX ? count : GPUS_MAX;
  for (int32_t device = 0; good && device < count; ++device) {
    good = describe(device, count, &gpus_out->gpu[device]);
    gpus_out->count += good ? 1 : 0;
  }
  if (!good) {
    snprintf(gpus_out->missing, sizeof gpus_out->missing, "%s", sy_last_error(NULL));
  } else if (count == 0) {
    snprintf(gpus_out->missing, sizeof gpus_out->missing, "CUDA shows none to this process");
  }
}
