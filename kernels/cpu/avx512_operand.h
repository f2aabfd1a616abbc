/* Rows of one slice of a contraction, decoded for the dots of avx512_dots.h.
 *
 * Routed rows are taken in blocks of at most ROWS, and these in groups of at most GROUP, which share
 * one decoding of a weight block. Within a group the values of a block of 16 columns lie together:
 *
 *   FP4 rows    codes i8 [rows][16] doubled, even columns, then odd | -12 x their sum i32 [rows] |
 *               scale f32 [rows]
 *   BF16 rows   f32 [16 columns][rows]; fastest: BF16 pairs [rows][8], in the order in which the
 *               weights' pairs come out of their decoding */
#ifndef SY_KERNELS_CPU_AVX512_OPERAND_H
#define SY_KERNELS_CPU_AVX512_OPERAND_H

#include "kernels/cpu/expert_view.h"

#if defined(__AVX512VBMI__) /* else nobody needs it, nor could compile it */

#include <immintrin.h>

#define ALWAYS_INLINE static inline __attribute__((always_inline))

#define ROWS 16
#define GROUP 8
#define SLICE_BLOCKS (SY_INTERMEDIATE_SLICE / SY_BLOCK)

#define FP4_ENTRY (SY_BLOCK + sizeof(int32_t) + sizeof(float))
#define F32_ENTRY (SY_BLOCK * sizeof(float))
#define PAIR_ENTRY (SY_BLOCK * sizeof(uint16_t))

#define OPERAND_BYTES 65536 /* at least ROWS * SLICE_BLOCKS * F32_ENTRY */
#define OPERAND_SLICES (OPERAND_BYTES / FP4_ENTRY / SLICE_BLOCKS + ROWS)

struct operand {
  _Alignas(64) uint8_t data[OPERAND_BYTES];
  float globals[OPERAND_SLICES]; /* of each group: [slice][rows] of 128 columns */
  size_t entry;                  /* bytes of a row's block */
  int blocks;                    /* of a row */
};

/* Rows [first, first + rows) of a block of rows. */
struct row_group {
  int first;
  int rows;
};

static inline struct row_group group_of(int rows, int group) {
  const int groups = (rows + GROUP - 1) / GROUP;
  const int first = rows * group / groups;
  return (struct row_group){first, rows * (group + 1) / groups - first};
}

static inline const uint8_t *group_data(const struct operand *x, struct row_group g) {
  return x->data + (size_t)g.first * (size_t)x->blocks * x->entry;
}

static inline float *group_globals(struct operand *x, struct row_group g) {
  const int slices = (x->blocks + SLICE_BLOCKS - 1) / SLICE_BLOCKS;
  return x->globals + g.first * slices;
}

/* Where block b of row r of the group begins; of FP4 rows: where its codes do. */
static inline uint8_t *entry_at(struct operand *x, struct row_group g, int b, int r) {
  const size_t within = x->entry == FP4_ENTRY ? SY_BLOCK : x->entry;
  return x->data + ((size_t)g.first * (size_t)x->blocks + (size_t)b * (size_t)g.rows) * x->entry +
         (size_t)r * within;
}

/* As many blocks as fit, in whole slices, so that a slice is never cut. */
static inline int operand_blocks(size_t entry, int rows, int64_t left) {
  const int most = (int)(OPERAND_BYTES / entry) / rows / SLICE_BLOCKS * SLICE_BLOCKS;
  return min_int(most, left);
}

static inline void store_fp4_block(struct operand *x, struct row_group g, int b, int r,
                                   __m128i codes, int32_t correction, float scale) {
  uint8_t *block = entry_at(x, g, b, 0);
  _mm_storeu_si128((__m128i *)(void *)(block + r * SY_BLOCK), codes);
  memcpy(block + g.rows * SY_BLOCK + r * 4, &correction, sizeof correction);
  memcpy(block + g.rows * (SY_BLOCK + 4) + r * 4, &scale, sizeof scale);
}

/* UE4M3 as half precision is 2^-8 too small (block_scales), which the rows' scales make up for. */
static inline float row_scale(sy_format format, const uint8_t *scales, int b) {
  return format == SY_FORMAT_MXFP4 ? sy_e8m0_to_f32(scales[b / 2])
                                   : sy_e4m3_to_f32(scales[b]) * 256.0f;
}

/* Four blocks at a time; begins at an even block. */
static inline void decode_fp4_row(sy_format format, const uint8_t *codes, const uint8_t *scales,
                                  struct operand *x, struct row_group g, int r) {
  const __m512i lookup = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12));
  const __m512i twice = _mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3);
  const __m512i shifts = _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4);
  for (int b = 0; b < x->blocks; b += 4) {
    const int n = x->blocks - b < 4 ? x->blocks - b : 4;
    const __m256i pairs = _mm256_maskz_loadu_epi64((__mmask8)((1 << n) - 1), codes + b * 8);
    const __m512i nibbles = _mm512_and_si512(
        _mm512_srlv_epi64(_mm512_permutexvar_epi64(twice, _mm512_castsi256_si512(pairs)), shifts),
        _mm512_set1_epi8(15));
    const __m512i ints = _mm512_shuffle_epi8(lookup, nibbles);
    __m512i sums = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(12), ints);
    sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, (_MM_PERM_ENUM)0x4E));
    sums = _mm512_add_epi32(sums, _mm512_shuffle_epi32(sums, (_MM_PERM_ENUM)0xB1));
#define STORE_BLOCK(i)                                                      \
  if ((i) < n) {                                                            \
    store_fp4_block(x, g, b + (i), r, _mm512_extracti32x4_epi32(ints, i),   \
                    -_mm_cvtsi128_si32(_mm512_extracti32x4_epi32(sums, i)), \
                    row_scale(format, scales, b + (i)));                    \
  }
    STORE_BLOCK(0)
    STORE_BLOCK(1)
    STORE_BLOCK(2)
    STORE_BLOCK(3)
#undef STORE_BLOCK
  }
}

static inline void decode_f32_row(const uint8_t *values, struct operand *x, struct row_group g,
                                  int r) {
  for (int b = 0; b < x->blocks; ++b) {
    float *out = (float *)(void *)entry_at(x, g, b, 0) + r;
    for (int k = 0; k < SY_BLOCK; ++k) {
      uint16_t bits;
      memcpy(&bits, values + (b * SY_BLOCK + k) * 2, sizeof bits);
      out[k * g.rows] = sy_bf16_to_f32(bits);
    }
  }
}

/* Columns of the pairs: weights of FP4 come in the order of fp4_pairs, those of BF16 as they are. */
static inline void decode_pair_row(bool fp4, const uint8_t *values, struct operand *x,
                                   struct row_group g, int r) {
  const __m256i order =
      fp4 ? _mm256_setr_epi16(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15)
          : _mm256_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (int b = 0; b < x->blocks; ++b) {
    const __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(values + b * 32));
    _mm256_storeu_si256((__m256i *)(void *)entry_at(x, g, b, r),
                        _mm256_permutexvar_epi16(order, bits));
  }
}

#endif
#endif
