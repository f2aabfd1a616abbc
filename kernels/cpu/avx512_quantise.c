#include "kernels/cpu/avx512_quantise.h"

#include "kernels/cpu/cpu.h"

static void nvfp4(const float *x, int64_t n, float global, uint8_t *codes, uint8_t *scales) {
  sy_avx512_nvfp4(x, n, global, codes, scales);
}

static void mxfp4(const float *x, int64_t n, uint8_t *codes, uint8_t *scales) {
  sy_avx512_mxfp4(x, n, codes, scales);
}

static float amax(const float *x, int64_t n) { return sy_avx512_amax(x, n); }

/* Four rows of 16 bytes each -> dword j has column j of them. */
static __m512i four_rows(const uint8_t *rows, int64_t n) {
  const __m512i order =
      _mm512_setr_epi32(0x30201000, 0x31211101, 0x32221202, 0x33231303, 0x34241404, 0x35251505,
                        0x36261606, 0x37271707, 0x38281808, 0x39291909, 0x3A2A1A0A, 0x3B2B1B0B,
                        0x3C2C1C0C, 0x3D2D1D0D, 0x3E2E1E0E, 0x3F2F1F0F);
  __m512i all = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)(const void *)rows));
#define INSERT(row)                                                                               \
  all = _mm512_inserti32x4(all, _mm_loadu_si128((const __m128i *)(const void *)(rows + (row)*n)), \
                           row)
  INSERT(1);
  INSERT(2);
  INSERT(3);
#undef INSERT
  return _mm512_permutexvar_epi8(order, all);
}

/* Columns q, 4 + q, 8 + q and 12 + q, which are the 128-bit parts of a vector. */
static void store_columns(__m512i parts, int q, uint8_t *columns) {
#define STORE(part)                                                      \
  _mm_storeu_si128((__m128i *)(void *)(columns + (4 * (part) + q) * 16), \
                   _mm512_extracti32x4_epi32(parts, part))
  STORE(0);
  STORE(1);
  STORE(2);
  STORE(3);
#undef STORE
}

static void interleave(const uint8_t *rows, int64_t n, uint8_t *columns) {
  int64_t i = 0;
  for (; i + 16 <= n; i += 16) {
    const __m512i a = four_rows(rows + i, n);
    const __m512i b = four_rows(rows + 4 * n + i, n);
    const __m512i c = four_rows(rows + 8 * n + i, n);
    const __m512i d = four_rows(rows + 12 * n + i, n);
    const __m512i ab_low = _mm512_unpacklo_epi32(a, b);
    const __m512i ab_high = _mm512_unpackhi_epi32(a, b);
    const __m512i cd_low = _mm512_unpacklo_epi32(c, d);
    const __m512i cd_high = _mm512_unpackhi_epi32(c, d);
    store_columns(_mm512_unpacklo_epi64(ab_low, cd_low), 0, columns + i * 16);
    store_columns(_mm512_unpackhi_epi64(ab_low, cd_low), 1, columns + i * 16);
    store_columns(_mm512_unpacklo_epi64(ab_high, cd_high), 2, columns + i * 16);
    store_columns(_mm512_unpackhi_epi64(ab_high, cd_high), 3, columns + i * 16);
  }
  for (; i < n; ++i) {
    for (int64_t row = 0; row < 16; ++row) {
      columns[i * 16 + row] = rows[row * n + i];
    }
  }
}

const struct sy_quantiser sy_quantiser_avx512 = {nvfp4, mxfp4, amax, interleave};

sy_status sy_cpu_pack_avx512(const struct sy_stage_env *env, const struct sy_pack_args *args) {
  return sy_cpu_pack_by(&sy_quantiser_avx512, env, args);
}

sy_status sy_cpu_load_expert_avx512(const struct sy_stage_env *env, const struct sy_source *source,
                                    unsigned char *expert, struct sy_bad_weight *bad) {
  return sy_cpu_load_expert_by(&sy_quantiser_avx512, env, source, expert, bad);
}
