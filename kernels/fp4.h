/* Number formats and the quantiser: one fixed sequence of f32 operations, the same on every
 * backend.
 *
 * NVFP4: value = E2M1 code * UE4M3 block scale (per 16 along the contraction) * f32 global scale.
 * For a row, g = amax / (6 * 448); per block s = E4M3(amax_block / (6 g)), code = E2M1(x / (s g)).
 * IEEE division, round to nearest with ties to the even code, saturate. s g that is 0 (s rounded to
 * 0, or the product of a subnormal g did) gives zero codes: 0 / 0 has a sign that depends on the
 * machine. g that would be 0 is 1. A row with a non-finite value has g = NaN and zero codes.
 *
 * MXFP4: value = E2M1 code * UE8M0 scale (2^(code - 127), per 32 along the contraction). s = the
 * smallest power of two >= amax_block / 6, at least 2^-127; code = E2M1(x / s). A row with a
 * non-finite value has only NaN scales (255), and zero codes.
 * Formats: OCP Microscaling v1.0 (E2M1, E8M0), OCP 8-bit floating point v1.0 (E4M3). */
#ifndef SY_KERNELS_FP4_H
#define SY_KERNELS_FP4_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define SY_FP4_FN static __host__ __device__ inline
#else
#define SY_FP4_FN static inline
#endif

#define SY_E2M1_MAX 6.0f
#define SY_E4M3_MAX 448.0f
#define SY_E4M3_MAX_CODE 0x7Eu
#define SY_E8M0_NAN 0xFFu

SY_FP4_FN uint32_t sy_bits_of_f32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return bits;
}

SY_FP4_FN float sy_f32_of_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof x);
  return x;
}

SY_FP4_FN int sy_is_finite(float x) { return (sy_bits_of_f32(x) & 0x7F800000u) != 0x7F800000u; }

SY_FP4_FN float sy_bf16_to_f32(uint16_t x) { return sy_f32_of_bits((uint32_t)x << 16); }

/* Exact; 2^-14 and below are subnormal. Infinity and NaN stay. */
SY_FP4_FN float sy_f16_to_f32(uint16_t x) {
  const uint32_t magnitude = x & 0x7FFFu;
  const uint32_t sign = (uint32_t)(x & 0x8000u) << 16;
  const float value = magnitude >= 0x7C00u ? sy_f32_of_bits((magnitude << 13) + 0x70000000u)
                                           : sy_f32_of_bits(magnitude << 13) * 0x1p112f;
  return sy_f32_of_bits(sy_bits_of_f32(value) | sign);
}

/* Round to nearest even; every NaN becomes the one quiet NaN, since payloads differ by machine. */
SY_FP4_FN uint16_t sy_f32_to_bf16(float x) {
  const uint32_t bits = sy_bits_of_f32(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) {
    return 0x7FC0u;
  }
  return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

/* x >= 0 and finite; saturates to 448. Below 2^-6 codes count multiples of 2^-9: adding 2^23 leaves
 * the rounded count in the low bits. */
SY_FP4_FN uint8_t sy_e4m3_from_f32(float x) {
  if (x < 0.015625f) {
    return (uint8_t)(sy_bits_of_f32(x * 512.0f + 8388608.0f) & 0xFu);
  }
  const uint32_t bits = sy_bits_of_f32(x);
  const uint32_t code = ((bits + 0x7FFFFu + ((bits >> 20) & 1u)) >> 20) - (120u << 3);
  return (uint8_t)(code > SY_E4M3_MAX_CODE ? SY_E4M3_MAX_CODE : code);
}

/* The sign bit is ignored (UE4M3); 0x7F is NaN. As f32 bits the code is 2^-120 times too small,
 * subnormals included; written without branches, so that loops over lanes become vectors. */
SY_FP4_FN float sy_e4m3_to_f32(uint8_t code) {
  const uint32_t magnitude = code & 0x7Fu;
  const float value = sy_f32_of_bits(magnitude << 20) * 0x1p120f;
  return magnitude == 0x7Fu ? sy_f32_of_bits(0x7FC00000u) : value;
}

/* The smallest power of two >= x, at least 2^-127, for 0 <= x <= 2^127. */
SY_FP4_FN uint8_t sy_e8m0_from_f32(float x) {
  const uint32_t bits = sy_bits_of_f32(x);
  return (uint8_t)(bits <= 0x00400000u ? 0u : (bits + 0x7FFFFFu) >> 23);
}

/* The code is an f32's exponent, but for 2^-127, which is subnormal, and NaN. */
SY_FP4_FN float sy_e8m0_to_f32(uint8_t code) {
  const uint32_t quiet = code == 0u || code == SY_E8M0_NAN ? 0x00400000u : 0u;
  return sy_f32_of_bits(((uint32_t)code << 23) | quiet);
}

/* Ties go to the even code: 0.25 -> 0, 0.75 -> 1, 1.25 -> 1, 1.75 -> 2, 2.5 -> 2, 3.5 -> 4, 5 -> 4.
 * The sign survives a zero. */
SY_FP4_FN uint8_t sy_e2m1_from_f32(float x) {
  const uint32_t bits = sy_bits_of_f32(x);
  const float a = sy_f32_of_bits(bits & 0x7FFFFFFFu);
  const unsigned code = (unsigned)(a > 0.25f) + (unsigned)(a >= 0.75f) + (unsigned)(a > 1.25f) +
                        (unsigned)(a >= 1.75f) + (unsigned)(a > 2.5f) + (unsigned)(a >= 3.5f) +
                        (unsigned)(a > 5.0f);
  return (uint8_t)(code | (bits >> 31 << 3));
}

/* A code doubled is a small integer: 0 1 2 3 4 6 8 12, so that a block's dot is exact in int32. */
SY_FP4_FN int sy_e2m1_doubled(unsigned code) {
  const int m = (int)(code & 7u);
  const int magnitude = m + (m > 4) + (m > 5) + 3 * (m > 6);
  return (code & 8u) != 0u ? -magnitude : magnitude;
}

SY_FP4_FN float sy_e2m1_to_f32(unsigned code) {
  const float magnitude = 0.5f * (float)sy_e2m1_doubled(code & 7u);
  return (code & 8u) != 0u ? -magnitude : magnitude;
}

/* The global scale of values whose largest magnitude is amax (finite). */
SY_FP4_FN float sy_nvfp4_global(float amax) {
  const float g = amax / (SY_E2M1_MAX * SY_E4M3_MAX);
  return g == 0.0f ? 1.0f : g;
}

/* The largest magnitude of n values; NaN and infinity have the largest of all. */
SY_FP4_FN float sy_amax(const float *x, int64_t n) {
  uint32_t amax = 0; /* magnitudes order as integers */
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t a = sy_bits_of_f32(x[i]) & 0x7FFFFFFFu;
    amax = a > amax ? a : amax;
  }
  return sy_f32_of_bits(amax);
}

/* n values over a divisor (0: zero codes) -> n / 2 bytes of codes, even index in the low nibble. */
SY_FP4_FN void sy_fp4_encode(const float *x, int64_t n, float divisor, uint8_t *codes) {
  for (int64_t i = 0; i < n / 2; ++i) {
    const unsigned low = divisor == 0.0f ? 0u : sy_e2m1_from_f32(x[2 * i] / divisor);
    const unsigned high = divisor == 0.0f ? 0u : sy_e2m1_from_f32(x[2 * i + 1] / divisor);
    codes[i] = (uint8_t)(low | (high << 4));
  }
}

/* One block of 16 finite values -> 8 bytes of codes and its scale. */
SY_FP4_FN void sy_nvfp4_quantise_block(const float *x, float g, uint8_t *codes, uint8_t *scale) {
  const uint8_t s = sy_e4m3_from_f32(sy_amax(x, 16) / (SY_E2M1_MAX * g));
  *scale = s;
  sy_fp4_encode(x, 16, sy_e4m3_to_f32(s) * g, codes);
}

/* One block of 32 finite values -> 16 bytes of codes and its scale. */
SY_FP4_FN void sy_mxfp4_quantise_block(const float *x, uint8_t *codes, uint8_t *scale) {
  const uint8_t s = sy_e8m0_from_f32(sy_amax(x, 32) / SY_E2M1_MAX);
  *scale = s;
  sy_fp4_encode(x, 32, sy_e8m0_to_f32(s), codes);
}

/* n values (a multiple of 32) -> n / 2 bytes of codes, n / 32 scales. */
SY_FP4_FN void sy_mxfp4_quantise(const float *x, int64_t n, uint8_t *codes, uint8_t *scales) {
  if (!sy_is_finite(sy_amax(x, n))) {
    memset(codes, 0, (size_t)(n / 2));
    memset(scales, (int)SY_E8M0_NAN, (size_t)(n / 32));
    return;
  }
  for (int64_t b = 0; b < n / 32; ++b) {
    sy_mxfp4_quantise_block(x + 32 * b, codes + 16 * b, scales + b);
  }
}

/* n values (a multiple of 16) -> n / 2 bytes of codes, n / 16 scales; returns their
 * global scale. */
SY_FP4_FN float sy_nvfp4_quantise(const float *x, int64_t n, uint8_t *codes, uint8_t *scales) {
  const float amax = sy_amax(x, n);
  if (!sy_is_finite(amax)) {
    memset(codes, 0, (size_t)(n / 2));
    memset(scales, 0, (size_t)(n / 16));
    return sy_f32_of_bits(0x7FC00000u);
  }
  const float g = sy_nvfp4_global(amax);
  for (int64_t b = 0; b < n / 16; ++b) {
    sy_nvfp4_quantise_block(x + 16 * b, g, codes + 8 * b, scales + b);
  }
  return g;
}

#endif
