/* The CUDA backend's stages as a kernels table, run by the emulator: host memory is device memory. */
#include "tests/simt/cuda_kernels.h"

#include <vector>

#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/expert_layout.h"
#include "kernels/cuda/weights.h"

extern "C" {
#include "kernels/cpu/cpu.h"
}

namespace {

size_t expert_bytes(const struct sy_stage_env *env) {
  return sy_cuda_expert_layout_make(env).bytes;
}

sy_status load_expert(const struct sy_stage_env *env, const struct sy_source *source,
                      unsigned char *expert, struct sy_bad_weight *bad) {
  /* Tiles begin at multiples of 64, as sy_alloc's blocks do. */
  std::vector<unsigned char> buffer(sy_cpu_expert_bytes(env) + 64);
  unsigned char *staged = buffer.data() + (64 - reinterpret_cast<uintptr_t>(buffer.data()) % 64);
  const sy_status status = sy_cpu_load_expert(env, source, staged, bad);
  if (status == SY_OK) {
    sy_cuda_repack_expert(env, staged, expert);
  }
  return status;
}

bool always() { return true; }

} // namespace

const struct sy_kernels *sy_kernels_cuda_emulated(void) {
  static const struct sy_kernels table = {"cuda, emulated", "the CUDA sources under the emulator",
                                          always,           expert_bytes,
                                          load_expert,      sy_cpu_check_ids,
                                          sy_cuda_route,    sy_cuda_pack,
                                          sy_cuda_group,    sy_cuda_experts,
                                          sy_cuda_reduce,   sy_cuda_combine};
  return &table;
}
