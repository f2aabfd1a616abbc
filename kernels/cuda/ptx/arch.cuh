/* Which body of a wrapper is compiled. */
#ifndef SY_KERNELS_CUDA_PTX_ARCH_CUH
#define SY_KERNELS_CUDA_PTX_ARCH_CUH

#include "kernels/cuda/compat.cuh"

#if defined(SY_SIMT)
#define SY_PTX_HOST 1
#define SY_PTX_ARCH 0
#elif defined(__CUDA_ARCH__)
#define SY_PTX_HOST 0
#define SY_PTX_ARCH __CUDA_ARCH__
#else /* nvcc's pass over the host code, which only parses device functions */
#define SY_PTX_HOST 0
#define SY_PTX_ARCH 800
#endif

/* The FP4 instructions exist for the family and the architecture-specific targets only. A plain
 * target, or the silent trap compute_120,code=sm_120a, would compile without them. */
#if SY_PTX_ARCH >= 1200
#if !defined(__CUDA_ARCH_FAMILY_SPECIFIC__) || __CUDA_ARCH_FAMILY_SPECIFIC__ / 100 != 12
#error "Compile for the family: -gencode arch=compute_120f,code=sm_120f (serves SM120 and SM121)."
#endif
#define SY_PTX_SM12X 1
#else
#define SY_PTX_SM12X 0
#endif

#if SY_PTX_ARCH != 0 && SY_PTX_ARCH < 800
#error "sm_80 is the oldest architecture that the kernels compile for."
#endif

/* Of this thread in its warp, whatever the block's shape. */
SY_DEVICE uint32_t sy_lane() {
#if SY_PTX_HOST
  return simt::this_thread->lane();
#else
  uint32_t lane;
  asm("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
#endif
}

#if !SY_PTX_HOST
SY_DEVICE uint32_t sy_shared_address(const void *shared) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(shared));
}
#endif

#endif
