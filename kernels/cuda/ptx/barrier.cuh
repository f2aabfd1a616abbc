/* Barriers of some warps, mbarriers, fences, and the order of dependent grids. */
#ifndef SY_KERNELS_CUDA_PTX_BARRIER_CUH
#define SY_KERNELS_CUDA_PTX_BARRIER_CUH

#include "kernels/cuda/ptx/arch.cuh"

#if SY_PTX_HOST
#include "tests/simt/mbarrier.hpp"
#endif

/* ---- Named barriers: whole warps, `threads` in all; id 1 to 15 (0 is __syncthreads) ---- */

SY_DEVICE void sy_barrier_sync(uint32_t id, uint32_t threads SY_SITE) {
#if SY_PTX_HOST
  simt::barrier_sync(id, threads, site);
#else
  asm volatile("barrier.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

/* Counts as having come, and goes on: what this thread wrote is published. To give back memory that
 * it read, sync or an mbarrier: compute-sanitizer does not order reads by this. */
SY_DEVICE void sy_barrier_arrive(uint32_t id, uint32_t threads SY_SITE) {
#if SY_PTX_HOST
  simt::barrier_arrive(id, threads, site);
#else
  asm volatile("barrier.arrive.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
#endif
}

/* ---- mbarriers: eight bytes of shared memory ----
 * A phase ends when `count` threads have arrived and all bytes announced have landed. The first
 * phase has parity 0, the next 1, then 0 again. */

/* By one thread; sy_fence_mbarrier_init() and a barrier come before anybody uses it. */
SY_DEVICE void sy_mbarrier_init(uint64_t *mbarrier, uint32_t count SY_SITE) {
#if SY_PTX_HOST
  simt::mbarrier_init(mbarrier, count, site);
#else
  asm volatile("mbarrier.init.shared.b64 [%0], %1;" ::"r"(sy_shared_address(mbarrier)), "r"(count)
               : "memory");
#endif
}

SY_DEVICE void sy_mbarrier_arrive(uint64_t *mbarrier SY_SITE) {
#if SY_PTX_HOST
  simt::mbarrier_arrive(mbarrier, site);
#else
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared.b64 state, [%0]; }" ::"r"(
                   sy_shared_address(mbarrier))
               : "memory");
#endif
}

/* Arrives, and announces the bytes of the bulk copies that this thread has issued to it. */
SY_DEVICE void sy_mbarrier_arrive_expect(uint64_t *mbarrier, uint32_t bytes SY_SITE) {
#if SY_PTX_HOST
  simt::mbarrier_arrive_expect(mbarrier, bytes, site);
#elif SY_PTX_ARCH >= 900
  asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared.b64 state, [%0], %1; }" ::"r"(
                   sy_shared_address(mbarrier)),
               "r"(bytes)
               : "memory");
#else /* the copies are done */
  (void)bytes;
  sy_mbarrier_arrive(mbarrier);
#endif
}

/* Whether the phase of this parity is over; may wait a little. */
SY_DEVICE bool sy_mbarrier_try_wait(uint64_t *mbarrier, uint32_t parity SY_SITE) {
#if SY_PTX_HOST
  return simt::mbarrier_try_wait(mbarrier, parity, site);
#else
  uint32_t is_over;
  asm volatile("{ .reg .pred p; "
#if SY_PTX_ARCH >= 900
               "mbarrier.try_wait.parity.shared.b64 p, [%1], %2; "
#else
               "mbarrier.test_wait.parity.shared.b64 p, [%1], %2; "
#endif
               "selp.u32 %0, 1, 0, p; }"
               : "=r"(is_over)
               : "r"(sy_shared_address(mbarrier)), "r"(parity)
               : "memory");
  return is_over != 0;
#endif
}

SY_DEVICE void sy_mbarrier_wait(uint64_t *mbarrier, uint32_t parity SY_SITE) {
  while (!sy_mbarrier_try_wait(mbarrier, parity SY_AT_SITE)) {
  }
}

/* ---- Fences: the emulator cannot see a missing one ---- */

/* Makes initialised mbarriers known to the unit that performs bulk copies. */
SY_DEVICE void sy_fence_mbarrier_init() {
#if SY_PTX_ARCH >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

/* Between this thread's ordinary accesses to shared memory and bulk copies there. */
SY_DEVICE void sy_fence_proxy_async() {
#if SY_PTX_ARCH >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}

/* Between this thread's accesses to global memory, as all threads of the device see them. */
SY_DEVICE void sy_fence_device() {
#if !SY_PTX_HOST
  asm volatile("fence.acq_rel.gpu;" ::: "memory");
#endif
}

/* ---- Dependent grids: nothing before sm_90, nor unless launched as dependent ---- */

/* Until the grids that this one depends on have ended, and their writes can be seen. */
SY_DEVICE void sy_grid_wait() {
#if SY_PTX_ARCH >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

/* Grids that depend on this one may begin. */
SY_DEVICE void sy_grid_launch_dependents() {
#if SY_PTX_ARCH >= 900
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif
