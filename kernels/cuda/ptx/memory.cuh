/* Loads that say how long L2 should keep them, and loads and stores that order others. */
#ifndef SY_KERNELS_CUDA_PTX_MEMORY_CUH
#define SY_KERNELS_CUDA_PTX_MEMORY_CUH

#include "kernels/cuda/ptx/arch.cuh"

/* For what is read once (weights, while decoding). */
SY_DEVICE uint64_t sy_policy_evict_first() {
#if SY_PTX_HOST
  return 1;
#else
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
#endif
}

/* For what is read again and again (activations). */
SY_DEVICE uint64_t sy_policy_evict_last() {
#if SY_PTX_HOST
  return 2;
#else
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
#endif
}

/* 16 bytes that nobody writes while the grid runs; not kept in L1. */
SY_DEVICE uint4 sy_load_hinted(const void *global, uint64_t policy SY_SITE) {
#if SY_PTX_HOST
  (void)policy;
  simt::check_global(global, 16, 16, "sy_load_hinted", site);
  return *static_cast<const uint4 *>(global);
#else
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(global)), "l"(policy));
  return v;
#endif
}

/* 16 bytes likewise, where the next ones will be wanted soon: L2 fetches 256. */
SY_DEVICE uint4 sy_load_streamed(const void *global SY_SITE) {
#if SY_PTX_HOST
  simt::check_global(global, 16, 16, "sy_load_streamed", site);
  return *static_cast<const uint4 *>(global);
#else
  uint4 v;
  asm volatile("ld.global.nc.L1::no_allocate.L2::256B.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(__cvta_generic_to_global(global)));
  return v;
#endif
}

/* What was written before the release that this load sees can be seen after it; device-wide. The
 * way to wait for another block: the emulator lets others run here. */
SY_DEVICE uint32_t sy_load_acquire(const uint32_t *global SY_SITE) {
#if SY_PTX_HOST
  simt::check_global(global, 4, 4, "sy_load_acquire", site);
  simt::poll("sy_load_acquire", site);
  return *global;
#else
  uint32_t v;
  asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
               : "=r"(v)
               : "l"(__cvta_generic_to_global(global))
               : "memory");
  return v;
#endif
}

SY_DEVICE void sy_store_release(uint32_t *global, uint32_t v SY_SITE) {
#if SY_PTX_HOST
  simt::check_global(global, 4, 4, "sy_store_release", site);
  simt::poll("sy_store_release", site);
  *global = v;
  simt::note_progress();
#else
  asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(__cvta_generic_to_global(global)), "r"(v)
               : "memory");
#endif
}

#endif
