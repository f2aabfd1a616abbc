/* Broken kernels that every build catches. test_simt_bounds.cu has those that take AddressSanitizer.
 */
#include "tests/simt/broken.hpp"

using simt::Kind;
using test::check_always_caught;
using test::check_caught;
using test::DeviceArray;

/* ---- A missing barrier ---- */

namespace {

constexpr unsigned THREADS = 128;

SY_KERNEL void reverse(uint32_t *values, bool with_barrier) {
  uint32_t *shared = reinterpret_cast<uint32_t *>(sy_shared());
  shared[threadIdx.x] = values[threadIdx.x];
  if (with_barrier) {
    __syncthreads();
  }
  values[threadIdx.x] = shared[THREADS - 1 - threadIdx.x];
}

/* Sums over the block, round after round, in one buffer: the second barrier keeps a fast warp from
 * writing what a slow one has yet to read. */
SY_KERNEL void sum_rounds(uint32_t *sums, uint32_t rounds, bool with_second_barrier) {
  uint32_t *shared = reinterpret_cast<uint32_t *>(sy_shared());
  for (uint32_t round = 0; round < rounds; ++round) {
    shared[threadIdx.x] = round;
    __syncthreads();
    uint32_t sum = 0;
    for (unsigned i = 0; i < THREADS; ++i) {
      sum += shared[i];
    }
    __syncwarp();
    sums[round * THREADS + threadIdx.x] = sum;
    if (with_second_barrier) {
      __syncthreads();
    }
  }
}

/* Warp 0 writes the fragments that warp 1 multiplies. */
SY_KERNEL void multiply_without_barrier(float *out) {
  uint32_t *shared = reinterpret_cast<uint32_t *>(sy_shared());
  if (threadIdx.x < 32) {
    for (unsigned i = 0; i < 4; ++i) {
      shared[4 * threadIdx.x + i] = 0x3F803F80u;
    }
  } else {
    const unsigned l = threadIdx.x - 32;
    uint32_t a[4];
    sy_ldmatrix_x4(a, shared + 4 * l);
    const uint32_t b[2] = {0x3F803F80u, 0x3F803F80u};
    float d[4] = {};
    sy_mma_bf16(d, a, b);
    out[l] = d[0];
  }
}

/* Lanes exchange through shared memory without __syncwarp. */
SY_KERNEL void swap_lanes(uint32_t *out, bool with_barrier) {
  uint32_t *shared = reinterpret_cast<uint32_t *>(sy_shared());
  shared[threadIdx.x] = threadIdx.x;
  if (with_barrier) {
    __syncwarp();
  }
  out[threadIdx.x] = shared[threadIdx.x ^ 1];
}

} // namespace

TEST(a_missing_barrier_gives_poison) {
  std::vector<uint32_t> values(THREADS);
  std::vector<uint32_t> reversed(THREADS);
  for (unsigned i = 0; i < THREADS; ++i) {
    values[i] = i;
    reversed[THREADS - 1 - i] = i;
  }
  for (const bool with_barrier : {true, false}) {
    for (int i = 0; i < test::NUM_SEEDS; ++i) {
      DeviceArray<uint32_t> array(values);
      test::reseed();
      CHECK_RUNS(SY_LAUNCH(reverse, 1, THREADS, 4 * THREADS, nullptr, array.data(), with_barrier));
      CHECK_EQ_I64(array.host() == reversed, with_barrier);
    }
  }
}

TEST(a_missing_second_barrier_gives_wrong_sums) {
  for (const bool with_barrier : {true, false}) {
    int num_right = 0;
    for (int i = 0; i < test::NUM_SEEDS; ++i) {
      const uint32_t rounds = 8;
      DeviceArray<uint32_t> array(rounds * THREADS);
      test::reseed();
      CHECK_RUNS(SY_LAUNCH(sum_rounds, 1, THREADS, 4 * THREADS, nullptr, array.data(), rounds,
                           with_barrier));
      const std::vector<uint32_t> sums = array.host();
      bool is_right = true;
      for (uint32_t k = 0; k < rounds * THREADS; ++k) {
        is_right = is_right && sums[k] == THREADS * (k / THREADS);
      }
      num_right += is_right;
    }
    CHECK(with_barrier ? num_right == test::NUM_SEEDS : num_right < test::NUM_SEEDS / 4);
  }
}

TEST(a_matrix_of_poison_is_reported) {
  DeviceArray<float> out(32);
  int num_caught = 0;
  for (int i = 0; i < test::NUM_SEEDS; ++i) {
    test::reseed();
    const cudaError_t error = SY_LAUNCH(multiply_without_barrier, 1, 64, 512, nullptr, out.data());
    const auto violation = simt::take_violation();
    CHECK_EQ_I64(violation.has_value(), error != cudaSuccess);
    if (violation) {
      ++num_caught;
      CHECK(violation->kind == Kind::poison);
      CHECK(violation->thread.x >= 32);
    }
  }
  CHECK(num_caught > test::NUM_SEEDS / 4); /* else warp 0 was first */
  CHECK(num_caught < test::NUM_SEEDS);
}

TEST(a_missing_warp_barrier_gives_poison) {
  for (const bool with_barrier : {true, false}) {
    for (int i = 0; i < test::NUM_SEEDS; ++i) {
      DeviceArray<uint32_t> out(32);
      test::reseed();
      CHECK_RUNS(SY_LAUNCH(swap_lanes, 1, 32, 128, nullptr, out.data(), with_barrier));
      bool is_right = true;
      for (unsigned l = 0; l < 32; ++l) {
        is_right = is_right && out.host()[l] == (l ^ 1u);
      }
      CHECK_EQ_I64(is_right, with_barrier);
    }
  }
}

/* ---- Divergence ---- */

namespace {

SY_KERNEL void barrier_in_branch(uint32_t *out) {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
  out[threadIdx.x] = 1;
}

SY_KERNEL void leave_before_barrier(uint32_t *out) {
  if (threadIdx.x >= 100) {
    return;
  }
  out[threadIdx.x] = 1;
  __syncthreads();
}

/* The first warp has left before the others come to the barrier. */
SY_KERNEL void leave_long_before_barrier(uint32_t *num_left) {
  if (threadIdx.x < 32) {
    atomicAdd(num_left, 1u);
    return;
  }
  while (sy_load_acquire(num_left) < 32) {
  }
  __syncthreads();
}

SY_KERNEL void different_votes(uint32_t *out) {
  out[threadIdx.x] = threadIdx.x < 16 ? __ballot_sync(0xFFFFFFFFu, 1)
                                      : static_cast<uint32_t>(__any_sync(0xFFFFFFFFu, 1));
}

SY_KERNEL void multiply_with_half_a_warp(float *out) {
  if (threadIdx.x < 16) {
    const uint32_t a[4] = {};
    const uint32_t b[2] = {};
    float d[4] = {};
    sy_mma_bf16(d, a, b);
    out[threadIdx.x] = d[0];
  }
}

SY_KERNEL void multiply_with_a_short_warp(float *out) {
  const uint32_t a[4] = {};
  const uint32_t b[2] = {};
  float d[4] = {};
  sy_mma_nvfp4<0, 0>(d, a, b, 0, 0);
  out[threadIdx.x] = d[0];
}

} // namespace

TEST(divergence_is_caught) {
  DeviceArray<uint32_t> out(THREADS);
  DeviceArray<float> floats(THREADS);
  check_always_caught(Kind::divergence, "barrier_in_branch", "others of the block wait at", [&] {
    return SY_LAUNCH(barrier_in_branch, 1, THREADS, 0, nullptr, out.data());
  });
  check_always_caught(Kind::divergence, "leave_before_barrier", "left the kernel", [&] {
    return SY_LAUNCH(leave_before_barrier, 1, THREADS, 0, nullptr, out.data());
  });
  check_always_caught(Kind::divergence, "leave_long_before_barrier", "32 threads of the block", [] {
    DeviceArray<uint32_t> num_left(std::vector<uint32_t>(1, 0));
    return SY_LAUNCH(leave_long_before_barrier, 1, THREADS, 0, nullptr, num_left.data());
  });
  check_always_caught(Kind::divergence, "different_votes", "_sync of lane",
                      [&] { return SY_LAUNCH(different_votes, 1, 32, 0, nullptr, out.data()); });
  check_always_caught(Kind::divergence, "multiply_with_half_a_warp", "mma_bf16", [&] {
    return SY_LAUNCH(multiply_with_half_a_warp, 1, 32, 0, nullptr, floats.data());
  });
  check_always_caught(Kind::divergence, "multiply_with_a_short_warp", "not there any more", [&] {
    return SY_LAUNCH(multiply_with_a_short_warp, 1, 31, 0, nullptr, floats.data());
  });
}

/* ---- A wrong mask ---- */

namespace {

SY_KERNEL void not_in_own_mask(uint32_t *out) {
  out[threadIdx.x] = __shfl_sync(0x0000FFFFu, threadIdx.x, 0);
}

/* The lanes agree that both halves take part, but not on whether lane 31 does. */
SY_KERNEL void different_masks(uint32_t *out) {
  out[threadIdx.x] = __shfl_xor_sync(
      threadIdx.x % 2 == 0 ? 0xFFFFFFFFu : 0x7FFFFFFFu | 1u << threadIdx.x, threadIdx.x, 1);
}

/* The full mask in a branch that half the lanes take; the others wait at the block's barrier. */
SY_KERNEL void full_mask_in_branch(uint32_t *out) {
  if (threadIdx.x < 16) {
    out[threadIdx.x] = __shfl_sync(0xFFFFFFFFu, threadIdx.x, 3);
  }
  __syncthreads();
}

} // namespace

TEST(wrong_masks_are_caught) {
  DeviceArray<uint32_t> out(THREADS);
  check_always_caught(Kind::mask, "not_in_own_mask", "is not in its own mask 0x0000ffff",
                      [&] { return SY_LAUNCH(not_in_own_mask, 1, 32, 0, nullptr, out.data()); });
  check_always_caught(Kind::mask, "different_masks", "names the mask",
                      [&] { return SY_LAUNCH(different_masks, 1, 32, 0, nullptr, out.data()); });
  check_always_caught(Kind::deadlock, "full_mask_in_branch", "wait for __shfl_sync at", [&] {
    return SY_LAUNCH(full_mask_in_branch, 1, 32, 0, nullptr, out.data());
  });
}

/* ---- A missing wait ---- */

namespace {

/* Two groups; the wait leaves `GROUPS` under way, and then the second one's data is used. */
template <int GROUPS> SY_KERNEL void use_after_wait(const uint32_t *in, float *out) {
  unsigned char *shared = sy_shared();
  for (unsigned group = 0; group < 2; ++group) {
    sy_cp_async<16>(shared + 512 * group + 16 * threadIdx.x, in + 128 * group + 4 * threadIdx.x);
    sy_cp_async_commit();
  }
  sy_cp_async_wait<GROUPS>();
  __syncwarp();
  uint32_t r[4];
  sy_ldmatrix_x4(r, shared + 512 + 16 * threadIdx.x);
  out[threadIdx.x] = static_cast<float>(r[0]);
  sy_cp_async_wait<0>();
}

/* Plain accesses are seen by AddressSanitizer; other builds read poison. */
SY_KERNEL void read_without_wait(const uint32_t *in, uint32_t *out) {
  uint32_t *shared = reinterpret_cast<uint32_t *>(sy_shared());
  sy_cp_async<16>(shared, in);
  sy_cp_async_commit();
  out[0] = shared[0];
  sy_cp_async_wait<0>();
}

SY_KERNEL void write_under_copy(const uint32_t *in) {
  uint32_t *shared = reinterpret_cast<uint32_t *>(sy_shared());
  sy_cp_async<16>(shared, in);
  sy_cp_async_commit();
  shared[1] = 7;
  sy_cp_async_wait<0>();
}

SY_KERNEL void copy_twice_to_one_place(const uint32_t *in) {
  sy_cp_async<16>(sy_shared(), in);
  sy_cp_async<16>(sy_shared(), in + 4);
  sy_cp_async_commit();
  sy_cp_async_wait<0>();
}

SY_KERNEL void never_wait(const uint32_t *in) {
  sy_cp_async<8>(sy_shared() + 8 * threadIdx.x, in + 2 * threadIdx.x);
  sy_cp_async_commit();
}

/* The second copy is not in a group. */
SY_KERNEL void never_commit(const uint32_t *in) {
  sy_cp_async<16>(sy_shared(), in);
  sy_cp_async_commit();
  sy_cp_async<16>(sy_shared() + 16, in);
  sy_cp_async_wait<0>();
}

SY_KERNEL void bulk_without_wait(const uint32_t *in, bool waits) {
  uint64_t *mbarrier = reinterpret_cast<uint64_t *>(sy_shared() + 512);
  if (threadIdx.x == 0) {
    sy_mbarrier_init(mbarrier, 1);
    sy_bulk_copy(sy_shared(), in, 512, mbarrier);
    sy_mbarrier_arrive_expect(mbarrier, 512);
  }
  __syncwarp();
  if (waits) {
    sy_mbarrier_wait(mbarrier, 1); /* the wrong parity: of the phase before the first */
  }
  uint32_t r[4];
  sy_ldmatrix_x4(r, sy_shared() + 16 * threadIdx.x);
}

/* The first phase is over, the second one's bytes may not be there. */
SY_KERNEL void bulk_of_next_phase(const uint32_t *in) {
  uint64_t *mbarrier = reinterpret_cast<uint64_t *>(sy_shared() + 1024);
  if (threadIdx.x == 0) {
    sy_mbarrier_init(mbarrier, 1);
    for (unsigned phase = 0; phase < 2; ++phase) {
      sy_bulk_copy(sy_shared() + 512 * phase, in, 512, mbarrier);
      sy_mbarrier_arrive_expect(mbarrier, 512);
      if (phase == 0) {
        sy_mbarrier_wait(mbarrier, 0);
      }
    }
  }
  __syncwarp();
  sy_mbarrier_wait(mbarrier, 0); /* the second needs parity 1 */
  uint32_t r[4];
  sy_ldmatrix_x4(r, sy_shared() + 512 + 16 * threadIdx.x);
}

SY_KERNEL void bulk_never_waited_for(const uint32_t *in) {
  uint64_t *mbarrier = reinterpret_cast<uint64_t *>(sy_shared() + 512);
  sy_mbarrier_init(mbarrier, 1);
  sy_bulk_copy(sy_shared(), in, 512, mbarrier);
  sy_mbarrier_arrive_expect(mbarrier, 512);
}

} // namespace

TEST(a_missing_wait_is_caught) {
  DeviceArray<uint32_t> in(std::vector<uint32_t>(256, 5));
  DeviceArray<float> out(32);
  CHECK_RUNS(SY_LAUNCH(use_after_wait<0>, 1, 32, 1024, nullptr, in.data(), out.data()));
  CHECK(out.host()[9] == 5.0f);
  check_always_caught(Kind::early_use, "use_after_wait<1>", "under way", [&] {
    return SY_LAUNCH(use_after_wait<1>, 1, 32, 1024, nullptr, in.data(), out.data());
  });
  check_always_caught(Kind::early_use, "copy_twice_to_one_place", "under way", [&] {
    return SY_LAUNCH(copy_twice_to_one_place, 1, 1, 16, nullptr, in.data());
  });
  check_always_caught(Kind::early_use, "write_under_copy", "",
                      [&] { return SY_LAUNCH(write_under_copy, 1, 1, 16, nullptr, in.data()); });
  check_always_caught(Kind::early_use, "bulk_without_wait", "ldmatrix", [&] {
    return SY_LAUNCH(bulk_without_wait, 1, 32, 520, nullptr, in.data(), false);
  });
}

/* Parity 0: over at once while the second phase lasts, never once that has ended too. */
TEST(a_wait_for_the_phase_before_is_caught) {
  DeviceArray<uint32_t> in(std::vector<uint32_t>(128, 5));
  int num_early = 0;
  for (int i = 0; i < test::NUM_SEEDS; ++i) {
    test::reseed();
    CHECK(SY_LAUNCH(bulk_of_next_phase, 1, 32, 1032, nullptr, in.data()) != cudaSuccess);
    const auto violation = simt::take_violation();
    if (CHECK(violation.has_value())) {
      num_early += violation->kind == Kind::early_use;
      CHECK(violation->kind == Kind::early_use || violation->kind == Kind::deadlock);
    }
  }
  CHECK(num_early > 0);
}

/* Parity 1 of the first phase: over at once, never once the data has landed. */
TEST(a_wait_for_the_wrong_parity_is_caught) {
  DeviceArray<uint32_t> in(std::vector<uint32_t>(256, 5));
  int num_early = 0;
  for (int i = 0; i < test::NUM_SEEDS; ++i) {
    test::reseed();
    CHECK(SY_LAUNCH(bulk_without_wait, 1, 32, 520, nullptr, in.data(), true) != cudaSuccess);
    const auto violation = simt::take_violation();
    if (CHECK(violation.has_value())) {
      num_early += violation->kind == Kind::early_use;
      CHECK(violation->kind == Kind::early_use || violation->kind == Kind::deadlock);
    }
  }
  CHECK(num_early > 0);
  CHECK(num_early < test::NUM_SEEDS);
}

TEST(a_plain_read_without_a_wait_is_caught) {
  DeviceArray<uint32_t> in(std::vector<uint32_t>(4, 5));
  DeviceArray<uint32_t> out(1);
  for (int i = 0; i < test::NUM_SEEDS; ++i) {
    test::reseed();
    const cudaError_t error =
        SY_LAUNCH(read_without_wait, 1, 1, 16, nullptr, in.data(), out.data());
    const auto violation = simt::take_violation();
    if (simt::has_asan) {
      CHECK(error != cudaSuccess && violation && violation->kind == Kind::early_use);
    } else {
      CHECK(error == cudaSuccess && out.host()[0] == 0xFFFFFFFFu);
    }
  }
}

TEST(a_copy_that_nobody_waits_for_is_caught) {
  DeviceArray<uint32_t> in(std::vector<uint32_t>(128, 5));
  check_always_caught(Kind::unwaited, "never_wait", "without waiting",
                      [&] { return SY_LAUNCH(never_wait, 1, 64, 512, nullptr, in.data()); });
  check_always_caught(Kind::unwaited, "never_commit", "without waiting",
                      [&] { return SY_LAUNCH(never_commit, 1, 1, 32, nullptr, in.data()); });
  check_always_caught(Kind::unwaited, "bulk_never_waited_for", "nobody waited", [&] {
    return SY_LAUNCH(bulk_never_waited_for, 1, 1, 520, nullptr, in.data());
  });
}

/* ---- Copies and barriers against their rules ---- */

namespace {

enum class Misuse {
  misaligned,
  wrong_size,
  wrong_count,
  uninitialised,
  initialised_twice,
  overwritten,
  too_many_arrivals,
  expects_too_much,
  announces_nothing,
  outside,
  source_outside
};

SY_KERNEL void misuse_mbarrier(const uint32_t *in, Misuse how) {
  unsigned char *shared = sy_shared();
  uint64_t *m = reinterpret_cast<uint64_t *>(shared);
  if (how != Misuse::uninitialised) {
    sy_mbarrier_init(m, how == Misuse::wrong_count ? 0 : 1);
  }
  if (how == Misuse::initialised_twice) {
    sy_mbarrier_init(m, 1);
  }
  if (how == Misuse::overwritten) {
    *m = 0;
  }
  if (how == Misuse::outside) {
    sy_mbarrier_arrive(m + 1000);
  }
  sy_bulk_copy(shared + (how == Misuse::misaligned ? 24 : 16),
               in + (how == Misuse::source_outside ? 4 : 0), how == Misuse::wrong_size ? 8 : 32, m);
  if (how == Misuse::announces_nothing) {
    sy_mbarrier_arrive(m);
  }
  sy_mbarrier_arrive_expect(m, how == Misuse::expects_too_much ? 48 : 32);
  if (how == Misuse::too_many_arrivals) {
    sy_mbarrier_arrive(m);
  }
  sy_mbarrier_wait(m, 0);
}

SY_KERNEL void misuse_named_barrier(uint32_t id, uint32_t threads, uint32_t others) {
  sy_barrier_sync(id, threadIdx.x < 32 ? threads : others);
}

SY_KERNEL void misaligned_atomic(uint32_t *p) {
  atomicAdd(reinterpret_cast<uint32_t *>(reinterpret_cast<unsigned char *>(p) + 2), 1u);
}

SY_KERNEL void too_long_source(const uint32_t *in) { sy_cp_async_zero_fill<8>(sy_shared(), in, 9); }

SY_KERNEL void give_up(uint32_t *out) {
  if (blockIdx.x == 2 && threadIdx.x == 3) {
    __trap();
  }
  out[0] = 0;
}

} // namespace

TEST(misuse_of_mbarriers_is_caught) {
  DeviceArray<uint32_t> in(std::vector<uint32_t>(8, 5));
  const struct {
    Misuse how;
    Kind kind;
    const char *part;
  } cases[] = {
      {Misuse::misaligned, Kind::misaligned, "is not a multiple of 16"},
      {Misuse::wrong_size, Kind::misaligned, "8 bytes are not a multiple of 16"},
      {Misuse::wrong_count, Kind::barrier, "a count of 0"},
      {Misuse::uninitialised, Kind::barrier, "not initialised"},
      {Misuse::initialised_twice, Kind::barrier, "already"},
      {Misuse::overwritten, Kind::barrier, "written to"},
      {Misuse::too_many_arrivals, Kind::barrier, "one arrival more than the 1"},
      {Misuse::expects_too_much, Kind::barrier, "48 bytes are announced, 32 were copied"},
      {Misuse::announces_nothing, Kind::barrier, "0 bytes are announced, 32 were copied"},
      {Misuse::outside, Kind::out_of_bounds, "8 bytes at byte 8000 of 48 bytes"},
      {Misuse::source_outside, Kind::out_of_bounds, "32 bytes at"},
  };
  for (const auto &c : cases) {
    check_always_caught(c.kind, "misuse_mbarrier", c.part, [&] {
      return SY_LAUNCH(misuse_mbarrier, 1, 1, 48, nullptr, in.data(), c.how);
    });
  }
}

TEST(misuse_of_named_barriers_is_caught) {
  check_always_caught(Kind::barrier, "misuse_named_barrier", "named barriers are 1 to 15", [] {
    return SY_LAUNCH(misuse_named_barrier, 1, 64, 0, nullptr, 0u, 64u, 64u);
  });
  check_always_caught(Kind::barrier, "misuse_named_barrier", "named barriers are 1 to 15", [] {
    return SY_LAUNCH(misuse_named_barrier, 1, 64, 0, nullptr, 16u, 64u, 64u);
  });
  check_always_caught(Kind::barrier, "misuse_named_barrier", "48 threads are not whole warps", [] {
    return SY_LAUNCH(misuse_named_barrier, 1, 64, 0, nullptr, 1u, 48u, 48u);
  });
  check_always_caught(Kind::barrier, "misuse_named_barrier", "96 threads are not whole warps", [] {
    return SY_LAUNCH(misuse_named_barrier, 1, 64, 0, nullptr, 1u, 96u, 96u);
  });
  check_always_caught(Kind::barrier, "misuse_named_barrier", "threads here", [] {
    return SY_LAUNCH(misuse_named_barrier, 1, 96, 0, nullptr, 1u, 96u, 64u);
  });
}

TEST(odd_addresses_and_sizes_are_caught) {
  DeviceArray<uint32_t> array(std::vector<uint32_t>(8, 5));
  check_always_caught(Kind::misaligned, "misaligned_atomic", "atomicAdd", [&] {
    return SY_LAUNCH(misaligned_atomic, 1, 32, 0, nullptr, array.data());
  });
  check_always_caught(Kind::out_of_bounds, "too_long_source", "9 source bytes of 8",
                      [&] { return SY_LAUNCH(too_long_source, 1, 1, 8, nullptr, array.data()); });
}

TEST(a_trap_says_where) {
  DeviceArray<uint32_t> out(1);
  for (int i = 0; i < test::NUM_SEEDS; ++i) {
    test::reseed();
    const simt::Violation v = check_caught(Kind::trap, "give_up", "__trap", [&] {
      return SY_LAUNCH(give_up, 5, 32, 0, nullptr, out.data());
    });
    CHECK_EQ_U64(v.block.x, 2);
    CHECK_EQ_U64(v.thread.x, 3);
  }
}

/* ---- Deadlock ---- */

namespace {

/* The third warp never comes. */
SY_KERNEL void wait_for_a_warp(uint32_t threads) {
  if (threadIdx.x < 64) {
    sy_barrier_sync(3, threads);
  }
}

SY_KERNEL void wait_for_a_flag(uint32_t *flag) {
  while (sy_load_acquire(flag) != 1) {
  }
}

SY_KERNEL void wait_for_bytes(const uint32_t *, uint32_t bytes) {
  uint64_t *m = reinterpret_cast<uint64_t *>(sy_shared());
  sy_mbarrier_init(m, 2);
  sy_mbarrier_arrive_expect(m, bytes);
  sy_mbarrier_wait(m, 0);
}

/* Right only if all blocks are there at once. */
SY_KERNEL void meet_all_blocks(uint32_t *count) {
  atomicAdd(count, 1u);
  while (sy_load_acquire(count) < gridDim.x) {
  }
}

} // namespace

TEST(deadlocks_are_caught_and_say_who_waits_where) {
  DeviceArray<uint32_t> flag(std::vector<uint32_t>(1, 0));
  check_always_caught(Kind::deadlock, "wait_for_a_warp",
                      "64 of 96 threads (the first is 0) wait for a named barrier at",
                      [] { return SY_LAUNCH(wait_for_a_warp, 1, 96, 0, nullptr, 96u); });
  check_always_caught(Kind::deadlock, "wait_for_bytes", "wait for an mbarrier at",
                      [&] { return SY_LAUNCH(wait_for_bytes, 1, 1, 8, nullptr, flag.data(), 0u); });
  const simt::Violation v =
      check_caught(Kind::deadlock, "wait_for_a_flag", "32 of 32 threads",
                   [&] { return SY_LAUNCH(wait_for_a_flag, 2, 32, 0, nullptr, flag.data()); });
  CHECK_STR_HAS(v.what.c_str(), "wait for sy_load_acquire at");
  CHECK_STR_HAS(v.site.c_str(), "test_simt_broken.cu");
}

TEST(a_grid_whose_blocks_meet_must_be_cooperative) {
  const auto launch = [](bool cooperative) {
    DeviceArray<uint32_t> count(std::vector<uint32_t>(1, 0));
    return cooperative ? SY_LAUNCH_COOPERATIVE(meet_all_blocks, 5, 1, 0, nullptr, count.data())
                       : SY_LAUNCH(meet_all_blocks, 5, 1, 0, nullptr, count.data());
  };
  CHECK_RUNS(launch(true));
  check_caught(Kind::deadlock, "meet_all_blocks", "sy_load_acquire", [&] { return launch(false); });
}

/* ---- Out of bounds: writes, which the margins keep ---- */

namespace {

/* One element too many when `last` is the count. */
SY_KERNEL void fill(uint32_t *values, unsigned last, bool is_shared) {
  uint32_t *to = is_shared ? reinterpret_cast<uint32_t *>(sy_shared()) : values;
  for (unsigned i = threadIdx.x; i <= last; i += blockDim.x) {
    to[i] = i;
  }
}

} // namespace

TEST(an_off_by_one_write_is_caught) {
  DeviceArray<uint32_t> values(100);
  for (const bool is_shared : {false, true}) {
    CHECK_RUNS(SY_LAUNCH(fill, 1, 32, 400, nullptr, values.data(), 99u, is_shared));
    check_always_caught(Kind::out_of_bounds, "fill", "0 bytes past the end of 400 bytes", [&] {
      return SY_LAUNCH(fill, 1, 32, 400, nullptr, values.data(), 100u, is_shared);
    });
    /* The damage is mended. */
    CHECK_RUNS(SY_LAUNCH(fill, 1, 32, 400, nullptr, values.data(), 99u, is_shared));
  }
}

/* ---- The error ---- */

TEST(a_violation_replays_from_its_seed) {
  DeviceArray<uint32_t> out(THREADS);
  for (uint64_t seed = 0; seed < 5; ++seed) {
    std::string texts[2];
    for (std::string &text : texts) {
      simt::set_seed(seed);
      CHECK_RUNS(SY_LAUNCH(fill, 1, 32, 0, nullptr, out.data(), 5u, false));
      const simt::Violation v = check_caught(Kind::divergence, "leave_before_barrier", "", [&] {
        return SY_LAUNCH(leave_before_barrier, 3, THREADS, 0, nullptr, out.data());
      });
      CHECK_EQ_U64(v.seed, seed);
      CHECK_EQ_U64(v.launch, 1);
      text = v.text();
    }
    CHECK_EQ_STR(texts[0].c_str(), texts[1].c_str());
  }
}

TEST(the_first_violation_is_kept_and_later_kernels_run) {
  DeviceArray<uint32_t> out(THREADS);
  CHECK(SY_LAUNCH(not_in_own_mask, 1, 32, 0, nullptr, out.data()) != cudaSuccess);
  CHECK(SY_LAUNCH(leave_before_barrier, 1, THREADS, 0, nullptr, out.data()) != cudaSuccess);
  CHECK_EQ_I64(SY_LAUNCH(fill, 1, 32, 0, nullptr, out.data(), 5u, false), cudaSuccess);
  const auto violation = simt::take_violation();
  CHECK(violation && violation->kind == Kind::mask);
  CHECK(!simt::take_violation());
}
