/* kernels/fp4.h against the oracle's number formats: every code, every rounding boundary, and the
 * quantiser to the bit. */
#include "kernels/fp4.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>

#include "tests/support/harness.h"
#include "tests/support/oracle.h"
#include "tests/support/random.h"

enum { MAX_COLUMNS = 2880, MAX_BLOCKS = MAX_COLUMNS / 16 };

static bool same_f32(float a, float b) {
  return (isnan(a) && isnan(b)) || sy_bits_of_f32(a) == sy_bits_of_f32(b);
}

/* The neighbours of x and x itself, of both signs, through `check`. */
static bool around(float x, bool (*check)(float)) {
  const float points[] = {nextafterf(x, -INFINITY), x, nextafterf(x, INFINITY)};
  bool good = true;
  for (int i = 0; i < 3 && good; ++i) {
    good = CHECK(check(points[i])) && CHECK(check(-points[i]));
  }
  return good;
}

/* ---- E2M1 ---- */

TEST(e2m1_codes_have_their_values) {
  for (unsigned code = 0; code < 16; ++code) {
    const float value = sy_e2m1_to_f32(code);
    CHECK_NEAR((double)value, oracle_e2m1_value(code), 0.0);
    CHECK_EQ_I64(signbit(value) != 0, code >= 8);
    CHECK_NEAR(sy_e2m1_doubled(code), 2.0 * oracle_e2m1_value(code), 0.0);
    CHECK_EQ_U64(sy_e2m1_from_f32(value), code);
  }
}

static bool rounds_to_e2m1(float x) {
  return CHECK_EQ_U64(sy_e2m1_from_f32(x), oracle_e2m1_nearest((double)x));
}

TEST(e2m1_ties_go_to_the_even_code) {
  static const struct {
    float x;
    unsigned code;
  } ties[] = {{0.25f, 0}, {0.75f, 2}, {1.25f, 2}, {1.75f, 4}, {2.5f, 4}, {3.5f, 6}, {5.0f, 6}};
  for (int i = 0; i < 7; ++i) {
    CHECK_EQ_U64(sy_e2m1_from_f32(ties[i].x), ties[i].code);
    CHECK_EQ_U64(sy_e2m1_from_f32(-ties[i].x), ties[i].code | 8u);
    around(ties[i].x, rounds_to_e2m1);
  }
}

TEST(e2m1_saturates) {
  const float large[] = {6.0f, 6.5f, 7.0f, 448.0f, FLT_MAX, INFINITY};
  for (int i = 0; i < 6; ++i) {
    CHECK_EQ_U64(sy_e2m1_from_f32(large[i]), 7);
    CHECK_EQ_U64(sy_e2m1_from_f32(-large[i]), 15);
  }
}

TEST(e2m1_rounds_to_nearest_over_a_dense_sweep) {
  for (uint32_t i = 0; i < 1u << 18; ++i) {
    const float x = sy_f32_of_bits(i << 13); /* all exponents, 10 bits of mantissa */
    if (isfinite(x) && !(rounds_to_e2m1(x) && rounds_to_e2m1(-x))) {
      return;
    }
  }
}

/* ---- E4M3 ---- */

TEST(e4m3_codes_have_their_values) {
  for (unsigned code = 0; code <= SY_E4M3_MAX_CODE; ++code) {
    const float value = sy_e4m3_to_f32((uint8_t)code);
    CHECK_NEAR((double)value, oracle_e4m3_value(code), 0.0);
    CHECK(same_f32(value, sy_e4m3_to_f32((uint8_t)(code | 0x80u))));
    CHECK_EQ_U64(sy_e4m3_from_f32(value), code);
  }
  CHECK(isnan(sy_e4m3_to_f32(0x7F)));
  CHECK_NEAR((double)sy_e4m3_to_f32(0x7E), 448.0, 0.0);
  CHECK_NEAR((double)sy_e4m3_to_f32(1), 0x1p-9, 0.0);
}

static bool rounds_to_e4m3(float x) {
  return x < 0.0f || signbit(x) != 0 ||
         CHECK_EQ_U64(sy_e4m3_from_f32(x), oracle_e4m3_nearest((double)x));
}

TEST(e4m3_rounds_every_midpoint_to_the_even_code) {
  for (unsigned code = 0; code < SY_E4M3_MAX_CODE; ++code) {
    const double middle = 0.5 * (oracle_e4m3_value(code) + oracle_e4m3_value(code + 1));
    CHECK_EQ_U64(sy_e4m3_from_f32((float)middle), code % 2 == 0 ? code : code + 1);
    around((float)middle, rounds_to_e4m3);
    around((float)oracle_e4m3_value(code), rounds_to_e4m3);
  }
}

TEST(e4m3_saturates) {
  const float large[] = {448.0f, 463.99997f, 464.0f, 480.0f, 512.0f, 1e6f, FLT_MAX};
  for (int i = 0; i < 7; ++i) {
    CHECK_EQ_U64(sy_e4m3_from_f32(large[i]), SY_E4M3_MAX_CODE);
  }
}

TEST(e4m3_rounds_to_nearest_over_a_dense_sweep) {
  for (uint32_t i = 0; i < 1u << 19; ++i) {
    const float x = sy_f32_of_bits(i << 12); /* all exponents, 11 bits of mantissa */
    if (isfinite(x) && !rounds_to_e4m3(x)) {
      return;
    }
  }
}

/* ---- BF16 ---- */

static bool rounds_to_bf16(float x) {
  return CHECK_EQ_U64(sy_f32_to_bf16(x), oracle_bf16_nearest((double)x));
}

TEST(bf16_rounds_every_midpoint_to_the_even_code) {
  for (uint32_t code = 0; code < 0x7F80u; ++code) {
    const uint16_t bits = (uint16_t)code;
    const float value = sy_bf16_to_f32(bits);
    CHECK_NEAR((double)value, oracle_bf16_value(bits), 0.0);
    CHECK_EQ_U64(sy_f32_to_bf16(value), code);
    const float middle = sy_f32_of_bits(code << 16 | 0x8000u);
    CHECK_EQ_U64(sy_f32_to_bf16(middle), code + code % 2);
    if (!around(middle, rounds_to_bf16)) {
      return;
    }
  }
  CHECK_EQ_U64(sy_f32_to_bf16(FLT_MAX), 0x7F80);
  CHECK_EQ_U64(sy_f32_to_bf16(-INFINITY), 0xFF80);
}

TEST(bf16_keeps_nan) {
  const uint32_t nans[] = {0x7F800001u, 0x7F80FFFFu, 0x7FC00000u, 0x7FFFFFFFu};
  for (int i = 0; i < 4; ++i) {
    CHECK(isnan(sy_bf16_to_f32(sy_f32_to_bf16(sy_f32_of_bits(nans[i])))));
    CHECK(isnan(sy_bf16_to_f32(sy_f32_to_bf16(sy_f32_of_bits(nans[i] | 0x80000000u)))));
  }
}

/* ---- F16 ---- */

TEST(f16_codes_have_their_values) {
  for (unsigned code = 0; code <= 0xFFFF; ++code) {
    const float value = sy_f16_to_f32((uint16_t)code);
    const double exact = oracle_f16_value((uint16_t)code);
    CHECK(isnan(exact) ? isnan(value) != 0 : (double)value == exact);
    CHECK((signbit(value) != 0) == (code >= 0x8000));
  }
}

/* ---- The quantiser ---- */

struct quantised {
  float global;
  uint8_t codes[MAX_COLUMNS]; /* one per byte */
  uint8_t scales[MAX_BLOCKS];
};

static void unpack(const uint8_t *pairs, int64_t n, uint8_t *codes) {
  for (int64_t i = 0; i < n; ++i) {
    codes[i] = i % 2 == 0 ? pairs[i / 2] & 0xFu : pairs[i / 2] >> 4;
  }
}

static struct quantised *quantise(const float *x, int64_t n) {
  static struct quantised q;
  uint8_t pairs[MAX_COLUMNS / 2];
  memset(pairs, 0xFF, sizeof pairs);
  memset(&q, 0xFF, sizeof q);
  q.global = sy_nvfp4_quantise(x, n, pairs, q.scales);
  unpack(pairs, n, q.codes);
  return &q;
}

/* fp4.h and the oracle agree about this row to the bit. */
static bool agrees(const float *x, int64_t n) {
  static struct quantised exact;
  const struct quantised *q = quantise(x, n);
  exact.global = oracle_global(x, n);
  oracle_quantise(x, n, exact.global, exact.codes, exact.scales);
  return CHECK(same_f32(q->global, exact.global)) &&
         CHECK_EQ_BYTES(q->scales, exact.scales, (size_t)(n / 16)) &&
         CHECK_EQ_BYTES(q->codes, exact.codes, (size_t)n);
}

static bool all_zero(const uint8_t *bytes, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (bytes[i] != 0) {
      return false;
    }
  }
  return true;
}

TEST(a_row_of_zeros_has_global_one) {
  float x[48] = {0.0f};
  x[5] = -0.0f;
  const struct quantised *q = quantise(x, 48);
  CHECK_NEAR((double)q->global, 1.0, 0.0);
  CHECK(all_zero(q->codes, 48));
  CHECK(all_zero(q->scales, 3));
}

TEST(a_block_of_zeros_has_scale_zero) {
  float x[48] = {0.0f};
  x[0] = 3.0f;
  x[47] = -1.0f;
  const struct quantised *q = quantise(x, 48);
  CHECK_EQ_U64(q->scales[0], SY_E4M3_MAX_CODE);
  CHECK_EQ_U64(q->scales[1], 0);
  CHECK_EQ_U64(q->codes[0], 7);
  CHECK_EQ_U64(q->codes[47], 15);
  CHECK(all_zero(q->codes + 16, 16));
  CHECK(agrees(x, 48));
}

/* With a largest magnitude of 2688 the global scale is 1, so that blocks show their scales bare. */
TEST(a_scale_that_rounds_to_zero_gives_zero_codes) {
  float x[32] = {[0] = 2688.0f};
  x[16] = 6.0f * 0x1p-10f; /* half the smallest scale: a tie, to zero */
  x[17] = -x[16];
  const struct quantised *q = quantise(x, 32);
  CHECK_NEAR((double)q->global, 1.0, 0.0);
  CHECK_EQ_U64(q->scales[1], 0);
  CHECK(all_zero(q->codes + 16, 16));
  CHECK(agrees(x, 32));

  x[16] = nextafterf(x[16], 1.0f);
  q = quantise(x, 32);
  CHECK_EQ_U64(q->scales[1], 1);
  CHECK_EQ_U64(q->codes[16], 5); /* a little over 3 */
  CHECK_EQ_U64(q->codes[17], 13);
  CHECK(agrees(x, 32));
}

TEST(subnormal_scales_count_in_steps) {
  for (unsigned k = 1; k <= 8; ++k) {
    float x[32] = {[0] = 2688.0f};
    x[20] = -6.0f * (float)k * 0x1p-9f;
    x[21] = 0.5f * (float)k * 0x1p-9f;
    const struct quantised *q = quantise(x, 32);
    CHECK_EQ_U64(q->scales[1], k);
    CHECK_EQ_U64(q->codes[20], 15);
    CHECK_EQ_U64(q->codes[21], 1);
    CHECK(agrees(x, 32));
  }
}

/* A block under a global scale that is not its own, as a caller with a static scale may ask. */
TEST(a_block_beyond_its_global_scale_saturates) {
  float x[16];
  for (int i = 0; i < 16; ++i) {
    x[i] = (float)(i - 8) * 1000.0f;
  }
  uint8_t pairs[8];
  uint8_t codes[16];
  uint8_t scale = 0xFF;
  sy_nvfp4_quantise_block(x, 1.0f, pairs, &scale);
  unpack(pairs, 16, codes);
  CHECK_EQ_U64(scale, SY_E4M3_MAX_CODE);
  CHECK_EQ_U64(codes[0], 15); /* -8000 / 448 */
  CHECK_EQ_U64(codes[8], 0);
  CHECK_EQ_U64(codes[15], 7);
  uint8_t exact[16];
  uint8_t exact_scale;
  oracle_quantise(x, 16, 1.0f, exact, &exact_scale);
  CHECK_EQ_BYTES(codes, exact, sizeof exact);
}

TEST(a_row_with_a_non_finite_value_is_nan_and_zero_codes) {
  const float bad[] = {INFINITY, -INFINITY, NAN, sy_f32_of_bits(0xFF800001u)};
  for (int64_t at = 0; at < 48; ++at) {
    for (int b = 0; b < 4; ++b) {
      float x[48];
      for (int i = 0; i < 48; ++i) {
        x[i] = (float)(i + 1);
      }
      x[at] = bad[b];
      const struct quantised *q = quantise(x, 48);
      CHECK(isnan(q->global));
      CHECK(all_zero(q->codes, 48));
      CHECK(all_zero(q->scales, 3));
    }
  }
}

TEST(the_largest_rows_do_not_overflow) {
  float x[16];
  for (int i = 0; i < 16; ++i) {
    x[i] = (float)ldexp(i % 2 == 0 ? (double)FLT_MAX : -(double)FLT_MAX, -i);
  }
  CHECK(isfinite(quantise(x, 16)->global));
  CHECK(agrees(x, 16));
}

/* Down to the last bit of f32: the global scale loses its digits, becomes 0 and counts as 1, and
 * scale times global may vanish. */
TEST(subnormal_rows_agree) {
  struct random_stream r = random_stream_make(sy_test_seed(), "subnormal", 0);
  for (int row = 0; row < 4000; ++row) {
    float x[48];
    int64_t bits = 0;
    for (int i = 0; i < 48; ++i) {
      bits = i % 16 == 0 ? random_between(&r, 1, 24) : bits;
      const uint32_t sign = random_between(&r, 0, 1) != 0 ? 0x80000000u : 0u;
      x[i] = sy_f32_of_bits(sign | (uint32_t)random_between(&r, 0, ((int64_t)1 << bits) - 1));
    }
    if (!agrees(x, 48)) {
      return;
    }
  }
}

/* What one rounding may cost: half the widest gap between codes (4 and 6), plus clipping where the
 * scale was rounded down, less than that: |x - value| <= scale * global. */
static bool is_close(const float *x, int64_t n, const struct quantised *q) {
  static double values[MAX_COLUMNS];
  oracle_dequantise(q->codes, q->scales, q->global, n, values);
  for (int64_t i = 0; i < n; ++i) {
    const unsigned scale = q->scales[i / 16];
    const double step = oracle_e4m3_value(scale) * (double)q->global;
    if (scale >= 8 && !(fabs((double)x[i] - values[i]) <= 1.00001 * step)) {
      return false;
    }
  }
  return true;
}

/* Rows whose exponents spread over `spread` binades, from nearly flat to far beyond what a scale
 * can follow, anywhere in f32's range. */
TEST(random_rows_agree_and_are_close) {
  static float x[MAX_COLUMNS];
  struct random_stream r = random_stream_make(sy_test_seed(), "rows", 0);
  for (int row = 0; row < 6000; ++row) {
    const int64_t n = 16 * random_between(&r, 1, row % 50 == 0 ? MAX_BLOCKS : 9);
    const int spread = (int)random_between(&r, 0, 24);
    const int low = (int)random_between(&r, -149, 127 - spread);
    for (int64_t i = 0; i < n; ++i) {
      x[i] = random_between(&r, 0, 15) == 0 ? 0.0f : random_wide(&r, low, low + spread);
      x[i] = row % 2 == 0 ? x[i] : sy_bf16_to_f32(sy_f32_to_bf16(x[i]));
    }
    if (!agrees(x, n) || (isfinite(quantise(x, n)->global) && low > -100 &&
                          !CHECK(is_close(x, n, quantise(x, n))))) {
      return;
    }
  }
}

/* ---- MXFP4 ---- */

TEST(e8m0_codes_have_their_values) {
  for (unsigned code = 0; code < 255; ++code) {
    CHECK_NEAR((double)sy_e8m0_to_f32((uint8_t)code), oracle_e8m0_value(code), 0.0);
  }
  CHECK(isnan(sy_e8m0_to_f32(SY_E8M0_NAN)));
}

/* Every power of two and its neighbours, zero and the subnormals below 2^-127 included. */
TEST(a_power_of_two_is_the_smallest_that_is_enough) {
  for (int exponent = -149; exponent <= 127; ++exponent) {
    const float power = ldexpf(1.0f, exponent);
    const float points[] = {0.0f, nextafterf(power, 0.0f), power, nextafterf(power, INFINITY)};
    for (int i = 0; i < (exponent == 127 ? 3 : 4); ++i) {
      CHECK_EQ_U64(sy_e8m0_from_f32(points[i]), oracle_e8m0_above((double)points[i]));
    }
  }
}

static bool mx_agrees(const float *x, int64_t n) {
  static uint8_t pairs[MAX_COLUMNS / 2];
  static uint8_t scales[MAX_COLUMNS / 32];
  static uint8_t expected[MAX_COLUMNS];
  static uint8_t expected_scales[MAX_COLUMNS / 32];
  sy_mxfp4_quantise(x, n, pairs, scales);
  oracle_mx_quantise(x, n, expected, expected_scales);
  bool same = CHECK_EQ_BYTES(scales, expected_scales, (size_t)(n / 32));
  for (int64_t i = 0; i < n && same; ++i) {
    same = CHECK_EQ_U64(i % 2 == 0 ? pairs[i / 2] & 0xFu : pairs[i / 2] >> 4, expected[i]);
  }
  return same;
}

TEST(mx_blocks_quantise_as_the_oracle_says) {
  static float x[MAX_COLUMNS];
  for (int64_t c = 0; c < 200; ++c) {
    struct random_stream r = random_stream_make(sy_test_seed(), "mx", c);
    const int64_t n = 32 * random_between(&r, 1, MAX_COLUMNS / 32);
    double size = 1.0;
    for (int64_t i = 0; i < n; ++i) {
      size = i % 32 == 0 ? ldexp(1.0, (int)random_between(&r, -140, 120)) : size;
      x[i] = (float)(size * random_normal(&r));
    }
    mx_agrees(x, n);
  }
}

/* At 6 a power of two the largest code is exact; one step beyond, the scale doubles. */
TEST(mx_scales_step_where_the_largest_code_ends) {
  for (int exponent = -126; exponent <= 124; ++exponent) {
    float x[32] = {[3] = ldexpf(6.0f, exponent), [4] = -0.0f};
    uint8_t codes[16];
    uint8_t scale;
    sy_mxfp4_quantise(x, 32, codes, &scale);
    CHECK_EQ_I64(scale, exponent + 127);
    CHECK_EQ_U64(codes[1], 0x70);
    CHECK_EQ_U64(codes[2], 0x08);
    mx_agrees(x, 32);
    x[3] = nextafterf(nextafterf(x[3], INFINITY), INFINITY); /* a sixth of one step more is lost */
    sy_mxfp4_quantise(x, 32, codes, &scale);
    CHECK_EQ_I64(scale, exponent + 128);
    mx_agrees(x, 32);
  }
}

TEST(mx_rows_of_zeros_and_of_the_largest_values) {
  float x[64] = {0.0f};
  CHECK(mx_agrees(x, 64));
  for (int i = 0; i < 64; ++i) {
    x[i] = i % 2 == 0 ? FLT_MAX : -FLT_MIN / 8.0f;
  }
  CHECK(mx_agrees(x, 64));
}

TEST(mx_rows_that_are_not_finite_have_only_nan_scales) {
  static const float bad[] = {NAN, INFINITY, -INFINITY};
  for (int i = 0; i < 3; ++i) {
    float x[96] = {[7] = 1.0f, [40] = bad[i]};
    uint8_t codes[48];
    uint8_t scales[3];
    sy_mxfp4_quantise(x, 96, codes, scales);
    for (int b = 0; b < 3; ++b) {
      CHECK_EQ_U64(scales[b], SY_E8M0_NAN);
    }
    CHECK(all_zero(codes, 48));
    CHECK(mx_agrees(x, 96));
  }
}
