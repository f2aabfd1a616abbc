/* FP4 multiplications as matrices and as what the lanes hold; plain arithmetic on the matrices; and
 * the two compared. Templates over `Mma`: which instruction, and where its scales are. */
#ifndef SY_TESTS_SIMT_MMA_CASE_HPP
#define SY_TESTS_SIMT_MMA_CASE_HPP

#include <cmath>
#include <cstdio>

#include "kernels/cuda/ptx.cuh"
#include "tests/simt/test.hpp"

namespace {

enum { ROWS = 16, COLUMNS = 8, K = 64, LANES = 32 };

/* ---- A multiplication as matrices, and as what the lanes hold ---- */

/* Codes 0 .. 15, scale bytes per 16 or 32 of k. */
struct Case {
  uint8_t a[ROWS][K] = {};
  uint8_t b[COLUMNS][K] = {};
  uint8_t scale_a[ROWS][4] = {};
  uint8_t scale_b[COLUMNS][4] = {};
  float d[ROWS][COLUMNS] = {};
};

struct Lane {
  uint32_t a[4];
  uint32_t b[2];
  uint32_t scale_a;
  uint32_t scale_b;
  float d[4];
};

struct Nvfp4 {
  static constexpr int blocks = 4;
  static constexpr uint8_t one = 0x38;
  static double value(uint8_t scale) { return sy_e4m3_to_f32(scale); }
};

struct Mxfp4 {
  static constexpr int blocks = 2;
  static constexpr uint8_t one = 127;
  static double value(uint8_t scale) { return std::ldexp(1.0, scale - 127); }
};

/* A block per chain of `steps` multiplications that add up. */
template <class Mma> SY_KERNEL void multiply_chains(const Lane *lanes, int steps, float *sums) {
  const size_t first = static_cast<size_t>(blockIdx.x) * static_cast<size_t>(steps);
  float d[4] = {};
  for (int step = 0; step < steps; ++step) {
    Lane lane = lanes[(first + static_cast<size_t>(step)) * LANES + threadIdx.x];
    for (int i = 0; i < 4; ++i) {
      lane.d[i] = step == 0 ? lane.d[i] : d[i];
    }
    Mma::multiply(lane);
    for (int i = 0; i < 4; ++i) {
      d[i] = lane.d[i];
    }
  }
  for (int i = 0; i < 4; ++i) {
    sums[(blockIdx.x * LANES + threadIdx.x) * 4 + static_cast<unsigned>(i)] = d[i];
  }
}

uint8_t any_finite_scale() { return static_cast<uint8_t>(sy_test_random_between(0, 0x7E)); }

/* From the tables of the PTX manual, sections "m16n8k64" and "block scaling". Lanes and bytes that
 * are not to be read hold other finite scales. */
template <class Mma> void pack(const Case &c, Lane *lanes) {
  for (int l = 0; l < LANES; ++l) {
    const int g = l / 4;
    const int p = l % 4;
    Lane &lane = lanes[l];
    lane = {};
    for (int n = 0; n < 8; ++n) {
      lane.a[0] |= static_cast<uint32_t>(c.a[g][8 * p + n]) << (4 * n);
      lane.a[1] |= static_cast<uint32_t>(c.a[g + 8][8 * p + n]) << (4 * n);
      lane.a[2] |= static_cast<uint32_t>(c.a[g][32 + 8 * p + n]) << (4 * n);
      lane.a[3] |= static_cast<uint32_t>(c.a[g + 8][32 + 8 * p + n]) << (4 * n);
      lane.b[0] |= static_cast<uint32_t>(c.b[g][8 * p + n]) << (4 * n);
      lane.b[1] |= static_cast<uint32_t>(c.b[g][32 + 8 * p + n]) << (4 * n);
    }
    for (int i = 0; i < 4; ++i) {
      lane.d[i] = c.d[g + 8 * (i / 2)][2 * p + i % 2];
      const bool provides_a = p / 2 == Mma::thread_a && i >= Mma::byte_a;
      const bool provides_b = p == Mma::thread_b && i >= Mma::byte_b;
      const bool is_scale_a = provides_a && i < Mma::byte_a + Mma::blocks;
      const bool is_scale_b = provides_b && i < Mma::byte_b + Mma::blocks;
      const uint32_t a =
          is_scale_a ? c.scale_a[g + 8 * (p % 2)][i - Mma::byte_a] : any_finite_scale();
      const uint32_t b = is_scale_b ? c.scale_b[g][i - Mma::byte_b] : any_finite_scale();
      lane.scale_a |= a << (8 * i);
      lane.scale_b |= b << (8 * i);
    }
  }
}

struct Result {
  float d[ROWS][COLUMNS];
};

/* Each chain is `steps` cases; the first one's d is where the sum begins. */
template <class Mma> std::vector<Result> run(const std::vector<Case> &cases, int steps = 1) {
  std::vector<Lane> lanes(cases.size() * LANES);
  for (size_t i = 0; i < cases.size(); ++i) {
    pack<Mma>(cases[i], &lanes[i * LANES]);
  }
  const size_t num_chains = cases.size() / static_cast<size_t>(steps);
  test::DeviceArray<Lane> in(lanes);
  test::DeviceArray<float> out(num_chains * LANES * 4);
  test::reseed();
  CHECK_RUNS(SY_LAUNCH(multiply_chains<Mma>, static_cast<unsigned>(num_chains), LANES, 0, nullptr,
                       in.data(), steps, out.data()));
  const std::vector<float> sums = out.host();
  std::vector<Result> results(num_chains);
  for (size_t i = 0; i < num_chains * LANES * 4; ++i) {
    const size_t l = i / 4 % LANES;
    const size_t row = l / 4 + 8 * (i % 4 / 2);
    results[i / 4 / LANES].d[row][2 * (l % 4) + i % 2] = sums[i];
  }
  return results;
}

/* ---- Plain arithmetic ---- */

struct Sum {
  double value;
  double of_magnitudes;
};

template <class Format> Sum plain(const Case &c, int row, int column) {
  Sum sum = {c.d[row][column], std::fabs(c.d[row][column])};
  for (int k = 0; k < K; ++k) {
    const int block = k * Format::blocks / K;
    const double x = static_cast<double>(sy_e2m1_to_f32(c.a[row][k])) *
                     static_cast<double>(sy_e2m1_to_f32(c.b[column][k])) *
                     Format::value(c.scale_a[row][block]) * Format::value(c.scale_b[column][block]);
    sum.value += x;
    sum.of_magnitudes += std::fabs(x);
  }
  return sum;
}

/* The sum of a chain. */
template <class Format> Sum plain(const Case *cases, int steps, int row, int column) {
  Sum sum = {0.0, 0.0};
  for (int step = 0; step < steps; ++step) {
    const Sum next = plain<Format>(cases[step], row, column);
    sum.value += next.value;
    sum.of_magnitudes += next.of_magnitudes;
  }
  return sum;
}

bool check_equal(float found, double expected, size_t index, int row, int column) {
  if (!CHECK(static_cast<double>(found) == expected)) {
    fprintf(stderr, "case %zu, row %d, column %d: %.9g, not %.17g\n", index, row, column,
            static_cast<double>(found), expected);
    return false;
  }
  return true;
}

/* Bit for bit, but for the sign of a zero. */
template <class Mma> void check_exact(const std::vector<Case> &cases, int steps = 1) {
  const std::vector<Result> results = run<Mma>(cases, steps);
  for (size_t i = 0; i < results.size(); ++i) {
    for (int row = 0; row < ROWS; ++row) {
      for (int column = 0; column < COLUMNS; ++column) {
        const Sum sum = plain<Mma>(&cases[i * static_cast<size_t>(steps)], steps, row, column);
        if (!check_equal(results[i].d[row][column], sum.value, i, row, column)) {
          return;
        }
      }
    }
  }
}

/* ---- Data ---- */

uint8_t any_code() { return static_cast<uint8_t>(sy_test_random_between(0, 15)); }
uint8_t nonzero_code() {
  return static_cast<uint8_t>(any_code() / 8 * 8 + sy_test_random_between(1, 7));
}

/* Normal and independent: sums of twelve uniform numbers. */
double gauss() {
  double sum = -6.0;
  for (int i = 0; i < 12; ++i) {
    sum += sy_test_random_unit();
  }
  return sum;
}

/* One element of one operand differs from zero; the other operand and all scales are distinct. */
template <class Format> std::vector<Case> one_at_a_time(const uint8_t *scales, int num_scales) {
  Case full;
  for (int r = 0; r < ROWS + COLUMNS; ++r) {
    for (int k = 0; k < K; ++k) {
      (r < ROWS ? full.a[r] : full.b[r - ROWS])[k] = nonzero_code();
    }
    for (int block = 0; block < Format::blocks; ++block) {
      (r < ROWS ? full.scale_a[r] : full.scale_b[r - ROWS])[block] =
          scales[sy_test_random_between(0, num_scales - 1)];
    }
  }
  std::vector<Case> cases;
  for (int r = 0; r < ROWS + COLUMNS; ++r) {
    for (int k = 0; k < K; ++k) {
      Case c = full;
      std::memset(r < ROWS ? &c.a[0][0] : &c.b[0][0], 0, r < ROWS ? sizeof c.a : sizeof c.b);
      if (r < ROWS) {
        c.a[r][k] = full.a[r][k];
      } else {
        c.b[r - ROWS][k] = full.b[r - ROWS][k];
      }
      cases.push_back(c);
    }
  }
  return cases;
}

/* Columns get two codes and scales of the list, rows sixteen, so that all meet all. */
struct Operand {
  uint8_t code;
  uint8_t scale;
};

/* Element k alone is set: D[row][column] = a[row] * b[column]. */
template <class Format> Case outer_product(const Operand *a, const Operand *b, int k) {
  Case c;
  std::memset(c.scale_a, Format::one, sizeof c.scale_a);
  std::memset(c.scale_b, Format::one, sizeof c.scale_b);
  const int block = k * Format::blocks / K;
  for (int row = 0; row < ROWS; ++row) {
    c.a[row][k] = a[row].code;
    c.scale_a[row][block] = a[row].scale;
  }
  for (int column = 0; column < COLUMNS; ++column) {
    c.b[column][k] = b[column].code;
    c.scale_b[column][block] = b[column].scale;
  }
  return c;
}

std::vector<Operand> operands(int num_scales) {
  std::vector<Operand> all;
  for (int scale = 0; scale < num_scales; ++scale) {
    for (int code = 0; code < 16; ++code) {
      all.push_back({static_cast<uint8_t>(code), static_cast<uint8_t>(scale)});
    }
  }
  return all;
}

} // namespace

#endif
