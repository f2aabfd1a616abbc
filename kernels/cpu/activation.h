/* The activations in f32, on exp of our own: libm differs by version, and a result must not. */
#ifndef SY_KERNELS_CPU_ACTIVATION_H
#define SY_KERNELS_CPU_ACTIVATION_H

#include <math.h>

#include "kernels/fp4.h"
#include "kernels/kernels.h"

/* e^x within 2 ulp for x in [-104, 88]; 0 and infinity beyond; NaN stays. x = n ln 2 + r with
 * |r| <= ln 2 / 2, where the Taylor polynomial of degree 7 errs by less than 6e-9. n comes from
 * adding 1.5 * 2^23, which leaves the rounded integer in the low bits; 2^n is applied in two
 * halves, so that neither over- nor underflows before the product does. */
SY_FP4_FN float sy_exp(float x) {
  const float magic = 12582912.0f;
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float shifted = fmaf(x, 0x1.715476p+0f, magic);
  const float n = shifted - magic;
  float r = fmaf(n, -0x1.62e43p-1f, x);
  r = fmaf(n, 0x1.05c61p-29f, r);
  float p = 1.0f / 5040.0f;
  p = fmaf(p, r, 1.0f / 720.0f);
  p = fmaf(p, r, 1.0f / 120.0f);
  p = fmaf(p, r, 1.0f / 24.0f);
  p = fmaf(p, r, 1.0f / 6.0f);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  const int32_t i = (int32_t)(sy_bits_of_f32(shifted) - sy_bits_of_f32(magic));
  const int32_t half = i / 2;
  const float low = sy_f32_of_bits((uint32_t)(half + 127) << 23);
  const float high = sy_f32_of_bits((uint32_t)(i - half + 127) << 23);
  return p * low * high;
}

SY_FP4_FN float sy_sigmoid(float x) { return 1.0f / (1.0f + sy_exp(-x)); }

/* Comparisons are written so that NaN passes through. gelu_tanh(x) = x (1 + tanh u) / 2 with
 * u = sqrt(2 / pi) (x + 0.044715 x^3) is x sigmoid(2 u), which does not cancel for negative x. */
SY_FP4_FN float sy_activate(sy_activation activation, float gate, float up, float alpha,
                            float limit) {
  switch (activation) {
  case SY_ACTIVATION_SWIGLU:
    return gate * sy_sigmoid(gate) * up;
  case SY_ACTIVATION_SWIGLU_CLAMPED: {
    const float g = gate > limit ? limit : gate;
    const float u = up > limit ? limit : up < -limit ? -limit : up;
    return g * sy_sigmoid(alpha * g) * (u + 1.0f);
  }
  case SY_ACTIVATION_GELU_TANH: {
    const float twice_u = 1.5957691216f * gate * fmaf(0.044715f * gate, gate, 1.0f);
    return gate * sy_sigmoid(twice_u) * up;
  }
  case SY_ACTIVATION_RELU2: {
    const float x = up <= 0.0f ? 0.0f : up;
    return x * x;
  }
  }
  return 0.0f;
}

#endif
