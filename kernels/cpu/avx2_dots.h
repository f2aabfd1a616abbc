/* The dot of w4a4 in experts.c for AVX2, FMA and F16C: included there in place of the compiled one.
 *
 * A lane of a vector is an output row, in two vectors of 8. A block's 128 bytes of codes become eight
 * vectors of unsigned bytes w' = 2 w + 12, four columns of a lane in each dword; with the row's
 * doubled codes x, vpmaddubsw gives pairs of w' x, of which four add up to at most 4 * 2 * 24 * 12 =
 * 2304 in 16 bits; vpmaddwd brings the two halves of a lane together, and -12 sum(x) takes the offset
 * away. All of it is exact; the sums in f32 are those of the specification. */
#ifndef SY_KERNELS_CPU_AVX2_DOTS_H
#define SY_KERNELS_CPU_AVX2_DOTS_H

#include "kernels/cpu/expert_view.h"

#if defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)

#include <immintrin.h>

struct avx2_block {
  __m256i part[2][4]; /* of lanes 8 g ..: columns 0 2 4 6, 8 10 12 14, 1 3 5 7, 9 11 13 15 */
  __m256 scales[2];
};

/* Rows j and j + 4 of the block: 16 lanes of columns 2 j, 2 j + 1 and 2 j + 8, 2 j + 9. */
static inline __m256i avx2_rows(const uint8_t *codes, int j) {
  return _mm256_loadu2_m128i((const __m128i *)(const void *)(codes + (j + 4) * SY_TILE),
                             (const __m128i *)(const void *)(codes + j * SY_TILE));
}

static inline void avx2_decode_codes(const uint8_t *codes, struct avx2_block *block) {
  const __m256i lookup = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  const __m256i nibble = _mm256_set1_epi8(15);
  const __m256i row[4] = {avx2_rows(codes, 0), avx2_rows(codes, 1), avx2_rows(codes, 2),
                          avx2_rows(codes, 3)};
  for (int g = 0; g < 2; ++g) {
    const __m256i first =
        g == 0 ? _mm256_unpacklo_epi8(row[0], row[1]) : _mm256_unpackhi_epi8(row[0], row[1]);
    const __m256i second =
        g == 0 ? _mm256_unpacklo_epi8(row[2], row[3]) : _mm256_unpackhi_epi8(row[2], row[3]);
    const __m256i low = _mm256_unpacklo_epi16(first, second); /* four lanes, both halves */
    const __m256i high = _mm256_unpackhi_epi16(first, second);
    const __m256i half[2] = {_mm256_permute2x128_si256(low, high, 0x20),
                             _mm256_permute2x128_si256(low, high, 0x31)};
    for (int h = 0; h < 2; ++h) {
      const __m256i odd = _mm256_and_si256(_mm256_srli_epi16(half[h], 4), nibble);
      block->part[g][h] = _mm256_shuffle_epi8(lookup, _mm256_and_si256(half[h], nibble));
      block->part[g][2 + h] = _mm256_shuffle_epi8(lookup, odd);
    }
  }
}

/* UE4M3 as half precision is 2^-8 too small, subnormals included; the rows' scales carry the 2^8.
 * UE8M0: as sy_e8m0_to_f32, where 0 is the one whose exponent bits are less than its value's. */
static inline __m256 avx2_scales(sy_format format, const uint8_t *scales) {
  const __m128i codes = _mm_loadl_epi64((const __m128i *)(const void *)scales);
  if (format == SY_FORMAT_NVFP4) {
    return _mm256_cvtph_ps(_mm_slli_epi16(_mm_cvtepu8_epi16(codes), 7));
  }
  const __m256i wide = _mm256_cvtepu8_epi32(codes);
  const __m256i quiet = _mm256_set1_epi32(0x00400000);
  const __m256i nan = _mm256_cmpeq_epi32(wide, _mm256_set1_epi32(SY_E8M0_NAN));
  const __m256i bits = _mm256_max_epu32(_mm256_slli_epi32(wide, 23), quiet);
  return _mm256_castsi256_ps(_mm256_or_si256(bits, _mm256_and_si256(nan, quiet)));
}

/* A row's block: doubled codes, even columns, then odd, and -12 times their sum in every dword. */
static inline __m128i avx2_decode_row(const uint8_t *codes, __m256i *correction) {
  const __m128i lookup = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
  const __m128i pairs = _mm_loadl_epi64((const __m128i *)(const void *)codes);
  const __m128i indices = _mm_unpacklo_epi64(pairs, _mm_srli_epi16(pairs, 4));
  const __m128i ints = _mm_shuffle_epi8(lookup, _mm_and_si128(indices, _mm_set1_epi8(15)));
  __m128i sums = _mm_madd_epi16(_mm_maddubs_epi16(_mm_set1_epi8(12), ints), _mm_set1_epi16(-1));
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4E));
  sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xB1));
  *correction = _mm256_broadcastsi128_si256(sums);
  return ints;
}

static inline void avx2_add_block(const struct avx2_block *w, __m128i ints, __m256i correction,
                                  float x_scale, float *sum) {
  const __m256i x = _mm256_broadcastsi128_si256(ints);
  const __m256i columns[4] = {_mm256_shuffle_epi32(x, 0x00), _mm256_shuffle_epi32(x, 0x55),
                              _mm256_shuffle_epi32(x, 0xAA), _mm256_shuffle_epi32(x, 0xFF)};
  for (int g = 0; g < 2; ++g) {
    __m256i pairs = _mm256_maddubs_epi16(w->part[g][0], columns[0]);
    for (int q = 1; q < 4; ++q) {
      pairs = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w->part[g][q], columns[q]));
    }
    const __m256i dot =
        _mm256_add_epi32(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)), correction);
    const __m256 scale = _mm256_mul_ps(w->scales[g], _mm256_set1_ps(x_scale));
    _mm256_storeu_ps(sum + 8 * g,
                     _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot), scale, _mm256_loadu_ps(sum + 8 * g)));
  }
}

/* As the specification's dot_w4a4; with NVFP4 the product of scales is exact, so that fma is it. */
static void dot_w4a4(sy_format format, const struct tile *tile, const struct operand *x, int rows,
                     int64_t begin, int64_t end, float (*sum)[SY_TILE]) {
  const int64_t per_scale = sy_scale_block(format) / SY_BLOCK;
  for (int64_t b = begin; b < end; ++b) {
    const uint8_t *scales = tile->scales + b / per_scale * SY_FP4_SCALE_BYTES;
    struct avx2_block w;
    avx2_decode_codes(tile->data + b * SY_FP4_CODE_BYTES, &w);
    w.scales[0] = avx2_scales(format, scales);
    w.scales[1] = avx2_scales(format, scales + 8);
    for (int r = 0; r < rows; ++r) {
      const uint8_t code = x->scales[r][b / per_scale];
      const float x_scale =
          format == SY_FORMAT_MXFP4 ? sy_e8m0_to_f32(code) : sy_e4m3_to_f32(code) * 256.0f;
      __m256i correction;
      const __m128i ints = avx2_decode_row(x->data[r] + b * (SY_BLOCK / 2), &correction);
      avx2_add_block(&w, ints, correction, x_scale, sum[r]);
    }
  }
}

#endif
#endif
