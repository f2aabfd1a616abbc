/* The CUDA backend's stages as a kernels table, on a real GPU: each stage is waited for. Arrays lie in
 * pinned host memory, which the GPU reads in place: slow, and enough to judge every stage. */
#include "tests/simt/cuda_kernels.h"

#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/expert_layout.h"
#include "kernels/cuda/weights.h"
#include "tests/gpu/pinned.h"

extern "C" {
#include "kernels/cpu/cpu.h"
}

namespace {

/* What the tests keep on their stack, where the GPU cannot read it. */
struct Shared {
  struct sy_routed routed;
  struct sy_receive_cursor cursor;
};

Shared *shared() {
  static Shared *memory = static_cast<Shared *>(pinned_alloc_forever(sizeof(Shared)));
  return memory;
}

sy_status finish(sy_status status) {
  const cudaError_t error = cudaDeviceSynchronize();
  if (error != cudaSuccess) {
    fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
    return SY_ERR_DEVICE;
  }
  return status;
}

size_t expert_bytes(const struct sy_stage_env *env) {
  return sy_cuda_expert_layout_make(env).bytes;
}

sy_status load_expert(const struct sy_stage_env *env, const struct sy_source *source,
                      unsigned char *expert, struct sy_bad_weight *bad) {
  void *staged = aligned_alloc(64, sy_cpu_expert_bytes(env));
  const sy_status status =
      sy_cpu_load_expert(env, source, static_cast<unsigned char *>(staged), bad);
  if (status == SY_OK) {
    sy_cuda_repack_expert(env, static_cast<unsigned char *>(staged), expert);
  }
  free(staged);
  return status;
}

sy_status route(const struct sy_stage_env *env, const struct sy_route_args *args) {
  return finish(sy_cuda_route(env, args));
}

sy_status pack(const struct sy_stage_env *env, const struct sy_pack_args *args) {
  return finish(sy_cuda_pack(env, args));
}

sy_status group(const struct sy_stage_env *env, const struct sy_group_args *args) {
  struct sy_group_args on_gpu = *args;
  on_gpu.routed = &shared()->routed;
  on_gpu.cursor = &shared()->cursor;
  *on_gpu.routed = *args->routed;
  *on_gpu.cursor = *args->cursor;
  const sy_status status = finish(sy_cuda_group(env, &on_gpu));
  *args->routed = *on_gpu.routed;
  *args->cursor = *on_gpu.cursor;
  return status;
}

sy_status experts(const struct sy_stage_env *env, const struct sy_experts_args *args) {
  struct sy_experts_args on_gpu = *args;
  shared()->routed = *args->routed;
  on_gpu.routed = &shared()->routed;
  return finish(sy_cuda_experts(env, &on_gpu));
}

sy_status reduce(const struct sy_stage_env *env, const struct sy_reduce_args *args) {
  struct sy_reduce_args on_gpu = *args;
  shared()->routed = *args->routed;
  on_gpu.routed = &shared()->routed;
  return finish(sy_cuda_reduce(env, &on_gpu));
}

sy_status combine(const struct sy_stage_env *env, const struct sy_combine_args *args) {
  return finish(sy_cuda_combine(env, args));
}

bool always() { return true; }

} // namespace

const struct sy_kernels *sy_kernels_cuda_on_gpu(void) {
  static char name[300];
  static struct sy_kernels table = {name,        "the CUDA sources on this GPU",
                                    always,      expert_bytes,
                                    load_expert, sy_cpu_check_ids,
                                    route,       pack,
                                    group,       experts,
                                    reduce,      combine};
  cudaDeviceProp properties;
  if (name[0] == '\0' && cudaGetDeviceProperties(&properties, 0) == cudaSuccess) {
    snprintf(name, sizeof name, "cuda on %s", properties.name);
  }
  return &table;
}
