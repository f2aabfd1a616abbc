/* AVX-512 with VNNI and BF16: vpdpbusd, vdpbf16ps, vfmadd. */
#include <immintrin.h>

#include "launch/rates.h"

enum { CHAINS = 16, STEPS = 1 << 17 };

static bool has_avx512(void) {
  return __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vnni") != 0 &&
         __builtin_cpu_supports("avx512bf16") != 0;
}

static uint64_t run_int8(void) {
  const __m512i bytes = _mm512_set1_epi8(3);
  __m512i sums[CHAINS];
  for (int i = 0; i < CHAINS; ++i) {
    sums[i] = _mm512_set1_epi32(i);
  }
  for (int step = 0; step < STEPS; ++step) {
    for (int i = 0; i < CHAINS; ++i) {
      sums[i] = _mm512_dpbusd_epi32(sums[i], bytes, bytes);
    }
  }
  volatile int sink = 0;
  for (int i = 0; i < CHAINS; ++i) {
    sink = sink + _mm512_reduce_add_epi32(sums[i]);
  }
  return (uint64_t)CHAINS * STEPS * 128;
}

/* Sums of f32, whichever instruction makes them. */
static uint64_t finish(const __m512 *sums, uint64_t operations_per_step) {
  volatile float sink = 0.0f;
  for (int i = 0; i < CHAINS; ++i) {
    sink = sink + _mm512_reduce_add_ps(sums[i]);
  }
  return (uint64_t)CHAINS * STEPS * operations_per_step;
}

static uint64_t run_bf16(void) {
  const __m512bh values = (__m512bh)_mm512_set1_epi16(0x3F80);
  __m512 sums[CHAINS];
  for (int i = 0; i < CHAINS; ++i) {
    sums[i] = _mm512_set1_ps((float)i);
  }
  for (int step = 0; step < STEPS; ++step) {
    for (int i = 0; i < CHAINS; ++i) {
      sums[i] = _mm512_dpbf16_ps(sums[i], values, values);
    }
  }
  return finish(sums, 64);
}

static uint64_t run_f32(void) {
  const __m512 half = _mm512_set1_ps(0.5f);
  __m512 sums[CHAINS];
  for (int i = 0; i < CHAINS; ++i) {
    sums[i] = _mm512_set1_ps((float)i);
  }
  for (int step = 0; step < STEPS; ++step) {
    for (int i = 0; i < CHAINS; ++i) {
      sums[i] = _mm512_fmadd_ps(sums[i], half, half);
    }
  }
  return finish(sums, 32);
}

const struct rates rates_avx512 = {
    has_avx512, {[RATE_INT8] = run_int8, [RATE_BF16] = run_bf16, [RATE_F32] = run_f32}};
