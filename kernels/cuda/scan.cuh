/* Prefix sums over the threads of a block. Called by all SY_THREADS threads alike. */
#ifndef SY_KERNELS_CUDA_SCAN_CUH
#define SY_KERNELS_CUDA_SCAN_CUH

#include "kernels/cuda/cuda.cuh"

/* Two counts that are summed together: rows and slots. */
struct sy_pair {
  int32_t rows;
  int32_t slots;
};

#define SY_SCAN_WARPS (SY_THREADS / SY_WARP)
#define SY_SCAN_BYTES (SY_SCAN_WARPS * sizeof(struct sy_pair))

SY_DEVICE struct sy_pair sy_add(struct sy_pair a, struct sy_pair b) {
  return {a.rows + b.rows, a.slots + b.slots};
}

/* The sum of `value` over the threads before this one; *total_out over all. `sums` is SY_SCAN_BYTES
 * of shared memory; a barrier at the end makes it free for the next call. */
SY_DEVICE struct sy_pair sy_block_scan(struct sy_pair value, struct sy_pair *sums,
                                       struct sy_pair *total_out) {
  const unsigned lane = threadIdx.x % SY_WARP;
  const unsigned warp = threadIdx.x / SY_WARP;
  struct sy_pair inclusive = value;
  for (unsigned delta = 1; delta < SY_WARP; delta *= 2) {
    const int32_t rows = __shfl_up_sync(0xFFFFFFFFu, inclusive.rows, delta);
    const int32_t slots = __shfl_up_sync(0xFFFFFFFFu, inclusive.slots, delta);
    if (lane >= delta) {
      inclusive = sy_add(inclusive, {rows, slots});
    }
  }
  if (lane == SY_WARP - 1) {
    sums[warp] = inclusive;
  }
  __syncthreads();
  struct sy_pair before = {0, 0};
  struct sy_pair total = {0, 0};
  for (unsigned w = 0; w < SY_SCAN_WARPS; ++w) {
    before = w < warp ? sy_add(before, sums[w]) : before;
    total = sy_add(total, sums[w]);
  }
  __syncthreads();
  *total_out = total;
  return {before.rows + inclusive.rows - value.rows, before.slots + inclusive.slots - value.slots};
}

#endif
