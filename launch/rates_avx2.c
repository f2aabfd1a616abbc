/* AVX2: 8-bit products by vpmaddubsw, vpmaddwd and vpaddd; f32 by FMA. */
#include <immintrin.h>

#include "launch/rates.h"

enum { CHAINS = 10, STEPS = 1 << 19 };

static bool has_avx2(void) {
  return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
}

static uint64_t run_int8(void) {
  const __m256i bytes = _mm256_set1_epi8(3);
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i sums[CHAINS];
  for (int i = 0; i < CHAINS; ++i) {
    sums[i] = _mm256_set1_epi32(i);
  }
  for (int step = 0; step < STEPS; ++step) {
    for (int i = 0; i < CHAINS; ++i) {
      const __m256i pairs = _mm256_maddubs_epi16(sums[i], bytes);
      sums[i] = _mm256_add_epi32(sums[i], _mm256_madd_epi16(pairs, ones));
    }
  }
  volatile int sink = 0;
  for (int i = 0; i < CHAINS; ++i) {
    sink = sink + _mm256_extract_epi32(sums[i], 0);
  }
  return (uint64_t)CHAINS * STEPS * 64;
}

static uint64_t run_f32(void) {
  const __m256 half = _mm256_set1_ps(0.5f);
  __m256 sums[CHAINS];
  for (int i = 0; i < CHAINS; ++i) {
    sums[i] = _mm256_set1_ps((float)i);
  }
  for (int step = 0; step < STEPS; ++step) {
    for (int i = 0; i < CHAINS; ++i) {
      sums[i] = _mm256_fmadd_ps(sums[i], half, half);
    }
  }
  volatile float sink = 0.0f;
  for (int i = 0; i < CHAINS; ++i) {
    sink = sink + _mm256_cvtss_f32(sums[i]);
  }
  return (uint64_t)CHAINS * STEPS * 16;
}

const struct rates rates_avx2 = {has_avx2, {[RATE_INT8] = run_int8, [RATE_F32] = run_f32}};
