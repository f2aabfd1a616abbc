/* The activations' own exp against libm's in float64. What the activations make of it is judged with
 * the experts stage (test_experts.c). */
#include "kernels/cpu/activation.h"

#include <float.h>
#include <math.h>

#include "tests/support/harness.h"

/* |got - exact| in units of the last place of a normal f32 result. */
static double ulps(float got, double exact) {
  const double unit = ldexp(1.0, ilogb(exact) - 23);
  return fabs((double)got - exact) / unit;
}

/* A dense walk over the floats of [-87.3, 88.7], where e^x is a normal f32. */
TEST(exp_is_within_2_ulp) {
  double worst = 0.0;
  for (uint32_t bits = 0x33000000u; bits < 0x42B16666u; bits += 509) {
    const float x = sy_f32_of_bits(bits);
    worst = fmax(worst, ulps(sy_exp(x), exp((double)x)));
    if (x < 87.3f) {
      worst = fmax(worst, ulps(sy_exp(-x), exp(-(double)x)));
    }
  }
  CHECK(worst <= 2.0);
}

TEST(exp_has_the_right_ends) {
  CHECK_NEAR((double)sy_exp(0.0f), 1.0, 0.0);
  CHECK_NEAR((double)sy_exp(-0.0f), 1.0, 0.0);
  CHECK(isinf(sy_exp(89.0f)) && isinf(sy_exp(FLT_MAX)) && isinf(sy_exp(INFINITY)));
  CHECK_NEAR((double)sy_exp(-104.0f), 0.0, 0.0);
  CHECK_NEAR((double)sy_exp(-FLT_MAX), 0.0, 0.0);
  CHECK_NEAR((double)sy_exp(-INFINITY), 0.0, 0.0);
  CHECK_NEAR((double)sy_exp(-95.0f), exp(-95.0), 0x1p-149); /* subnormal, one step */
  CHECK(isnan(sy_exp(NAN)));
}
