/* sy_mma_bf16, sy_mul_bf16x2 and sy_ldmatrix against plain arithmetic. */
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "kernels/cuda/ptx.cuh"
#include "tests/simt/test.hpp"

namespace {

enum { ROWS = 16, COLUMNS = 8, K = 16, LANES = 32 };

struct Case {
  float a[ROWS][K] = {}; /* values that BF16 has */
  float b[COLUMNS][K] = {};
  float d[ROWS][COLUMNS] = {};
};

struct Lane {
  uint32_t a[4];
  uint32_t b[2];
  float d[4];
};

SY_KERNEL void multiply(const Lane *lanes, float *sums) {
  Lane lane = lanes[blockIdx.x * LANES + threadIdx.x];
  sy_mma_bf16(lane.d, lane.a, lane.b);
  for (unsigned i = 0; i < 4; ++i) {
    sums[(blockIdx.x * LANES + threadIdx.x) * 4 + i] = lane.d[i];
  }
}

uint32_t pair(const float *x) {
  return sy_f32_to_bf16(x[0]) | static_cast<uint32_t>(sy_f32_to_bf16(x[1])) << 16;
}

/* From the tables of the PTX manual, section "m16n8k16". */
void pack(const Case &c, Lane *lanes) {
  for (int l = 0; l < LANES; ++l) {
    const int g = l / 4;
    const int p = l % 4;
    lanes[l] = {{pair(&c.a[g][2 * p]), pair(&c.a[g + 8][2 * p]), pair(&c.a[g][2 * p + 8]),
                 pair(&c.a[g + 8][2 * p + 8])},
                {pair(&c.b[g][2 * p]), pair(&c.b[g][2 * p + 8])},
                {c.d[g][2 * p], c.d[g][2 * p + 1], c.d[g + 8][2 * p], c.d[g + 8][2 * p + 1]}};
  }
}

struct Result {
  float d[ROWS][COLUMNS];
};

std::vector<Result> run(const std::vector<Case> &cases) {
  std::vector<Lane> lanes(cases.size() * LANES);
  for (size_t i = 0; i < cases.size(); ++i) {
    pack(cases[i], &lanes[i * LANES]);
  }
  test::DeviceArray<Lane> in(lanes);
  test::DeviceArray<float> out(lanes.size() * 4);
  test::reseed();
  CHECK_RUNS(SY_LAUNCH(multiply, static_cast<unsigned>(cases.size()), LANES, 0, nullptr, in.data(),
                       out.data()));
  const std::vector<float> sums = out.host();
  std::vector<Result> results(cases.size());
  for (size_t i = 0; i < sums.size(); ++i) {
    const size_t l = i / 4 % LANES;
    results[i / 4 / LANES].d[l / 4 + 8 * (i % 4 / 2)][2 * (l % 4) + i % 2] = sums[i];
  }
  return results;
}

double plain(const Case &c, int row, int column) {
  double sum = c.d[row][column];
  for (int k = 0; k < K; ++k) {
    sum += static_cast<double>(c.a[row][k]) * static_cast<double>(c.b[column][k]);
  }
  return sum;
}

void check_exact(const std::vector<Case> &cases) {
  const std::vector<Result> results = run(cases);
  for (size_t i = 0; i < cases.size(); ++i) {
    for (int row = 0; row < ROWS; ++row) {
      for (int column = 0; column < COLUMNS; ++column) {
        const float found = results[i].d[row][column];
        if (!CHECK(static_cast<double>(found) == plain(cases[i], row, column))) {
          fprintf(stderr, "case %zu, row %d, column %d: %.9g, not %.17g\n", i, row, column,
                  static_cast<double>(found), plain(cases[i], row, column));
          return;
        }
      }
    }
  }
}

Case integers(int64_t most) {
  Case c;
  for (int r = 0; r < ROWS + COLUMNS; ++r) {
    for (int k = 0; k < K; ++k) {
      (r < ROWS ? c.a[r] : c.b[r - ROWS])[k] =
          static_cast<float>(sy_test_random_between(-most, most));
    }
  }
  for (auto &row : c.d) {
    for (float &d : row) {
      d = static_cast<float>(sy_test_random_between(-most, most));
    }
  }
  return c;
}

} // namespace

TEST(bf16_every_position_has_its_place) {
  const Case full = integers(250);
  std::vector<Case> cases;
  for (int r = 0; r < ROWS + COLUMNS; ++r) {
    for (int k = 0; k < K; ++k) {
      Case c = full;
      std::memset(r < ROWS ? &c.a[0][0] : &c.b[0][0], 0, r < ROWS ? sizeof c.a : sizeof c.b);
      (r < ROWS ? c.a[r] : c.b[r - ROWS])[k] = 3.0f;
      cases.push_back(c);
    }
  }
  check_exact(cases);
}

TEST(bf16_integers_are_exact) {
  std::vector<Case> cases;
  for (int i = 0; i < 200; ++i) {
    cases.push_back(integers(250));
  }
  check_exact(cases);
}

TEST(bf16_extremes_and_subnormals) {
  std::vector<Case> cases(1);
  Case &c = cases[0];
  c.a[0][0] = std::ldexp(1.0f, 127);
  c.b[0][0] = std::ldexp(1.5f, -133 + 7); /* subnormal in BF16 */
  c.a[1][1] = std::ldexp(1.0f, -133);     /* the smallest there is */
  c.b[1][1] = std::ldexp(1.0f, 100);
  c.a[2][2] = std::ldexp(1.9921875f, 127); /* the largest there is */
  c.b[2][2] = 0.5f;
  check_exact(cases);
}

TEST(bf16_what_is_not_finite_stays_in_its_row_or_column) {
  Case c = integers(9);
  c.a[4][5] = NAN;
  c.b[2][7] = HUGE_VALF;
  c.b[2][6] = 1.0f;
  c.a[9][7] = 0.0f; /* times infinity */
  const Result result = run({c})[0];
  for (int row = 0; row < ROWS; ++row) {
    for (int column = 0; column < COLUMNS; ++column) {
      const double expected = plain(c, row, column);
      const double found = static_cast<double>(result.d[row][column]);
      CHECK(std::isnan(expected) ? std::isnan(found) : found == expected);
    }
  }
}

/* The hardware cuts: sums are close, never beyond the larger magnitude. */
TEST(bf16_sums_of_any_values_stay_close) {
  std::vector<Case> cases;
  for (int i = 0; i < 100; ++i) {
    Case c = integers(0);
    for (int r = 0; r < ROWS + COLUMNS; ++r) {
      for (int k = 0; k < K; ++k) {
        const float x = static_cast<float>(sy_test_random_unit() - 0.5);
        (r < ROWS ? c.a[r] : c.b[r - ROWS])[k] = sy_bf16_to_f32(sy_f32_to_bf16(x));
      }
    }
    cases.push_back(c);
  }
  const std::vector<Result> results = run(cases);
  for (size_t i = 0; i < cases.size(); ++i) {
    for (int row = 0; row < ROWS; ++row) {
      for (int column = 0; column < COLUMNS; ++column) {
        CHECK_NEAR(static_cast<double>(results[i].d[row][column]), plain(cases[i], row, column),
                   16 * 0.25 * 1e-6);
      }
    }
  }
}

/* ---- Products of pairs ---- */

SY_KERNEL void multiply_pairs(const uint32_t *x, const uint32_t *y, uint32_t *products) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  products[i] = sy_mul_bf16x2(x[i], y[i]);
}

TEST(bf16_products_of_pairs_are_rounded_to_even) {
  std::vector<uint32_t> x(1 << 14);
  std::vector<uint32_t> y(x.size());
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = static_cast<uint32_t>(sy_test_random()) & 0xBFFFBFFFu; /* finite */
    y[i] = static_cast<uint32_t>(sy_test_random()) & 0xBFFFBFFFu;
    if (i % 4 == 0) { /* near one: ties, no underflow */
      x[i] = (x[i] & 0x807F807Fu) | 0x3F803F80u;
      y[i] = (y[i] & 0x807F807Fu) | 0x3F803F80u;
    }
  }
  test::DeviceArray<uint32_t> x_array(x);
  test::DeviceArray<uint32_t> y_array(y);
  test::DeviceArray<uint32_t> products(x.size());
  CHECK_RUNS(SY_LAUNCH(multiply_pairs, static_cast<unsigned>(x.size() / 256), 256, 0, nullptr,
                       x_array.data(), y_array.data(), products.data()));
  const std::vector<uint32_t> found = products.host();
  for (size_t i = 0; i < x.size(); ++i) {
    for (unsigned half = 0; half < 32; half += 16) {
      const double u = sy_bf16_to_f32(static_cast<uint16_t>(x[i] >> half));
      const double v = sy_bf16_to_f32(static_cast<uint16_t>(y[i] >> half));
      /* Rounded once: to multiples of the last place, ties to even by the default mode. */
      const double unit =
          std::ldexp(1.0, std::max(u * v == 0.0 ? -133 : std::ilogb(u * v) - 7, -133));
      const double expected = std::nearbyint(u * v / unit) * unit;
      const double product = sy_bf16_to_f32(static_cast<uint16_t>(found[i] >> half));
      if (!CHECK(product == expected)) {
        return;
      }
    }
  }
}

/* ---- ldmatrix ---- */

/* Rows are stored in another order than they are asked for, with 32 bytes between them. */
SY_KERNEL void load_matrices(uint32_t *x4, uint32_t *x2) {
  unsigned char *shared = sy_shared();
  const unsigned l = threadIdx.x;
  for (unsigned i = 0; i < 16; ++i) {
    shared[32 * l + i] = static_cast<unsigned char>(16 * l + i);
    shared[32 * l + 16 + i] = 0xEE;
  }
  __syncwarp();
  uint32_t r4[4];
  uint32_t r2[2];
  sy_ldmatrix_x4(r4, shared + 32 * (31 - l));
  sy_ldmatrix_x2(r2, shared + 32 * (l % 16));
  for (unsigned i = 0; i < 4; ++i) {
    x4[4 * l + i] = r4[i];
  }
  for (unsigned i = 0; i < 2; ++i) {
    x2[2 * l + i] = r2[i];
  }
}

TEST(ldmatrix_hands_out_rows) {
  test::DeviceArray<uint32_t> x4(4 * LANES);
  test::DeviceArray<uint32_t> x2(2 * LANES);
  test::reseed();
  CHECK_RUNS(SY_LAUNCH(load_matrices, 1, LANES, 32 * LANES, nullptr, x4.data(), x2.data()));
  const auto word = [](uint32_t row, uint32_t p) {
    uint32_t w = 0;
    for (uint32_t i = 0; i < 4; ++i) {
      w |= ((16 * row + 4 * p + i) & 0xFFu) << (8 * i);
    }
    return w;
  };
  for (uint32_t l = 0; l < LANES; ++l) {
    for (uint32_t i = 0; i < 4; ++i) {
      CHECK_EQ_U64(x4.host()[4 * l + i], word(31 - (8 * i + l / 4), l % 4));
    }
    for (uint32_t i = 0; i < 2; ++i) {
      CHECK_EQ_U64(x2.host()[2 * l + i], word(8 * i + l / 4, l % 4));
    }
  }
}
