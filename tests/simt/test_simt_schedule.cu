/* The emulator's machine: every thread runs once, schedules differ by seed and replay from it,
 * memory begins as poison, copies land early and late, atomics count, limits hold. */
#include <algorithm>
#include <set>

#include "kernels/cuda/ptx.cuh"
#include "tests/simt/test.hpp"

namespace {

constexpr int NUM_SEEDS = 40;

/* ---- Indices ---- */

SY_KERNEL void count_visits(uint32_t *visits) {
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  atomicAdd(&visits[block * blockDim.x * blockDim.y * blockDim.z + thread], 1u);
}

} // namespace

TEST(every_thread_runs_once) {
  const dim3 grid(3, 2, 4);
  const dim3 block(5, 3, 7);
  const size_t count = 24 * 105;
  for (int repeat = 0; repeat < 4; ++repeat) {
    test::DeviceArray<uint32_t> visits(std::vector<uint32_t>(count, 0));
    test::reseed();
    CHECK_RUNS(SY_LAUNCH(count_visits, grid, block, 0, nullptr, visits.data()));
    CHECK_EQ_VECTOR(visits.host(), std::vector<uint32_t>(count, 1));
  }
}

/* ---- Seeds ---- */

namespace {

/* Threads write their number in the order in which they come, three times. */
SY_KERNEL void sign_up(uint32_t *count, uint32_t *order) {
  for (int i = 0; i < 3; ++i) {
    order[atomicAdd(count, 1u)] = blockIdx.x * blockDim.x + threadIdx.x;
    __syncthreads();
  }
}

std::vector<uint32_t> order_under(uint64_t seed) {
  test::DeviceArray<uint32_t> count(std::vector<uint32_t>(1, 0));
  test::DeviceArray<uint32_t> order(3 * 4 * 64);
  simt::set_seed(seed);
  CHECK_RUNS(SY_LAUNCH(sign_up, 4, 64, 0, nullptr, count.data(), order.data()));
  return order.host();
}

} // namespace

TEST(a_seed_replays) {
  for (uint64_t seed = 0; seed < 10; ++seed) {
    CHECK_EQ_VECTOR(order_under(seed), order_under(seed));
  }
}

TEST(seeds_differ) {
  std::set<std::vector<uint32_t>> orders;
  for (uint64_t seed = 0; seed < NUM_SEEDS; ++seed) {
    orders.insert(order_under(seed));
  }
  CHECK_EQ_U64(orders.size(), NUM_SEEDS);
}

namespace {

/* Between two meetings of the warp, how often another warp came in between. */
SY_KERNEL void watch_others(uint32_t *turns, uint32_t *interruptions) {
  for (uint32_t i = 0; i < 16; ++i) {
    if (threadIdx.x % 32 == 0) {
      interruptions[blockIdx.x] += *turns != threadIdx.x;
      *turns = threadIdx.x;
    }
    __syncwarp();
  }
}

} // namespace

TEST(warps_take_turns_under_one_seed_and_run_ahead_under_another) {
  uint32_t least = UINT32_MAX;
  uint32_t most = 0;
  for (int i = 0; i < NUM_SEEDS; ++i) {
    test::DeviceArray<uint32_t> turns(1);
    test::DeviceArray<uint32_t> interruptions(std::vector<uint32_t>(1, 0));
    test::reseed();
    CHECK_RUNS(SY_LAUNCH(watch_others, 1, 64, 0, nullptr, turns.data(), interruptions.data()));
    least = std::min(least, interruptions.host()[0]);
    most = std::max(most, interruptions.host()[0]);
  }
  CHECK(least <= 3);
  CHECK(most >= 10);
}

/* ---- Memory ---- */

namespace {

/* Each block looks at its shared memory, then writes all over it. */
SY_KERNEL void look_at_poison(size_t bytes, uint32_t *clean_bytes) {
  uint32_t clean = 0;
  for (size_t i = 0; i < bytes; ++i) {
    clean += sy_shared()[i] == 0xFF;
    sy_shared()[i] = 0;
  }
  clean_bytes[blockIdx.x] = clean;
}

} // namespace

TEST(shared_memory_is_poison_at_first) {
  const size_t bytes = 1001;
  test::DeviceArray<uint32_t> clean_bytes(9);
  CHECK_RUNS(SY_LAUNCH(look_at_poison, 9, 1, bytes, nullptr, bytes, clean_bytes.data()));
  CHECK_EQ_VECTOR(clean_bytes.host(), std::vector<uint32_t>(9, bytes));
}

TEST(device_memory_is_poison_at_first_and_known) {
  char *p = static_cast<char *>(simt::device_malloc(100));
  char *q = static_cast<char *>(simt::device_malloc(0));
  CHECK(std::all_of(p, p + 100, [](char c) { return c == static_cast<char>(0xFF); }));
  CHECK_EQ_U64(reinterpret_cast<uintptr_t>(p) % 256, 0);
  CHECK(simt::is_device_memory(p, 100));
  CHECK(simt::is_device_memory(p + 99, 1));
  CHECK(!simt::is_device_memory(p, 101));
  CHECK(!simt::is_device_memory(p - 1, 2));
  CHECK(simt::is_device_memory(q, 0));
  CHECK(!simt::is_device_memory(q, 1));
  CHECK(!simt::is_device_memory(&p, 1));
  CHECK(simt::device_free(p));
  CHECK(!simt::device_free(p));
  CHECK(simt::device_free(q));
  CHECK(!simt::device_free(nullptr));
}

/* ---- Copies ---- */

namespace {

/* The source changes while the copy is under way: the copy may have landed before, or not. */
SY_KERNEL void change_source(uint32_t *source, uint32_t *out) {
  if (threadIdx.x == 0) {
    sy_cp_async<16>(sy_shared(), source);
    sy_cp_async_commit();
    for (int i = 0; i < 10; ++i) {
      __nanosleep(1);
    }
    source[0] = 2;
    sy_cp_async_wait<0>();
    out[0] = *reinterpret_cast<uint32_t *>(sy_shared());
  }
}

/* A phase that has long ended: how often it is said not to have. */
SY_KERNEL void ask_again(uint32_t *denials) {
  uint64_t *mbarrier = reinterpret_cast<uint64_t *>(sy_shared());
  sy_mbarrier_init(mbarrier, 1);
  sy_mbarrier_arrive(mbarrier);
  for (int i = 0; i < 100; ++i) {
    *denials += !sy_mbarrier_try_wait(mbarrier, 0);
  }
  *denials += 1000u * sy_mbarrier_try_wait(mbarrier, 1); /* has not ended */
}

} // namespace

TEST(copies_land_early_and_late) {
  int num_early = 0;
  for (int i = 0; i < NUM_SEEDS; ++i) {
    test::DeviceArray<uint32_t> source(std::vector<uint32_t>(4, 1));
    test::DeviceArray<uint32_t> out(1);
    test::reseed();
    CHECK_RUNS(SY_LAUNCH(change_source, 1, 32, 16, nullptr, source.data(), out.data()));
    num_early += out.host()[0] == 1;
    CHECK(out.host()[0] == 1 || out.host()[0] == 2);
  }
  CHECK(num_early > 0);
  CHECK(num_early < NUM_SEEDS);
}

TEST(a_wait_that_may_be_in_vain_sometimes_is) {
  test::DeviceArray<uint32_t> denials(std::vector<uint32_t>(1, 0));
  CHECK_RUNS(SY_LAUNCH(ask_again, 1, 1, 8, nullptr, denials.data()));
  CHECK(denials.host()[0] > 0);
  CHECK(denials.host()[0] < 100);
}

/* ---- Atomics ---- */

namespace {

struct Atomics {
  uint32_t sum, largest, smallest, bits, common_bits;
  int32_t negative_sum;
  unsigned long long wide_sum;
  uint32_t lock, guarded;
};

SY_KERNEL void use_atomics(Atomics *a) {
  const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&a->sum, i);
  atomicAdd(&a->negative_sum, -static_cast<int>(i));
  atomicAdd(&a->wide_sum, 0x100000000ull);
  atomicMax(&a->largest, i);
  atomicMin(&a->smallest, i);
  atomicOr(&a->bits, 1u << i % 32);
  atomicAnd(&a->common_bits, ~(1u << i % 7));
  while (atomicCAS(&a->lock, 0u, 1u) != 0) {
  }
  const uint32_t before = a->guarded;
  __nanosleep(1);
  a->guarded = before + 1;
  atomicExch(&a->lock, 0u);
}

} // namespace

TEST(atomics_lose_nothing) {
  const uint32_t n = 4 * 96;
  for (int i = 0; i < 5; ++i) {
    test::DeviceArray<Atomics> array(
        std::vector<Atomics>(1, {0, 0, UINT32_MAX, 0, UINT32_MAX, 0, 0, 0, 0}));
    test::reseed();
    CHECK_RUNS(SY_LAUNCH(use_atomics, 4, 96, 0, nullptr, array.data()));
    const Atomics a = array.host()[0];
    CHECK_EQ_U64(a.sum, n * (n - 1) / 2);
    CHECK_EQ_I64(a.negative_sum, -static_cast<int64_t>(n * (n - 1) / 2));
    CHECK_EQ_U64(a.wide_sum, uint64_t{n} << 32);
    CHECK_EQ_U64(a.largest, n - 1);
    CHECK_EQ_U64(a.smallest, 0);
    CHECK_EQ_U64(a.bits, 0xFFFFFFFFu);
    CHECK_EQ_U64(a.common_bits, 0xFFFFFF80u);
    CHECK_EQ_U64(a.guarded, n);
  }
}

/* ---- Launches ---- */

namespace {

SY_KERNEL void do_nothing(long long *steps) { *steps = clock64(); }

void check_refused(cudaError_t error, const char *why) {
  CHECK_EQ_I64(error, cudaErrorInvalidConfiguration);
  const auto violation = simt::take_violation();
  if (CHECK(violation.has_value())) {
    CHECK(violation->kind == simt::Kind::limit);
    CHECK_EQ_STR(violation->kernel.c_str(), "do_nothing");
    CHECK_STR_HAS(violation->what.c_str(), why);
  }
}

} // namespace

TEST(a_launch_beyond_the_limits_is_refused) {
  test::DeviceArray<long long> steps(1);
  long long *p = steps.data();
  CHECK_RUNS(SY_LAUNCH(do_nothing, 1, 1024, 101376, nullptr, p));
  check_refused(SY_LAUNCH(do_nothing, 1, 1025, 0, nullptr, p), "threads per block: 1025");
  check_refused(SY_LAUNCH(do_nothing, 1, 0, 0, nullptr, p), "threads per block: 0");
  check_refused(SY_LAUNCH(do_nothing, 0, 32, 0, nullptr, p), "blocks in x: 0");
  check_refused(SY_LAUNCH(do_nothing, dim3(1, 65536), 32, 0, nullptr, p),
                "blocks in y or z: 65536");
  check_refused(SY_LAUNCH(do_nothing, 1, 32, 101377, nullptr, p),
                "bytes of shared memory: 101377; 1 to 101376");
}

TEST(a_cooperative_grid_must_fit_the_device) {
  test::DeviceArray<long long> steps(1);
  long long *p = steps.data();
  const unsigned sms = simt::config().device.num_sms;
  /* Limited by threads, by shared memory, by blocks. */
  CHECK_RUNS(SY_LAUNCH_COOPERATIVE(do_nothing, 3 * sms, 512, 0, nullptr, p));
  check_refused(SY_LAUNCH_COOPERATIVE(do_nothing, 3 * sms + 1, 512, 0, nullptr, p),
                "blocks of a cooperative grid: 13; 1 to 12");
  CHECK_RUNS(SY_LAUNCH_COOPERATIVE(do_nothing, 2 * sms, 32, 50000, nullptr, p));
  check_refused(SY_LAUNCH_COOPERATIVE(do_nothing, 2 * sms + 1, 32, 50000, nullptr, p),
                "cooperative");
  CHECK_RUNS(SY_LAUNCH_COOPERATIVE(do_nothing, 24 * sms, 32, 0, nullptr, p));
  check_refused(SY_LAUNCH_COOPERATIVE(do_nothing, 24 * sms + 1, 32, 0, nullptr, p), "cooperative");
}

TEST(time_passes) {
  test::DeviceArray<long long> steps(1);
  CHECK_RUNS(SY_LAUNCH(do_nothing, 7, 32, 0, nullptr, steps.data()));
  CHECK(steps.host()[0] > 7 * 20);
}

namespace {

SY_KERNEL void add(uint32_t *to, uint32_t value, const uint32_t *from) { *to = value + *from; }

} // namespace

TEST(arguments_are_those_of_the_launch) {
  test::DeviceArray<uint32_t> out(1);
  test::DeviceArray<uint32_t> in(std::vector<uint32_t>(1, 30));
  uint32_t value = 12;
  simt::Launch kept;
  const auto enqueue = simt::enqueue;
  static simt::Launch *to;
  to = &kept;
  simt::enqueue = [](cudaStream_t, simt::Launch launch) {
    *to = std::move(launch);
    return cudaSuccess;
  };
  CHECK_EQ_I64(SY_LAUNCH(add, 1, 1, 0, nullptr, out.data(), value, in.data()), cudaSuccess);
  simt::enqueue = enqueue;
  value = 99;
  CHECK_EQ_U64(out.host()[0], 0xFFFFFFFFu); /* it has not run */
  CHECK(!simt::run(kept));
  CHECK_EQ_U64(out.host()[0], 42);
}
