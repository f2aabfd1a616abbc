/* Asynchronous copies from global into shared memory, and prefetches into L2.
 *
 * cp.async: issue, commit, wait; what was copied is this thread's to read after the wait, everyone
 * else's after a barrier behind it. Bulk copies: one thread issues them, then announces their bytes
 * by sy_mbarrier_arrive_expect; whoever has waited for the mbarrier may read. */
#ifndef SY_KERNELS_CUDA_PTX_COPY_CUH
#define SY_KERNELS_CUDA_PTX_COPY_CUH

#include "kernels/cuda/ptx/arch.cuh"

#if SY_PTX_HOST
#include "tests/simt/copies.hpp"
#endif

/* The first source_bytes of BYTES are read, the rest becomes zero. Both addresses are multiples of
 * BYTES. 16 bytes bypass L1. There is no form with an L2 policy: ptxas 13.0 assembles it into an
 * illegal instruction. */
template <int BYTES>
SY_DEVICE void sy_cp_async_zero_fill(void *shared, const void *global,
                                     uint32_t source_bytes SY_SITE) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
#if SY_PTX_HOST
  simt::copy_async(shared, global, BYTES, source_bytes, site);
#else
  if (BYTES == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(sy_shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(source_bytes)
                 : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %3, %2;" ::"r"(sy_shared_address(shared)),
                 "l"(__cvta_generic_to_global(global)), "r"(source_bytes), "n"(BYTES)
                 : "memory");
  }
#endif
}

template <int BYTES> SY_DEVICE void sy_cp_async(void *shared, const void *global SY_SITE) {
  sy_cp_async_zero_fill<BYTES>(shared, global, BYTES SY_AT_SITE);
}

/* What this thread issued since its last commit becomes a group. */
SY_DEVICE void sy_cp_async_commit() {
#if SY_PTX_HOST
  simt::copy_commit();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

/* Waits until at most GROUPS of this thread's groups, the last ones, are under way. */
template <int GROUPS> SY_DEVICE void sy_cp_async_wait() {
#if SY_PTX_HOST
  simt::copy_wait(GROUPS);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(GROUPS) : "memory");
#endif
}

/* Addresses and bytes are multiples of 16. Announce the bytes afterwards, from the same thread:
 * before that arrival the phase cannot end, however early the data lands, and on sm_80, where this
 * thread copies by itself, the arrival is what publishes the data. */
SY_DEVICE void sy_bulk_copy(void *shared, const void *global, uint32_t bytes,
                            uint64_t *mbarrier SY_SITE) {
#if SY_PTX_HOST
  simt::copy_bulk(shared, global, bytes, mbarrier, site);
#elif SY_PTX_ARCH >= 900
  asm volatile("cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes "
               "[%0], [%1], %2, [%3];" ::"r"(sy_shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(sy_shared_address(mbarrier))
               : "memory");
#else
  (void)mbarrier;
  for (uint32_t i = 0; i < bytes / 16; ++i) {
    static_cast<uint4 *>(shared)[i] = static_cast<const uint4 *>(global)[i];
  }
#endif
}

/* With an L2 policy of memory.cuh. */
SY_DEVICE void sy_bulk_copy_hinted(void *shared, const void *global, uint32_t bytes,
                                   uint64_t *mbarrier, uint64_t policy SY_SITE) {
#if SY_PTX_ARCH >= 900
  asm volatile("cp.async.bulk.shared::cta.global.mbarrier::complete_tx::bytes.L2::cache_hint "
               "[%0], [%1], %2, [%3], %4;" ::"r"(sy_shared_address(shared)),
               "l"(__cvta_generic_to_global(global)), "r"(bytes), "r"(sy_shared_address(mbarrier)),
               "l"(policy)
               : "memory");
#else
  (void)policy;
  sy_bulk_copy(shared, global, bytes, mbarrier SY_AT_SITE);
#endif
}

/* Brings a line into L2. */
SY_DEVICE void sy_prefetch_l2(const void *global SY_SITE) {
#if SY_PTX_HOST
  simt::check_global(global, 1, 1, "prefetch", site);
#else
  asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(global)));
#endif
}

/* Brings a stretch into L2; address and bytes are multiples of 16. Nothing before sm_90. */
SY_DEVICE void sy_bulk_prefetch_l2(const void *global, uint32_t bytes SY_SITE) {
#if SY_PTX_HOST
  simt::check_global(global, bytes, 16, "bulk prefetch", site);
#elif SY_PTX_ARCH >= 900
  asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(__cvta_generic_to_global(global)),
               "r"(bytes));
#else
  (void)global;
  (void)bytes;
#endif
}

#endif
