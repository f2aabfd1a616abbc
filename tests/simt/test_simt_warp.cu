/* Shuffles, votes and reductions of the emulator against their definitions. */
#include <algorithm>

#include "tests/simt/test.hpp"

namespace {

constexpr unsigned LANES = 32;
constexpr int REPEATS = 8;

/* ---- Shuffles: PTX manual, "shfl.sync" ---- */

constexpr unsigned NUM_SHUFFLES = 4;

SY_KERNEL void shuffle_all(int amount, int width, uint32_t *out) {
  const uint32_t mine = 100 + threadIdx.x;
  const unsigned by = static_cast<unsigned>(amount);
  uint32_t *to = out + NUM_SHUFFLES * threadIdx.x;
  to[0] = __shfl_sync(0xFFFFFFFFu, mine, amount, width);
  to[1] = __shfl_up_sync(0xFFFFFFFFu, mine, by, width);
  to[2] = __shfl_down_sync(0xFFFFFFFFu, mine, by, width);
  to[3] = __shfl_xor_sync(0xFFFFFFFFu, mine, amount, width);
}

/* The lane that `lane` reads, as the manual's pseudocode has it. */
unsigned source(unsigned kind, unsigned lane, unsigned b, unsigned width) {
  const unsigned segment_mask = (LANES - width) & 31u;
  const unsigned max_lane = (lane & segment_mask) | (31u & ~segment_mask);
  const unsigned min_lane = lane & segment_mask;
  const int j = kind == 0   ? static_cast<int>(min_lane | (b & ~segment_mask & 31u))
                : kind == 1 ? static_cast<int>(lane) - static_cast<int>(b)
                : kind == 2 ? static_cast<int>(lane + b)
                            : static_cast<int>(lane ^ b);
  const bool is_valid =
      kind == 1 ? j >= static_cast<int>(min_lane) : j <= static_cast<int>(max_lane);
  return is_valid ? static_cast<unsigned>(j) : lane;
}

} // namespace

TEST(shuffles_of_every_width_and_distance) {
  test::DeviceArray<uint32_t> out(NUM_SHUFFLES * LANES);
  for (int width = 1; width <= 32; width *= 2) {
    for (int amount = 0; amount < 32; ++amount) {
      test::reseed();
      CHECK_RUNS(SY_LAUNCH(shuffle_all, 1, LANES, 0, nullptr, amount, width, out.data()));
      const std::vector<uint32_t> found = out.host();
      for (unsigned i = 0; i < NUM_SHUFFLES * LANES; ++i) {
        const unsigned from = source(i % NUM_SHUFFLES, i / NUM_SHUFFLES,
                                     static_cast<unsigned>(amount), static_cast<unsigned>(width));
        if (!CHECK_EQ_U64(found[i], 100 + from)) {
          return;
        }
      }
    }
  }
}

namespace {

SY_KERNEL void shuffle_types(double *doubles, float *floats, int64_t *wide) {
  const unsigned l = threadIdx.x;
  doubles[l] = __shfl_xor_sync(0xFFFFFFFFu, 0.5 * l, 1);
  floats[l] = __shfl_sync(0xFFFFFFFFu, 0.25f * static_cast<float>(l), 7);
  wide[l] = __shfl_down_sync(0xFFFFFFFFu, static_cast<int64_t>(l) << 40, 2);
}

} // namespace

TEST(shuffles_of_64_bits_and_floats) {
  test::DeviceArray<double> doubles(LANES);
  test::DeviceArray<float> floats(LANES);
  test::DeviceArray<int64_t> wide(LANES);
  CHECK_RUNS(
      SY_LAUNCH(shuffle_types, 1, LANES, 0, nullptr, doubles.data(), floats.data(), wide.data()));
  for (unsigned l = 0; l < LANES; ++l) {
    CHECK(doubles.host()[l] == 0.5 * (l ^ 1u));
    CHECK(floats.host()[l] == 0.25f * 7);
    CHECK_EQ_I64(wide.host()[l], static_cast<int64_t>(l < 30 ? l + 2 : l) << 40);
  }
}

/* ---- Votes and reductions ---- */

namespace {

struct Votes {
  uint32_t ballot;
  int32_t any, all, any_none, all_yes;
  uint32_t sum, largest, smallest;
  int32_t signed_smallest;
};

SY_KERNEL void vote(uint32_t yes, const uint32_t *values, Votes *out) {
  const unsigned l = threadIdx.x;
  const int mine = (yes >> l & 1u) != 0;
  const uint32_t all = 0xFFFFFFFFu;
  out[l] = {__ballot_sync(all, mine),
            __any_sync(all, mine),
            __all_sync(all, mine),
            __any_sync(all, 0),
            __all_sync(all, 1),
            __reduce_add_sync(all, values[l]),
            __reduce_max_sync(all, values[l]),
            __reduce_min_sync(all, values[l]),
            __reduce_min_sync(all, static_cast<int>(values[l]))};
}

} // namespace

TEST(votes_and_reductions) {
  for (int repeat = 0; repeat < REPEATS; ++repeat) {
    const uint32_t random = static_cast<uint32_t>(sy_test_random());
    const uint32_t yes = repeat == 0 ? 0 : repeat == 1 ? 0xFFFFFFFFu : random;
    std::vector<uint32_t> values(LANES);
    uint32_t sum = 0;
    for (uint32_t &v : values) {
      v = static_cast<uint32_t>(sy_test_random());
      sum += v;
    }
    int32_t least = INT32_MAX;
    for (const uint32_t v : values) {
      least = std::min(least, static_cast<int32_t>(v));
    }
    test::DeviceArray<uint32_t> in(values);
    test::DeviceArray<Votes> out(LANES);
    test::reseed();
    CHECK_RUNS(SY_LAUNCH(vote, 1, LANES, 0, nullptr, yes, in.data(), out.data()));
    for (const Votes &v : out.host()) {
      CHECK_EQ_U64(v.ballot, yes);
      CHECK_EQ_I64(v.any != 0, yes != 0);
      CHECK_EQ_I64(v.all != 0, yes == 0xFFFFFFFFu);
      CHECK_EQ_I64(v.any_none, 0);
      CHECK(v.all_yes != 0);
      CHECK_EQ_U64(v.sum, sum);
      CHECK_EQ_U64(v.largest, *std::max_element(values.begin(), values.end()));
      CHECK_EQ_U64(v.smallest, *std::min_element(values.begin(), values.end()));
      CHECK_EQ_I64(v.signed_smallest, least);
    }
  }
}

/* ---- Masks ---- */

namespace {

/* Both halves go their own way, each through several meetings. */
SY_KERNEL void halves(uint32_t *out) {
  const unsigned l = threadIdx.x;
  uint32_t sum = 0;
  if (l < 16) {
    for (unsigned i = 0; i < 5; ++i) {
      sum += __shfl_sync(0x0000FFFFu, l, static_cast<int>(i));
    }
    out[l] = sum;
  } else {
    out[l] = __ballot_sync(0xFFFF0000u, l % 2 == 0);
    __syncwarp(0xFFFF0000u);
    out[l] += __shfl_up_sync(0xFFFF0000u, l, 16);
  }
}

/* Lanes 24 to 31 leave; the others name all and meet all the same. */
SY_KERNEL void some_leave(uint32_t *out) {
  const unsigned l = threadIdx.x;
  if (l >= 24) {
    return;
  }
  out[l] = __ballot_sync(0xFFFFFFFFu, 1);
  out[l] += __shfl_xor_sync(0xFFFFFFFFu, l, 1);
}

/* What is read from a lane that does not take part is poison. */
SY_KERNEL void read_absent(uint32_t *out) {
  const unsigned l = threadIdx.x;
  if (l < 8) {
    out[l] = __shfl_sync(0x000000FFu, l, 20);
  }
}

} // namespace

TEST(lanes_under_different_masks_meet_apart) {
  for (int repeat = 0; repeat < REPEATS; ++repeat) {
    test::DeviceArray<uint32_t> out(LANES);
    test::reseed();
    CHECK_RUNS(SY_LAUNCH(halves, 1, LANES, 0, nullptr, out.data()));
    for (unsigned l = 0; l < LANES; ++l) {
      /* Lane l - 16 of the other half does not take part. */
      CHECK_EQ_U64(out.host()[l], l < 16 ? 10u : 0x55550000u + 0xFFFFFFFFu);
    }
  }
}

TEST(lanes_that_left_are_not_waited_for) {
  for (int repeat = 0; repeat < REPEATS; ++repeat) {
    test::DeviceArray<uint32_t> out(LANES);
    test::reseed();
    CHECK_RUNS(SY_LAUNCH(some_leave, 1, LANES, 0, nullptr, out.data()));
    for (unsigned l = 0; l < 24; ++l) {
      CHECK(out.host()[l] >= 0x00FFFFFFu + (l ^ 1u)); /* who votes early sees more lanes */
    }
  }
}

TEST(lanes_that_do_not_take_part_give_poison) {
  test::DeviceArray<uint32_t> out(LANES);
  CHECK_RUNS(SY_LAUNCH(read_absent, 1, LANES, 0, nullptr, out.data()));
  for (unsigned l = 0; l < 8; ++l) {
    CHECK_EQ_U64(out.host()[l], 0xFFFFFFFFu);
  }
}

/* ---- Arithmetic ---- */

namespace {

SY_KERNEL void count_bits(const uint32_t *in, int32_t *out) {
  const uint32_t x = in[threadIdx.x];
  out[4 * threadIdx.x] = __popc(x);
  out[4 * threadIdx.x + 1] = __clz(static_cast<int>(x));
  out[4 * threadIdx.x + 2] = __ffs(static_cast<int>(x));
  out[4 * threadIdx.x + 3] = __float_as_uint(__uint_as_float(x)) == __ldg(&in[threadIdx.x]);
}

} // namespace

TEST(bits_are_counted) {
  const std::vector<uint32_t> values = {0, 1, 0x80000000u, 0xFFFFFFFFu, 0x00F0u};
  const int32_t expected[] = {0, 32, 0, 1, 1, 31, 1, 1, 1, 0, 32, 1, 32, 0, 1, 1, 4, 24, 5, 1};
  test::DeviceArray<uint32_t> in(values);
  test::DeviceArray<int32_t> out(4 * values.size());
  CHECK_RUNS(SY_LAUNCH(count_bits, 1, 5, 0, nullptr, in.data(), out.data()));
  CHECK_EQ_BYTES(out.host().data(), expected, sizeof expected);
}
