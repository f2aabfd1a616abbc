/* GPUs, and groups on them. */
#include "runtime/switchyard_nccl.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/architecture.h"
#include "kernels/cuda/cuda.h"
#include "runtime/group_nccl.h"
#include "runtime/internal.h"

static sy_status device_failed(const char *call) {
  return sy_fail(SY_ERR_DEVICE, "%s: %s", call, sy_device_cuda()->error_text());
}

/* ---- GPUs ---- */

sy_status sy_gpu_count(int32_t *count_out) {
  if (count_out == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_gpu_count: count_out is NULL");
  }
  int32_t count;
  if (sy_cuda_count_gpus(&count) != SY_OK) {
    return device_failed("sy_gpu_count");
  }
  *count_out = count;
  return SY_OK;
}

static sy_status check_device(const char *call, int32_t device) {
  int32_t count;
  SY_TRY(sy_gpu_count(&count));
  if (device < 0 || device >= count) {
    return sy_fail(SY_ERR_ARGUMENT, "%s: GPU %d of %d: allowed are 0 to %d", call, (int)device,
                   (int)count, (int)count - 1);
  }
  return SY_OK;
}

sy_status sy_gpu_query(int32_t device, sy_gpu_info *info_out) {
  static const char call[] = "sy_gpu_query";
  if (!SY_DESC_OK(info_out)) {
    return sy_fail(SY_ERR_ARGUMENT, "%s: info is not initialised with SY_GPU_INFO_INIT", call);
  }
  SY_TRY(check_device(call, device));
  sy_gpu_info info = SY_GPU_INFO_INIT;
  if (sy_cuda_query_gpu(device, &info) != SY_OK) {
    return device_failed(call);
  }
  *info_out = info;
  return SY_OK;
}

sy_status sy_gpu_can_access_peer(int32_t device, int32_t peer, int32_t *can_out) {
  static const char call[] = "sy_gpu_can_access_peer";
  if (can_out == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "%s: can_out is NULL", call);
  }
  SY_TRY(check_device(call, device));
  SY_TRY(check_device(call, peer));
  int32_t can;
  if (sy_cuda_can_access_peer(device, peer, &can) != SY_OK) {
    return device_failed(call);
  }
  *can_out = can;
  return SY_OK;
}

/* ---- Groups ---- */

/* The kernels for the current GPU. SWITCHYARD_GPU_MMA is "bf16": without block-scaled matrix
 * instructions, where there are some. */
static sy_status choose_kernels(const char *call, int32_t device, const sy_gpu_info *info,
                                const struct sy_kernels **kernels_out) {
  static const char variable[] = "SWITCHYARD_GPU_MMA";
  const char *wanted = getenv(variable);
  const bool by_bf16 = wanted != NULL && strcmp(wanted, "bf16") == 0;
  if (wanted != NULL && !by_bf16 && strcmp(wanted, "native") != 0) {
    return sy_fail(SY_ERR_ARGUMENT, "%s is '%s'; allowed: native, bf16", variable, wanted);
  }
  *kernels_out = by_bf16 ? sy_kernels_cuda_by_bf16() : sy_kernels_cuda();
  if (by_bf16 || !sy_cuda_has_block_scaling(info->compute_major)) {
    return SY_OK;
  }
  char text[200];
  const sy_status status = sy_cuda_self_test(text, sizeof text);
  return status == SY_OK ? SY_OK
                         : sy_fail(status,
                                   "%s: GPU %d (%s) fails the self-test of its block-scaled matrix "
                                   "instruction: %s; %s=bf16 does without",
                                   call, (int)device, info->name, text, variable);
}

sy_status sy_gpu_choose(const char *call, sy_group_desc *desc,
                        const struct sy_kernels **kernels_out) {
  if (desc->device == -1 && sy_cuda_current_gpu(&desc->device) != SY_OK) {
    return device_failed(call);
  }
  SY_TRY(check_device(call, desc->device));
  sy_gpu_info info = SY_GPU_INFO_INIT;
  SY_TRY(sy_gpu_query(desc->device, &info));
  if (!info.is_usable) {
    return sy_fail(SY_ERR_UNSUPPORTED, "%s: GPU %d (%s) has no kernels: %s", call,
                   (int)desc->device, info.name, info.kernels);
  }
  if (sy_device_cuda()->use(desc->device) != SY_OK) {
    return device_failed(call);
  }
  return choose_kernels(call, desc->device, &info, kernels_out);
}

sy_status sy_gpu_check_arguments(const sy_group_desc *desc, sy_group **group_out,
                                 sy_group_desc *desc_out) {
  *desc_out = (sy_group_desc)SY_GROUP_DESC_INIT;
  if (group_out == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "group_out is NULL");
  }
  if (desc != NULL) {
    SY_TRY(sy_group_check_desc(desc));
    *desc_out = *desc;
  }
  return SY_OK;
}

static void *arena_alloc(size_t bytes) { return sy_device_cuda()->alloc(bytes); }

static void arena_free(void *block) { sy_device_cuda()->free(block); }

static const struct sy_arena_memory gpu_arenas = {
    .kind = SY_MEMORY_DEVICE, .alloc = arena_alloc, .free = arena_free};

sy_status sy_group_create_gpu(const sy_group_desc *desc, sy_group **group_out) {
  struct sy_backend backend = {.device = sy_device_cuda()};
  sy_group_desc chosen;
  SY_TRY(sy_gpu_check_arguments(desc, group_out, &chosen));
  SY_TRY(sy_gpu_choose("sy_group_create_gpu", &chosen, &backend.kernels));
  struct sy_transport *transport;
  SY_TRY(sy_transport_create_local(&gpu_arenas, &transport));
  const sy_status status = sy_group_create_transport(&chosen, &backend, transport, group_out);
  if (status != SY_OK) {
    transport->ops->destroy(transport);
  }
  return status;
}
