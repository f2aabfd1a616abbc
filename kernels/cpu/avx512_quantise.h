/* Blocks of fp4.h's quantiser on vectors of 16 values. */
#ifndef SY_KERNELS_CPU_AVX512_QUANTISE_H
#define SY_KERNELS_CPU_AVX512_QUANTISE_H

#include <string.h>

#include "kernels/fp4.h"
#include "kernels/wire.h"

#if defined(__AVX512DQ__) /* else nobody needs it, nor could compile it */

#include <immintrin.h>

/* sy_fp4_encode of 16 values: 8 bytes. */
static inline void sy_avx512_encode(__m512 x, float divisor, uint8_t *codes) {
  if (divisor == 0.0f) {
    memset(codes, 0, 8);
    return;
  }
  const __m512 a = _mm512_div_ps(_mm512_abs_ps(x), _mm512_set1_ps(divisor));
  const __m512i one = _mm512_set1_epi32(1);
  __m512i code = _mm512_setzero_si512();
#define ABOVE(compare, bound)                                                                     \
  code = _mm512_mask_add_epi32(code, _mm512_cmp_ps_mask(a, _mm512_set1_ps(bound), compare), code, \
                               one)
  ABOVE(_CMP_GT_OQ, 0.25f);
  ABOVE(_CMP_GE_OQ, 0.75f);
  ABOVE(_CMP_GT_OQ, 1.25f);
  ABOVE(_CMP_GE_OQ, 1.75f);
  ABOVE(_CMP_GT_OQ, 2.5f);
  ABOVE(_CMP_GE_OQ, 3.5f);
  ABOVE(_CMP_GT_OQ, 5.0f);
#undef ABOVE
  const __m512i sign = _mm512_slli_epi32(_mm512_srli_epi32(_mm512_castps_si512(x), 31), 3);
  const __m128i bytes = _mm512_cvtepi32_epi8(_mm512_or_si512(code, sign));
  /* Pairs of bytes (low, high) -> low + 16 * high. */
  const __m128i pairs = _mm_maddubs_epi16(bytes, _mm_set1_epi16(0x1001));
  _mm_storel_epi64((__m128i *)(void *)codes, _mm_packus_epi16(pairs, pairs));
}

static inline void sy_avx512_nvfp4(const float *x, int64_t n, float global, uint8_t *codes,
                                   uint8_t *scales) {
  for (int64_t i = 0; i < n; i += SY_NVFP4_BLOCK) {
    const __m512 values = _mm512_loadu_ps(x + i);
    const float amax = _mm512_reduce_max_ps(_mm512_abs_ps(values));
    const uint8_t scale = sy_e4m3_from_f32(amax / (SY_E2M1_MAX * global));
    scales[i / SY_NVFP4_BLOCK] = scale;
    sy_avx512_encode(values, sy_e4m3_to_f32(scale) * global, codes + i / 2);
  }
}

static inline void sy_avx512_mxfp4(const float *x, int64_t n, uint8_t *codes, uint8_t *scales) {
  for (int64_t i = 0; i < n; i += SY_MXFP4_BLOCK) {
    const __m512 low = _mm512_loadu_ps(x + i);
    const __m512 high = _mm512_loadu_ps(x + i + 16);
    const float amax = _mm512_reduce_max_ps(_mm512_max_ps(_mm512_abs_ps(low), _mm512_abs_ps(high)));
    const uint8_t scale = sy_e8m0_from_f32(amax / SY_E2M1_MAX);
    scales[i / SY_MXFP4_BLOCK] = scale;
    sy_avx512_encode(low, sy_e8m0_to_f32(scale), codes + i / 2);
    sy_avx512_encode(high, sy_e8m0_to_f32(scale), codes + i / 2 + 8);
  }
}

/* sy_amax of n values, a multiple of 16. */
static inline float sy_avx512_amax(const float *x, int64_t n) {
  const __m512i magnitude = _mm512_set1_epi32(0x7FFFFFFF);
  __m512i amax = _mm512_setzero_si512();
  for (int64_t i = 0; i < n; i += 16) {
    const __m512i bits = _mm512_castps_si512(_mm512_loadu_ps(x + i));
    amax = _mm512_max_epu32(amax, _mm512_and_si512(bits, magnitude));
  }
  return sy_f32_of_bits(_mm512_reduce_max_epu32(amax));
}

#endif
#endif
