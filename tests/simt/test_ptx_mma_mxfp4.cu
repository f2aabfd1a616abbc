/* sy_mma_mxfp4, and the same by way of BF16, against plain arithmetic. */
#include <cfloat>

#include "tests/simt/mma_case.hpp"

namespace {

template <int BYTE_A, int THREAD_A, int BYTE_B, int THREAD_B> struct MmaMxfp4 : Mxfp4 {
  static constexpr int byte_a = BYTE_A, thread_a = THREAD_A, byte_b = BYTE_B, thread_b = THREAD_B;
  SY_DEVICE void multiply(Lane &lane) {
    sy_mma_mxfp4<BYTE_A, THREAD_A, BYTE_B, THREAD_B>(lane.d, lane.a, lane.b, lane.scale_a,
                                                     lane.scale_b);
  }
};

template <int BYTE_A, int THREAD_A, int BYTE_B, int THREAD_B>
struct MmaMxfp4ByBf16 : MmaMxfp4<BYTE_A, THREAD_A, BYTE_B, THREAD_B> {
  SY_DEVICE void multiply(Lane &lane) {
    sy_mma_mxfp4_by_bf16<BYTE_A, THREAD_A, BYTE_B, THREAD_B>(lane.d, lane.a, lane.b, lane.scale_a,
                                                             lane.scale_b);
  }
};

const uint8_t ue8m0_scales[] = {97, 110, 126, 127, 128, 131, 150};

/* `steps` cases of one chain of normal numbers, rounded, with powers of two around one. */
std::vector<Case> quantised_chain(int steps) {
  std::vector<Case> cases(static_cast<size_t>(steps));
  for (Case &c : cases) {
    for (int r = 0; r < ROWS + COLUMNS; ++r) {
      uint8_t *codes = r < ROWS ? c.a[r] : c.b[r - ROWS];
      uint8_t *scales = r < ROWS ? c.scale_a[r] : c.scale_b[r - ROWS];
      for (int block = 0; block < 2; ++block) {
        scales[block] = static_cast<uint8_t>(sy_test_random_between(126, 129));
        for (int k = 0; k < 32; ++k) {
          codes[32 * block + k] = sy_e2m1_from_f32(static_cast<float>(2.0 * gauss()));
        }
      }
    }
  }
  return cases;
}

template <class Mma> void check_nan_scale() {
  std::vector<Case> cases = quantised_chain(1);
  cases[0].scale_a[12][1] = 0xFF;
  cases[0].scale_b[0][0] = 0xFF;
  const Result result = run<Mma>(cases)[0];
  for (int row = 0; row < ROWS; ++row) {
    for (int column = 0; column < COLUMNS; ++column) {
      if (row == 12 || column == 0) {
        CHECK(std::isnan(result.d[row][column]));
      } else {
        check_equal(result.d[row][column], plain<Mma>(cases[0], row, column).value, 0, row, column);
      }
    }
  }
}

/* What f32 holds of x, rounded toward zero; infinite beyond. */
double toward_zero_in_f32(double x) {
  const double magnitude = std::fabs(x);
  if (magnitude == 0.0 || magnitude >= std::ldexp(1.0, 128)) {
    return magnitude == 0.0 ? 0.0 : std::copysign(HUGE_VAL, x);
  }
  const double unit = std::ldexp(1.0, std::max(std::ilogb(magnitude) - 23, -149));
  return std::copysign(std::floor(magnitude / unit) * unit, x);
}

/* The products of all codes and scales with some, where `is_in_range` says so. */
template <class Mma, class InRange> void check_products(InRange is_in_range) {
  const std::vector<Operand> all = operands(0xFF); /* without NaN */
  std::vector<Operand> some;
  for (const int scale : {0, 1, 2, 100, 126, 127, 128, 150, 253, 254}) {
    for (int code = 0; code < 16; ++code) {
      some.push_back({static_cast<uint8_t>(code), static_cast<uint8_t>(scale)});
    }
  }
  std::vector<Case> cases;
  for (size_t i = 0; i < all.size(); i += ROWS) {
    for (size_t j = 0; j < some.size(); j += COLUMNS) {
      cases.push_back(outer_product<Mxfp4>(&all[i], &some[j], static_cast<int>((i + j) / 8 % K)));
    }
  }
  const std::vector<Result> results = run<Mma>(cases);
  size_t num_checked = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    for (int row = 0; row < ROWS; ++row) {
      for (int column = 0; column < COLUMNS; ++column) {
        const double product = plain<Mxfp4>(cases[i], row, column).value;
        if (is_in_range(cases[i], row, column, product)) {
          ++num_checked;
          if (!check_equal(results[i].d[row][column], toward_zero_in_f32(product), i, row,
                           column)) {
            return;
          }
        }
      }
    }
  }
  CHECK(num_checked > cases.size() * ROWS * COLUMNS / 4);
}

/* Both operands fit in BF16, and the product in f32, also where subnormals are flushed. */
bool is_tame(const Case &c, int row, int column, double product) {
  bool fits = product == 0.0 || (std::fabs(product) >= static_cast<double>(FLT_MIN) &&
                                 std::fabs(product) <= static_cast<double>(FLT_MAX));
  for (int block = 0; block < 2; ++block) {
    fits = fits && c.scale_a[row][block] <= 252 && c.scale_b[column][block] <= 252;
  }
  return fits;
}

} // namespace

TEST(mxfp4_every_position_has_its_place) {
  const auto cases = one_at_a_time<Mxfp4>(ue8m0_scales, 7);
  check_exact<MmaMxfp4<0, 0, 0, 0>>(cases);
  check_exact<MmaMxfp4ByBf16<0, 0, 0, 0>>(cases);
}

TEST(mxfp4_every_code_and_scale) {
#if defined(SY_SIMT)
  check_products<MmaMxfp4<0, 0, 0, 0>>([](const Case &, int, int, double) { return true; });
#else
  check_products<MmaMxfp4<0, 0, 0, 0>>(is_tame);
#endif
  check_products<MmaMxfp4ByBf16<2, 1, 2, 3>>(is_tame);
}

TEST(mxfp4_nan_scale_spoils_its_row_or_column_alone) {
  check_nan_scale<MmaMxfp4<0, 0, 0, 0>>();
  check_nan_scale<MmaMxfp4ByBf16<0, 0, 0, 0>>();
}

TEST(mxfp4_long_sums_of_quantised_data_are_exact) {
  for (const int steps : {1, 4, 32, 112}) { /* K = 7168 */
    const std::vector<Case> cases = quantised_chain(steps);
    check_exact<MmaMxfp4<0, 0, 0, 0>>(cases, steps);
    check_exact<MmaMxfp4ByBf16<0, 0, 0, 0>>(cases, steps);
  }
}

template <int BYTE_A, int THREAD_A, int BYTE_B>
static void check_selectors(const std::vector<Case> &cases) {
  check_exact<MmaMxfp4<BYTE_A, THREAD_A, BYTE_B, 0>>(cases, 4);
  check_exact<MmaMxfp4<BYTE_A, THREAD_A, BYTE_B, 1>>(cases, 4);
  check_exact<MmaMxfp4<BYTE_A, THREAD_A, BYTE_B, 2>>(cases, 4);
  check_exact<MmaMxfp4<BYTE_A, THREAD_A, BYTE_B, 3>>(cases, 4);
  check_exact<MmaMxfp4ByBf16<BYTE_A, THREAD_A, BYTE_B, 0>>(cases, 4);
  check_exact<MmaMxfp4ByBf16<BYTE_A, THREAD_A, BYTE_B, 3>>(cases, 4);
}

TEST(mxfp4_every_selector) {
  const std::vector<Case> cases = quantised_chain(4);
  check_selectors<0, 0, 0>(cases);
  check_selectors<0, 0, 2>(cases);
  check_selectors<0, 1, 0>(cases);
  check_selectors<0, 1, 2>(cases);
  check_selectors<2, 0, 0>(cases);
  check_selectors<2, 0, 2>(cases);
  check_selectors<2, 1, 0>(cases);
  check_selectors<2, 1, 2>(cases);
}
