/* sy_mma_nvfp4, and the same by way of BF16, against plain arithmetic. */
#include "tests/simt/mma_case.hpp"

namespace {

template <int THREAD_A, int THREAD_B> struct MmaNvfp4 : Nvfp4 {
  static constexpr int byte_a = 0, thread_a = THREAD_A, byte_b = 0, thread_b = THREAD_B;
  SY_DEVICE void multiply(Lane &lane) {
    sy_mma_nvfp4<THREAD_A, THREAD_B>(lane.d, lane.a, lane.b, lane.scale_a, lane.scale_b);
  }
};

template <int THREAD_A, int THREAD_B> struct MmaNvfp4ByBf16 : MmaNvfp4<THREAD_A, THREAD_B> {
  SY_DEVICE void multiply(Lane &lane) {
    sy_mma_nvfp4_by_bf16<THREAD_A, THREAD_B>(lane.d, lane.a, lane.b, lane.scale_a, lane.scale_b);
  }
};

const uint8_t ue4m3_scales[] = {0x01, 0x07, 0x08, 0x20, 0x31, 0x38, 0x3D, 0x45, 0x7E};

/* `steps` cases of one chain whose rows and columns are quantised normal numbers. */
std::vector<Case> quantised_chain(int steps) {
  std::vector<Case> cases(static_cast<size_t>(steps));
  std::vector<float> x(static_cast<size_t>(steps * K));
  std::vector<uint8_t> codes(x.size() / 2);
  std::vector<uint8_t> scales(x.size() / 16);
  for (int r = 0; r < ROWS + COLUMNS; ++r) {
    for (float &value : x) {
      value = static_cast<float>(gauss());
    }
    sy_nvfp4_quantise(x.data(), static_cast<int64_t>(x.size()), codes.data(), scales.data());
    for (size_t i = 0; i < x.size(); ++i) {
      Case &c = cases[i / K];
      const auto code = static_cast<uint8_t>(codes[i / 2] >> (4 * (i % 2)) & 15);
      (r < ROWS ? c.a[r] : c.b[r - ROWS])[i % K] = code;
      (r < ROWS ? c.scale_a[r] : c.scale_b[r - ROWS])[i % K / 16] = scales[i / 16];
    }
  }
  return cases;
}

} // namespace

TEST(nvfp4_every_position_has_its_place) {
  const auto cases = one_at_a_time<Nvfp4>(ue4m3_scales, 9);
  check_exact<MmaNvfp4<0, 0>>(cases);
  check_exact<MmaNvfp4ByBf16<0, 0>>(cases);
}

TEST_SLOW(nvfp4_every_code_and_scale_meets_every_other) {
  const std::vector<Operand> all = operands(0x7F); /* without NaN */
  for (size_t i = 0; i < all.size(); i += ROWS) {
    std::vector<Case> cases;
    for (size_t j = 0; j < all.size(); j += COLUMNS) {
      cases.push_back(outer_product<Nvfp4>(&all[i], &all[j], static_cast<int>((i + j) / 8 % K)));
    }
    check_exact<MmaNvfp4<0, 0>>(cases);
  }
}

TEST(nvfp4_every_code_with_every_scale) {
  const std::vector<Operand> all = operands(0x7F);
  const std::vector<Operand> ends = {{7, 0x7E}, {15, 0x7E}, {1, 0x01},  {9, 0x01},
                                     {5, 0x0F}, {3, 0x38},  {12, 0x08}, {0, 0x44}};
  std::vector<Case> cases;
  for (size_t i = 0; i < all.size(); i += ROWS) {
    cases.push_back(outer_product<Nvfp4>(&all[i], ends.data(), static_cast<int>(i / 16 % K)));
  }
  check_exact<MmaNvfp4<0, 0>>(cases);
  check_exact<MmaNvfp4ByBf16<0, 0>>(cases);
}

TEST(nvfp4_ignores_the_sign_of_a_scale) {
  std::vector<Case> cases = quantised_chain(2);
  for (Case &c : cases) {
    for (auto &scales : c.scale_a) {
      scales[1] |= 0x80;
    }
    for (auto &scales : c.scale_b) {
      scales[2] |= 0x80;
    }
  }
  check_exact<MmaNvfp4<0, 0>>(cases);
  check_exact<MmaNvfp4ByBf16<0, 0>>(cases);
}

template <class Mma> static void check_nan_scale() {
  std::vector<Case> cases = quantised_chain(1);
  cases[0].scale_a[3][2] = 0x7F;
  cases[0].scale_b[6][0] = 0x7F;
  const Result result = run<Mma>(cases)[0];
  for (int row = 0; row < ROWS; ++row) {
    for (int column = 0; column < COLUMNS; ++column) {
      if (row == 3 || column == 6) {
        CHECK(std::isnan(result.d[row][column]));
      } else {
        check_equal(result.d[row][column], plain<Mma>(cases[0], row, column).value, 0, row, column);
      }
    }
  }
}

TEST(nvfp4_nan_scale_spoils_its_row_or_column_alone) {
  check_nan_scale<MmaNvfp4<0, 0>>();
  check_nan_scale<MmaNvfp4ByBf16<0, 0>>();
}

TEST(nvfp4_long_sums_of_quantised_data_are_exact) {
  for (const int steps : {1, 4, 32, 112}) { /* K = 7168 */
    const std::vector<Case> cases = quantised_chain(steps);
    check_exact<MmaNvfp4<0, 0>>(cases, steps);
    check_exact<MmaNvfp4ByBf16<0, 0>>(cases, steps);
  }
}

TEST(nvfp4_adds_to_what_is_there) {
  std::vector<Case> cases = quantised_chain(8);
  for (auto &row : cases[0].d) {
    for (float &d : row) {
      d = 64.0f *
          static_cast<float>(sy_test_random_between(-1000, 1000)); /* in units of the sums */
    }
  }
  check_exact<MmaNvfp4<0, 0>>(cases, 8);
  check_exact<MmaNvfp4ByBf16<0, 0>>(cases, 8);
}

template <class Mma> static void check_close(const std::vector<Case> &cases, int steps) {
  const Result result = run<Mma>(cases, steps)[0];
  for (int row = 0; row < ROWS; ++row) {
    for (int column = 0; column < COLUMNS; ++column) {
      const Sum sum = plain<Mma>(cases.data(), steps, row, column);
      CHECK_NEAR(static_cast<double>(result.d[row][column]), sum.value, 5e-6 * sum.of_magnitudes);
    }
  }
}

TEST(nvfp4_any_scales_stay_close) {
  std::vector<Case> cases = quantised_chain(112);
  for (Case &c : cases) {
    for (uint8_t *scale = &c.scale_a[0][0]; scale < &c.scale_a[0][0] + sizeof c.scale_a; ++scale) {
      *scale = any_finite_scale();
    }
    for (uint8_t *scale = &c.scale_b[0][0]; scale < &c.scale_b[0][0] + sizeof c.scale_b; ++scale) {
      *scale = any_finite_scale();
    }
  }
  check_close<MmaNvfp4<0, 0>>(cases, 112);
  check_close<MmaNvfp4ByBf16<0, 0>>(cases, 112);
}

template <int A, int B> static void check_selector_nvfp4(const std::vector<Case> &cases) {
  check_exact<MmaNvfp4<A, B>>(cases, 4);
  check_exact<MmaNvfp4ByBf16<A, B>>(cases, 4);
}

TEST(nvfp4_every_selector) {
  const std::vector<Case> cases = quantised_chain(4);
  check_selector_nvfp4<0, 0>(cases);
  check_selector_nvfp4<0, 1>(cases);
  check_selector_nvfp4<0, 2>(cases);
  check_selector_nvfp4<0, 3>(cases);
  check_selector_nvfp4<1, 0>(cases);
  check_selector_nvfp4<1, 1>(cases);
  check_selector_nvfp4<1, 2>(cases);
  check_selector_nvfp4<1, 3>(cases);
}
