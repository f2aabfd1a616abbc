/* Hinted loads, acquire and release, named barriers and the rest that orders threads. */
#include "kernels/cuda/ptx.cuh"
#include "tests/simt/test.hpp"

namespace {

enum { THREADS = 64, REPEATS = 10 };

SY_KERNEL void load(const uint4 *in, uint4 *first, uint4 *last, uint4 *streamed) {
  const unsigned i = blockIdx.x * THREADS + threadIdx.x;
  first[i] = sy_load_hinted(&in[i], sy_policy_evict_first());
  last[i] = sy_load_hinted(&in[i], sy_policy_evict_last());
  streamed[i] = sy_load_streamed(&in[i]);
}

/* Block b waits for its flag, adds one to what the block before it left, and raises the next. */
SY_KERNEL void relay(uint32_t *values, uint32_t *flags) {
  const unsigned b = blockIdx.x;
  sy_grid_wait();
  if (threadIdx.x == 0 && b > 0) {
    while (sy_load_acquire(&flags[b]) == 0) {
      __nanosleep(20);
    }
  }
  __syncthreads();
  values[b * THREADS + threadIdx.x] =
      b == 0 ? threadIdx.x : values[(b - 1) * THREADS + threadIdx.x] + 1;
  sy_fence_device();
  __syncthreads();
  if (threadIdx.x == 0) {
    sy_store_release(&flags[b + 1], 1);
  }
  sy_grid_launch_dependents();
}

/* Every block waits until all have come, twice, in between reading what the others wrote. */
SY_KERNEL void meet_twice(uint32_t *count, uint32_t *values, uint32_t *sums) {
  for (uint32_t round = 1; round <= 2; ++round) {
    if (threadIdx.x == 0) {
      values[blockIdx.x] = round * (blockIdx.x + 1);
      __threadfence();
      atomicAdd(count, 1u);
      while (sy_load_acquire(count) < (2 * round - 1) * gridDim.x) {
      }
      uint32_t sum = 0;
      for (unsigned b = 0; b < gridDim.x; ++b) {
        sum += values[b];
      }
      sums[(round - 1) * gridDim.x + blockIdx.x] = sum;
      __threadfence();
      atomicAdd(count, 1u);
      while (sy_load_acquire(count) < 2 * round * gridDim.x) {
      }
    }
  }
}

/* Warps 0, 1 write, warps 2, 3 read, with a barrier for each direction and nothing block-wide. */
SY_KERNEL void hand_over(uint32_t *out, int rounds) {
  uint32_t *box = reinterpret_cast<uint32_t *>(sy_shared());
  const bool writes = threadIdx.x < THREADS;
  for (int round = 0; round < rounds; ++round) {
    if (writes) {
      if (round > 0) {
        sy_barrier_sync(2, 2 * THREADS); /* the box is empty */
      }
      box[threadIdx.x] = static_cast<uint32_t>(round) * 1000 + threadIdx.x;
      sy_barrier_arrive(1, 2 * THREADS); /* the box is full */
    } else {
      sy_barrier_sync(1, 2 * THREADS);
      const unsigned t = threadIdx.x - THREADS;
      out[static_cast<unsigned>(round) * THREADS + t] = box[THREADS - 1 - t];
      if (round + 1 < rounds) {
        sy_barrier_sync(2, 2 * THREADS);
      }
    }
  }
}

SY_KERNEL void tell_lanes(uint32_t *lanes) {
  lanes[threadIdx.x + blockDim.x * threadIdx.y] = sy_lane();
}

} // namespace

TEST(hinted_loads_load) {
  std::vector<uint4> values(4 * THREADS);
  for (uint4 &v : values) {
    v = make_uint4(static_cast<uint32_t>(sy_test_random()), 1, 2,
                   static_cast<uint32_t>(sy_test_random()));
  }
  test::DeviceArray<uint4> in(values);
  test::DeviceArray<uint4> first(values.size());
  test::DeviceArray<uint4> last(values.size());
  test::DeviceArray<uint4> streamed(values.size());
  CHECK_RUNS(SY_LAUNCH(load, 4, THREADS, 0, nullptr, in.data(), first.data(), last.data(),
                       streamed.data()));
  CHECK_EQ_VECTOR(first.host(), values);
  CHECK_EQ_VECTOR(last.host(), values);
  CHECK_EQ_VECTOR(streamed.host(), values);
}

TEST(release_and_acquire_pass_values_on) {
  const unsigned blocks = 6;
  for (int repeat = 0; repeat < REPEATS; ++repeat) {
    test::DeviceArray<uint32_t> values(blocks * THREADS);
    test::DeviceArray<uint32_t> flags(std::vector<uint32_t>(blocks + 1, 0));
    test::reseed();
    CHECK_RUNS(
        SY_LAUNCH_COOPERATIVE(relay, blocks, THREADS, 0, nullptr, values.data(), flags.data()));
    const std::vector<uint32_t> found = values.host();
    for (unsigned i = 0; i < blocks * THREADS; ++i) {
      CHECK_EQ_U64(found[i], i / THREADS + i % THREADS);
    }
    CHECK_EQ_U64(flags.host()[blocks], 1);
  }
}

TEST(all_blocks_of_a_cooperative_grid_meet) {
  const unsigned blocks = 8;
  for (int repeat = 0; repeat < REPEATS; ++repeat) {
    test::DeviceArray<uint32_t> count(std::vector<uint32_t>(1, 0));
    test::DeviceArray<uint32_t> values(blocks);
    test::DeviceArray<uint32_t> sums(2 * blocks);
    test::reseed();
    CHECK_RUNS(SY_LAUNCH_COOPERATIVE(meet_twice, blocks, 32, 0, nullptr, count.data(),
                                     values.data(), sums.data()));
    for (unsigned i = 0; i < 2 * blocks; ++i) {
      CHECK_EQ_U64(sums.host()[i], (i / blocks + 1) * blocks * (blocks + 1) / 2);
    }
  }
}

TEST(named_barriers_hand_over) {
  const int rounds = 7;
  for (int repeat = 0; repeat < REPEATS; ++repeat) {
    test::DeviceArray<uint32_t> out(static_cast<size_t>(rounds) * THREADS);
    test::reseed();
    CHECK_RUNS(SY_LAUNCH(hand_over, 1, 2 * THREADS, THREADS * sizeof(uint32_t), nullptr, out.data(),
                         rounds));
    const std::vector<uint32_t> found = out.host();
    for (size_t i = 0; i < found.size(); ++i) {
      CHECK_EQ_U64(found[i], i / THREADS * 1000 + (THREADS - 1 - i % THREADS));
    }
  }
}

TEST(lanes_count_through_the_block) {
  test::DeviceArray<uint32_t> lanes(80);
  CHECK_RUNS(SY_LAUNCH(tell_lanes, 1, dim3(20, 4), 0, nullptr, lanes.data()));
  for (unsigned i = 0; i < 80; ++i) {
    CHECK_EQ_U64(lanes.host()[i], i % 32);
  }
}
