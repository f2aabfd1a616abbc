/* The CUDA backend's stages. All are ordered on env->stream and leave the host alone; arrays, the
 * struct sy_routed and the cursor lie in device memory. Sums have a fixed order: no atomics decide
 * one. Sizes the host does not know (how many rows were routed) are read on the device, and grids
 * are as large as their bound or loop. */
#ifndef SY_KERNELS_CUDA_CUDA_CUH
#define SY_KERNELS_CUDA_CUDA_CUH

#include "kernels/cuda/compat.cuh"
#include "kernels/cuda/cuda.h"

#define SY_WARP 32u
#define SY_THREADS 256u /* of a block, where a kernel does not say otherwise */
#define SY_MAX_GRID 4096u

#define SY_CUDA_TRY(call)        \
  do {                           \
    if ((call) != cudaSuccess) { \
      return SY_ERR_DEVICE;      \
    }                            \
  } while (0)

/* Blocks for `count` items, each block looping over its share. */
static inline unsigned sy_grid(int64_t count) {
  return static_cast<unsigned>(count < 1 ? 1 : count > SY_MAX_GRID ? SY_MAX_GRID : count);
}

static inline cudaStream_t sy_stream(const struct sy_stage_env *env) {
  return static_cast<cudaStream_t>(env->stream);
}

#endif
