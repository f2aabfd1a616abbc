/* Dots of decoded rows with weight tiles: sums of one group of rows and one or two tiles over a
 * slice of the contraction, in the order of experts.c. A lane of a vector is an output row.
 *
 * w4a4: a block's 128 bytes of codes become four vectors of unsigned bytes w' = 2 w + 12 (vpermb
 * brings the four columns of a lane together, and looks codes up: six bits of an index, of which the
 * table ignores two, so that nibbles need no mask); with the row's doubled codes x, vpdpbusd gives
 * sum(w' x) = sum(2 w x) + 12 sum(x), and starting from -12 sum(x) takes the second term away.
 * Integer sums are exact in any order. Two tiles share each broadcast of x.
 *
 * fastest, of BF16 rows: FP4 codes become BF16 as they are, without their scales, and vdpbf16ps adds
 * a block's products in two chains of four pairs; then one fma by the block's scales, as in w4a16.
 * The same for any number of rows. */
#ifndef SY_KERNELS_CPU_AVX512_DOTS_H
#define SY_KERNELS_CPU_AVX512_DOTS_H

#include "kernels/cpu/avx512_operand.h"

#if defined(__AVX512VBMI__) /* else nobody needs it, nor could compile it */

/* What is summed: [tile][row] of a unit. */
typedef float row_sums[ROWS][SY_TILE];

struct dot_args {
  const uint8_t *tile;  /* the first tile */
  size_t tile_bytes;    /* to the next one */
  size_t scales;        /* from the codes of the slice's first block to their scales */
  const uint8_t *ahead; /* weights to ask for meanwhile */
  size_t ahead_bytes;   /* for each block */
  const uint8_t *x;     /* of the group */
  const float *globals; /* of the group: [slice][rows]; NULL: sums run through */
  int blocks;
  bool mxfp4;
  row_sums *sums; /* [tile], at the group's first row */
};

ALWAYS_INLINE void fetch_ahead(const struct dot_args *a, int b) {
  const uint8_t *begin = a->ahead + (size_t)b * a->ahead_bytes;
  for (size_t at = 0; at < a->ahead_bytes; at += 64) {
    _mm_prefetch((const char *)begin + at, _MM_HINT_T1);
  }
}

ALWAYS_INLINE __m512 nvfp4_scales(const uint8_t *scales) {
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)scales));
  return _mm512_cvtph_ps(_mm256_slli_epi16(wide, 7)); /* 2^-8 too small, subnormals included */
}

/* sy_e8m0_to_f32 of 16 codes: 0 is the one whose exponent bits are less than its value's. */
ALWAYS_INLINE __m512 mxfp4_scales(const uint8_t *scales) {
  const __m512i codes =
      _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)scales));
  const __m512i subnormal = _mm512_set1_epi32(0x00400000);
  const __mmask16 nan = _mm512_cmpeq_epi32_mask(codes, _mm512_set1_epi32(SY_E8M0_NAN));
  const __m512i bits = _mm512_max_epu32(_mm512_slli_epi32(codes, 23), subnormal);
  return _mm512_castsi512_ps(_mm512_mask_or_epi32(bits, nan, bits, subnormal));
}

ALWAYS_INLINE __m512 block_scales(const struct dot_args *a, const uint8_t *tile, int b) {
  return a->mxfp4 ? mxfp4_scales(tile + a->scales + b / 2 * SY_FP4_SCALE_BYTES)
                  : nvfp4_scales(tile + a->scales + b * SY_FP4_SCALE_BYTES);
}

/* ---- w4a4 ---- */

struct fp4_block {
  __m512i part[4]; /* columns 0 2 4 6, 8 10 12 14, 1 3 5 7, 9 11 13 15 */
  __m512 scales;
};

ALWAYS_INLINE struct fp4_block decode_block(const struct dot_args *a, const uint8_t *tile, int b) {
  const __m512i lookup = _mm512_broadcast_i32x4(
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  /* Byte 4 lane + q of the result is byte 16 q + lane: a transpose of 4 x 16 bytes. */
  const __m512i lanes =
      _mm512_setr_epi32(0x30201000, 0x31211101, 0x32221202, 0x33231303, 0x34241404, 0x35251505,
                        0x36261606, 0x37271707, 0x38281808, 0x39291909, 0x3A2A1A0A, 0x3B2B1B0B,
                        0x3C2C1C0C, 0x3D2D1D0D, 0x3E2E1E0E, 0x3F2F1F0F);
  const uint8_t *codes = tile + b * SY_FP4_CODE_BYTES;
  struct fp4_block block;
  for (int half = 0; half < 2; ++half) {
    const __m512i pairs =
        _mm512_permutexvar_epi8(lanes, _mm512_load_si512((const void *)(codes + half * 64)));
    block.part[half] = _mm512_permutexvar_epi8(pairs, lookup);
    block.part[2 + half] = _mm512_permutexvar_epi8(_mm512_srli_epi16(pairs, 4), lookup);
  }
  block.scales = block_scales(a, tile, b);
  return block;
}

ALWAYS_INLINE __m512i broadcast_columns(const uint8_t *codes) {
  int32_t four;
  memcpy(&four, codes, sizeof four);
  return _mm512_set1_epi32(four);
}

ALWAYS_INLINE void add_w4a4_block(const int rows, const int tiles, const struct dot_args *a, int b,
                                  __m512 (*total)[GROUP]) {
  struct fp4_block w[2];
  for (int t = 0; t < tiles; ++t) {
    w[t] = decode_block(a, a->tile + (size_t)t * a->tile_bytes, b);
  }
  const uint8_t *x = a->x + (size_t)b * (size_t)rows * FP4_ENTRY;
  for (int r = 0; r < rows; ++r) {
    const __m512i correction = broadcast_columns(x + rows * SY_BLOCK + r * 4);
    __m512i dot[2] = {correction, correction};
    for (int q = 0; q < 4; ++q) {
      const __m512i columns = broadcast_columns(x + r * SY_BLOCK + q * 4);
      for (int t = 0; t < tiles; ++t) {
        dot[t] = _mm512_dpbusd_epi32(dot[t], w[t].part[q], columns);
      }
    }
    const __m512 x_scale =
        _mm512_castsi512_ps(broadcast_columns(x + rows * (SY_BLOCK + 4) + r * 4));
    for (int t = 0; t < tiles; ++t) {
      total[t][r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot[t]), _mm512_mul_ps(w[t].scales, x_scale),
                                    total[t][r]);
    }
  }
}

/* NVFP4's FC2 sums each slice of 128 columns by itself, times the slice's global scale. */
ALWAYS_INLINE void dot_w4a4(const int rows, const int tiles, const struct dot_args *a) {
  const bool sliced = a->globals != NULL;
  for (int begin = 0; begin < a->blocks; begin += sliced ? SLICE_BLOCKS : a->blocks) {
    const int end = sliced && begin + SLICE_BLOCKS < a->blocks ? begin + SLICE_BLOCKS : a->blocks;
    __m512 total[2][GROUP];
    for (int t = 0; t < tiles; ++t) {
      for (int r = 0; r < rows; ++r) {
        total[t][r] = sliced ? _mm512_setzero_ps() : _mm512_loadu_ps(a->sums[t][r]);
      }
    }
    for (int b = begin; b < end; ++b) {
      fetch_ahead(a, b);
      add_w4a4_block(rows, tiles, a, b, total);
    }
    for (int t = 0; t < tiles; ++t) {
      for (int r = 0; r < rows; ++r) {
        if (sliced) {
          const __m512 global = _mm512_set1_ps(a->globals[begin / SLICE_BLOCKS * rows + r]);
          total[t][r] =
              _mm512_add_ps(_mm512_loadu_ps(a->sums[t][r]), _mm512_mul_ps(total[t][r], global));
        }
        _mm512_storeu_ps(a->sums[t][r], total[t][r]);
      }
    }
  }
}

/* ---- BF16 rows, invariant: one fma chain over a block's columns ---- */

ALWAYS_INLINE void dot_w4a16(const int rows, const struct dot_args *a) {
  const __m512 lookup = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f,
                                       -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
  __m512 total[GROUP];
  for (int r = 0; r < rows; ++r) {
    total[r] = _mm512_loadu_ps(a->sums[0][r]);
  }
  for (int b = 0; b < a->blocks; ++b) {
    const uint8_t *codes = a->tile + b * SY_FP4_CODE_BYTES;
    const float *x = (const float *)(const void *)a->x + b * SY_BLOCK * rows;
    __m512 dot[GROUP];
    fetch_ahead(a, b);
    for (int r = 0; r < rows; ++r) {
      dot[r] = _mm512_setzero_ps();
    }
    for (int j = 0; j < SY_BLOCK / 2; ++j) {
      /* vpermps reads the low four bits of each index. */
      const __m512i pairs = _mm512_cvtepu8_epi32(
          _mm_load_si128((const __m128i *)(const void *)(codes + j * SY_TILE)));
      const __m512 even = _mm512_permutexvar_ps(pairs, lookup);
      const __m512 odd = _mm512_permutexvar_ps(_mm512_srli_epi32(pairs, 4), lookup);
      for (int r = 0; r < rows; ++r) {
        dot[r] = _mm512_fmadd_ps(_mm512_set1_ps(x[2 * j * rows + r]), even, dot[r]);
        dot[r] = _mm512_fmadd_ps(_mm512_set1_ps(x[(2 * j + 1) * rows + r]), odd, dot[r]);
      }
    }
    /* Times 2^8 is exact: the sum comes out as with the scale itself. */
    const __m512 scales =
        _mm512_mul_ps(block_scales(a, a->tile, b), _mm512_set1_ps(a->mxfp4 ? 1.0f : 256.0f));
    for (int r = 0; r < rows; ++r) {
      total[r] = _mm512_fmadd_ps(dot[r], scales, total[r]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    _mm512_storeu_ps(a->sums[0][r], total[r]);
  }
}

ALWAYS_INLINE void dot_bf16(const int rows, const struct dot_args *a) {
  __m512 total[GROUP];
  for (int r = 0; r < rows; ++r) {
    total[r] = _mm512_loadu_ps(a->sums[0][r]);
  }
  for (int b = 0; b < a->blocks; ++b) {
    const uint8_t *values = a->tile + b * SY_BF16_BLOCK_BYTES;
    const float *x = (const float *)(const void *)a->x + b * SY_BLOCK * rows;
    __m512 dot[GROUP];
    fetch_ahead(a, b);
    for (int r = 0; r < rows; ++r) {
      dot[r] = _mm512_setzero_ps();
    }
    for (int k = 0; k < SY_BLOCK; ++k) {
      const __m256i bits =
          _mm256_load_si256((const __m256i *)(const void *)(values + k * SY_TILE * 2));
      const __m512 w = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
      for (int r = 0; r < rows; ++r) {
        dot[r] = _mm512_fmadd_ps(_mm512_set1_ps(x[k * rows + r]), w, dot[r]);
      }
    }
    for (int r = 0; r < rows; ++r) {
      total[r] = _mm512_add_ps(total[r], dot[r]);
    }
  }
  for (int r = 0; r < rows; ++r) {
    _mm512_storeu_ps(a->sums[0][r], total[r]);
  }
}

/* ---- BF16 rows, fastest ---- */

#if defined(__AVX512BF16__)

/* Codes of a block -> BF16 pairs of one lane each: columns (0 2) (4 6) (1 3) (5 7) (8 10) (12 14)
 * (9 11) (13 15). The two bytes of a BF16 are looked up apart and interleaved. */
ALWAYS_INLINE void fp4_pairs(const uint8_t *codes, __m512i *pairs) {
  const __m512i low = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 0, -128, -64, 0, 64, -128, -64, 0, 0, -128, -64, 0, 64, -128, -64));
  const __m512i high = _mm512_broadcast_i32x4(_mm_setr_epi8(
      0, 0x3F, 0x3F, 0x3F, 0x40, 0x40, 0x40, 0x40, -128, -65, -65, -65, -64, -64, -64, -64));
  /* Byte 16 c + 8 h + 2 m + s of the result is byte 16 (2 h + s) + 4 c + m, so that interleaving
   * within 128 bits leaves the pair of lane 4 c + m in dword 4 c + m. */
  const __m512i lanes = _mm512_setr_epi64(
      0x1303120211011000, 0x3323322231213020, 0x1707160615051404, 0x3727362635253424,
      0x1B0B1A0A19091808, 0x3B2B3A2A39293828, 0x1F0F1E0E1D0D1C0C, 0x3F2F3E2E3D2D3C2C);
  for (int half = 0; half < 2; ++half) {
    const __m512i even =
        _mm512_permutexvar_epi8(lanes, _mm512_load_si512((const void *)(codes + half * 64)));
    const __m512i odd = _mm512_srli_epi16(even, 4);
    const __m512i even_low = _mm512_permutexvar_epi8(even, low);
    const __m512i even_high = _mm512_permutexvar_epi8(even, high);
    const __m512i odd_low = _mm512_permutexvar_epi8(odd, low);
    const __m512i odd_high = _mm512_permutexvar_epi8(odd, high);
    pairs[4 * half] = _mm512_unpacklo_epi8(even_low, even_high);
    pairs[4 * half + 1] = _mm512_unpackhi_epi8(even_low, even_high);
    pairs[4 * half + 2] = _mm512_unpacklo_epi8(odd_low, odd_high);
    pairs[4 * half + 3] = _mm512_unpackhi_epi8(odd_low, odd_high);
  }
}

/* Values [column][lane] -> pairs of neighbouring columns. */
ALWAYS_INLINE void bf16_pairs(const uint8_t *values, __m512i *pairs) {
  const __m512i lanes =
      _mm512_setr_epi32(0x00100000, 0x00110001, 0x00120002, 0x00130003, 0x00140004, 0x00150005,
                        0x00160006, 0x00170007, 0x00180008, 0x00190009, 0x001A000A, 0x001B000B,
                        0x001C000C, 0x001D000D, 0x001E000E, 0x001F000F);
  for (int p = 0; p < SY_BLOCK / 2; ++p) {
    pairs[p] = _mm512_permutexvar_epi16(lanes, _mm512_load_si512((const void *)(values + p * 64)));
  }
}

ALWAYS_INLINE void dot_pairs(const bool fp4, const int rows, const struct dot_args *a) {
  __m512 total[GROUP];
  for (int r = 0; r < rows; ++r) {
    total[r] = _mm512_loadu_ps(a->sums[0][r]);
  }
  for (int b = 0; b < a->blocks; ++b) {
    __m512i w[SY_BLOCK / 2];
    __m512 scales = _mm512_set1_ps(1.0f);
    fetch_ahead(a, b);
    if (fp4) {
      fp4_pairs(a->tile + b * SY_FP4_CODE_BYTES, w);
      scales = _mm512_mul_ps(block_scales(a, a->tile, b), _mm512_set1_ps(a->mxfp4 ? 1.0f : 256.0f));
    } else {
      bf16_pairs(a->tile + b * SY_BF16_BLOCK_BYTES, w);
    }
    for (int r = 0; r < rows; ++r) {
      const uint8_t *x = a->x + (size_t)(b * rows + r) * PAIR_ENTRY;
      __m512 dot[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
      for (int p = 0; p < SY_BLOCK / 2; ++p) {
        dot[p % 2] =
            _mm512_dpbf16_ps(dot[p % 2], (__m512bh)w[p], (__m512bh)broadcast_columns(x + p * 4));
      }
      const __m512 sum = _mm512_add_ps(dot[0], dot[1]);
      total[r] = fp4 ? _mm512_fmadd_ps(sum, scales, total[r]) : _mm512_add_ps(total[r], sum);
    }
  }
  for (int r = 0; r < rows; ++r) {
    _mm512_storeu_ps(a->sums[0][r], total[r]);
  }
}

#endif

/* ---- One function per number of rows, so that running sums live in registers ---- */

/* How rows and weights meet. */
enum dot_kind { DOT_W4A4, DOT_W4A16, DOT_BF16, DOT_W4A16_PAIRS, DOT_BF16_PAIRS };

#define FOR_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)

#define DEFINE_DOTS(n)                                                      \
  static void w4a4_one_##n(const struct dot_args *a) { dot_w4a4(n, 1, a); } \
  static void w4a4_two_##n(const struct dot_args *a) { dot_w4a4(n, 2, a); } \
  static void w4a16_##n(const struct dot_args *a) { dot_w4a16(n, a); }      \
  static void bf16_##n(const struct dot_args *a) { dot_bf16(n, a); }
FOR_ROWS(DEFINE_DOTS)
#undef DEFINE_DOTS

typedef void (*dot_fn)(const struct dot_args *a);
#define W4A4_ONE(n) w4a4_one_##n,
#define W4A4_TWO(n) w4a4_two_##n,
#define W4A16(n) w4a16_##n,
#define BF16(n) bf16_##n,
static const dot_fn w4a4_dots[2][GROUP] = {{FOR_ROWS(W4A4_ONE)}, {FOR_ROWS(W4A4_TWO)}};
#define ONE_TILE_DOTS(kind, name) [kind] = {FOR_ROWS(name)}

#if defined(__AVX512BF16__)
#define DEFINE_PAIR_DOTS(n)                                                        \
  static void w4a16_pairs_##n(const struct dot_args *a) { dot_pairs(true, n, a); } \
  static void bf16_pairs_##n(const struct dot_args *a) { dot_pairs(false, n, a); }
FOR_ROWS(DEFINE_PAIR_DOTS)
#undef DEFINE_PAIR_DOTS
#define W4A16_PAIRS(n) w4a16_pairs_##n,
#define BF16_PAIRS(n) bf16_pairs_##n,
static const dot_fn one_tile_dots[][GROUP] = {
    ONE_TILE_DOTS(DOT_W4A16, W4A16), ONE_TILE_DOTS(DOT_BF16, BF16),
    ONE_TILE_DOTS(DOT_W4A16_PAIRS, W4A16_PAIRS), ONE_TILE_DOTS(DOT_BF16_PAIRS, BF16_PAIRS)};
static const bool has_pairs = true;
#else
static const dot_fn one_tile_dots[][GROUP] = {ONE_TILE_DOTS(DOT_W4A16, W4A16),
                                              ONE_TILE_DOTS(DOT_BF16, BF16)};
static const bool has_pairs = false;
#endif

/* Without instructions for pairs the invariant arithmetic is the fastest. */
static inline enum dot_kind dot_kind_of(const struct sy_stage_env *env) {
  const bool pairs = env->fastest && has_pairs;
  switch (env->mode) {
  case SY_MODE_W4A4:
    return DOT_W4A4;
  case SY_MODE_W4A16:
    return pairs ? DOT_W4A16_PAIRS : DOT_W4A16;
  case SY_MODE_BF16:
    break;
  }
  return pairs ? DOT_BF16_PAIRS : DOT_BF16;
}

static inline size_t entry_bytes(enum dot_kind kind) {
  return kind == DOT_W4A4                                    ? FP4_ENTRY
         : kind == DOT_W4A16_PAIRS || kind == DOT_BF16_PAIRS ? PAIR_ENTRY
                                                             : F32_ENTRY;
}

/* Tiles that one call may take. */
static inline int tiles_at_once(enum dot_kind kind) { return kind == DOT_W4A4 ? 2 : 1; }

#endif
#endif
