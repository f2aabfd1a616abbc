/* The experts stage for AVX-512 with VNNI, VBMI: the sums of experts.c, in the same order, bit for
 * bit.
 *
 * A lane of a vector is an output row. w4a4: a block's 128 bytes of codes become four vectors of
 * unsigned bytes w' = 2 w + 12 (vpermb brings the four columns of a lane together, vpshufb looks
 * codes up); with the row's doubled codes x, vpdpbusd gives sum(w' x) = sum(2 w x) + 12 sum(x), and
 * starting from -12 sum(x) takes the second term away. Even and odd columns stay apart, as they lie
 * in bytes; integer sums are exact in any order.
 *
 * Up to ROWS routed rows share one decoding of a block: with one row the kernel streams weights at
 * the speed of memory (micro), with many it is bound by vpdpbusd or fma (grouped). Work is cut into
 * units of one active expert x 128 output rows, and these into slices of the contraction, for which
 * the rows are decoded once into the first-level cache: the fewer the rows, the longer the slices,
 * so that weights come in long runs. */
#include <immintrin.h>

#include "kernels/cpu/activation.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/expert_view.h"

#define ROWS 16
#define UNIT \
  SY_INTERMEDIATE_SLICE /* output rows of a unit, and columns that share a global scale */
#define UNIT_TILES (UNIT / SY_TILE)
#define OPERAND_BLOCKS 512 /* of all rows of a slice; at least ROWS * UNIT / SY_BLOCK */

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* Rows of one slice of the contraction, decoded: block b of row r is entry r * blocks + b. Every
 * entry of codes and values is aligned to its size, as the stores want it. */
struct operand {
  _Alignas(64) union {
    struct {
      int8_t codes[OPERAND_BLOCKS][SY_BLOCK]; /* even columns, then odd, doubled */
      int32_t correction[OPERAND_BLOCKS];     /* -12 * sum of the block's codes */
      float scale[OPERAND_BLOCKS];            /* times 256: see block_scales */
    } fp4;
    float values[OPERAND_BLOCKS][SY_BLOCK]; /* bf16 rows */
  };
  int blocks; /* of a row */
};

/* ---- Decoding rows ---- */

static void decode_fp4_row(const uint8_t *codes, const uint8_t *scales, int row,
                           struct operand *x) {
  const __m128i lookup = _mm_setr_epi8(0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12);
  const __m128i nibble = _mm_set1_epi8(15);
  const int first = row * x->blocks;
  for (int b = 0; b < x->blocks; ++b) {
    const __m128i pairs = _mm_loadl_epi64((const __m128i *)(const void *)(codes + b * 8));
    const __m128i indices = _mm_unpacklo_epi64(pairs, _mm_srli_epi16(pairs, 4));
    const __m128i ints = _mm_shuffle_epi8(lookup, _mm_and_si128(indices, nibble));
    _mm_store_si128((__m128i *)(void *)x->fp4.codes[first + b], ints);
    __m128i sums = _mm_dpbusd_epi32(_mm_setzero_si128(), _mm_set1_epi8(12), ints);
    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0x4E));
    sums = _mm_add_epi32(sums, _mm_shuffle_epi32(sums, 0xB1));
    x->fp4.correction[first + b] = -_mm_cvtsi128_si32(sums);
    x->fp4.scale[first + b] = sy_e4m3_to_f32(scales[b]) * 256.0f;
  }
}

static void decode_bf16_row(const uint8_t *values, int row, struct operand *x) {
  for (int b = 0; b < x->blocks; ++b) {
    const __m256i bits = _mm256_loadu_si256((const __m256i *)(const void *)(values + b * 32));
    const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
    _mm512_store_ps(x->values[row * x->blocks + b], _mm512_castsi512_ps(wide));
  }
}

/* ---- Dots: sum[row] over `blocks` blocks of one tile ---- */

/* UE4M3 as half precision is 2^-8 too small, subnormals included; the rows' scales carry the
 * 2^8. */
ALWAYS_INLINE __m512 block_scales(const uint8_t *scales) {
  const __m256i wide = _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)(const void *)scales));
  return _mm512_cvtph_ps(_mm256_slli_epi16(wide, 7));
}

ALWAYS_INLINE __m512i broadcast_columns(const int8_t *codes) {
  int32_t four;
  memcpy(&four, codes, sizeof four);
  return _mm512_set1_epi32(four);
}

struct fp4_block {
  __m512i even[2]; /* columns 0, 2, 4, 6 and 8, 10, 12, 14 */
  __m512i odd[2];
  __m512 scales;
};

ALWAYS_INLINE struct fp4_block decode_block(const uint8_t *codes, const uint8_t *scales) {
  const __m512i lookup = _mm512_broadcast_i32x4(
      _mm_setr_epi8(12, 13, 14, 15, 16, 18, 20, 24, 12, 11, 10, 9, 8, 6, 4, 0));
  const __m512i nibble = _mm512_set1_epi8(15);
  /* Byte 4 lane + q of the result is byte 16 q + lane: a transpose of 4 x 16 bytes. */
  const __m512i lanes =
      _mm512_setr_epi32(0x30201000, 0x31211101, 0x32221202, 0x33231303, 0x34241404, 0x35251505,
                        0x36261606, 0x37271707, 0x38281808, 0x39291909, 0x3A2A1A0A, 0x3B2B1B0B,
                        0x3C2C1C0C, 0x3D2D1D0D, 0x3E2E1E0E, 0x3F2F1F0F);
  struct fp4_block block;
  for (int half = 0; half < 2; ++half) {
    const __m512i pairs =
        _mm512_permutexvar_epi8(lanes, _mm512_load_si512((const void *)(codes + half * 64)));
    block.even[half] = _mm512_shuffle_epi8(lookup, _mm512_and_si512(pairs, nibble));
    block.odd[half] =
        _mm512_shuffle_epi8(lookup, _mm512_and_si512(_mm512_srli_epi16(pairs, 4), nibble));
  }
  block.scales = block_scales(scales);
  return block;
}

/* With few rows the wait for memory is what there is to hide: asks for the weights of eight blocks
 * ahead, as far as a stream that turns from tile to tile is sure to go. On 2 Zen 4 cores this cut a
 * token's time by 15 %; 2 KiB and 4 KiB ahead cut less. */
#define AHEAD_BLOCKS 8
ALWAYS_INLINE void fetch_ahead(const struct tile *tile, int b) {
  const uint8_t *codes = tile->data + (b + AHEAD_BLOCKS) * SY_FP4_CODE_BYTES;
  _mm_prefetch((const char *)codes, _MM_HINT_T0);
  _mm_prefetch((const char *)codes + 64, _MM_HINT_T0);
  if (b % 4 == 0) { /* a line holds the scales of four blocks */
    _mm_prefetch((const char *)tile->scales + (b + AHEAD_BLOCKS) * SY_FP4_SCALE_BYTES, _MM_HINT_T0);
  }
}

ALWAYS_INLINE void dot_w4a4(const int rows, const struct tile *tile, const struct operand *x,
                            int first, float (*sum)[SY_TILE]) {
  __m512 total[ROWS];
  for (int r = 0; r < rows; ++r) {
    total[r] = _mm512_loadu_ps(sum[r]);
  }
  for (int b = 0; b < x->blocks; ++b) {
    if (rows <= 4) {
      fetch_ahead(tile, b);
    }
    const struct fp4_block w =
        decode_block(tile->data + b * SY_FP4_CODE_BYTES, tile->scales + b * SY_FP4_SCALE_BYTES);
    for (int r = 0; r < rows; ++r) {
      const int entry = (first + r) * x->blocks + b;
      const int8_t *codes = x->fp4.codes[entry];
      __m512i dot = _mm512_set1_epi32(x->fp4.correction[entry]);
      dot = _mm512_dpbusd_epi32(dot, w.even[0], broadcast_columns(codes));
      dot = _mm512_dpbusd_epi32(dot, w.even[1], broadcast_columns(codes + 4));
      dot = _mm512_dpbusd_epi32(dot, w.odd[0], broadcast_columns(codes + 8));
      dot = _mm512_dpbusd_epi32(dot, w.odd[1], broadcast_columns(codes + 12));
      const __m512 scale = _mm512_mul_ps(w.scales, _mm512_set1_ps(x->fp4.scale[entry]));
      total[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot), scale, total[r]); /* product is exact */
    }
  }
  for (int r = 0; r < rows; ++r) {
    _mm512_storeu_ps(sum[r], total[r]);
  }
}

ALWAYS_INLINE void dot_w4a16(const int rows, const struct tile *tile, const struct operand *x,
                             int first, float (*sum)[SY_TILE]) {
  const __m512 lookup = _mm512_setr_ps(0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f, -0.5f,
                                       -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f);
  for (int b = 0; b < x->blocks; ++b) {
    const uint8_t *codes = tile->data + b * SY_FP4_CODE_BYTES;
    __m512 dot[ROWS];
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
        const float *values = &x->values[(first + r) * x->blocks + b][2 * j];
        dot[r] = _mm512_fmadd_ps(_mm512_set1_ps(values[0]), even, dot[r]);
        dot[r] = _mm512_fmadd_ps(_mm512_set1_ps(values[1]), odd, dot[r]);
      }
    }
    /* Times 2^8 is exact: the sum comes out as with the scale itself. */
    const __m512 scales =
        _mm512_mul_ps(block_scales(tile->scales + b * SY_FP4_SCALE_BYTES), _mm512_set1_ps(256.0f));
    for (int r = 0; r < rows; ++r) {
      const __m512 total = _mm512_fmadd_ps(dot[r], scales, _mm512_loadu_ps(sum[r]));
      _mm512_storeu_ps(sum[r], total);
    }
  }
}

ALWAYS_INLINE void dot_bf16(const int rows, const struct tile *tile, const struct operand *x,
                            int first, float (*sum)[SY_TILE]) {
  for (int b = 0; b < x->blocks; ++b) {
    const uint8_t *values = tile->data + b * SY_BF16_BLOCK_BYTES;
    __m512 dot[ROWS];
    for (int r = 0; r < rows; ++r) {
      dot[r] = _mm512_setzero_ps();
    }
    for (int k = 0; k < SY_BLOCK; ++k) {
      const __m256i bits =
          _mm256_load_si256((const __m256i *)(const void *)(values + k * SY_TILE * 2));
      const __m512 w = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
      for (int r = 0; r < rows; ++r) {
        dot[r] =
            _mm512_fmadd_ps(_mm512_set1_ps(x->values[(first + r) * x->blocks + b][k]), w, dot[r]);
      }
    }
    for (int r = 0; r < rows; ++r) {
      _mm512_storeu_ps(sum[r], _mm512_add_ps(_mm512_loadu_ps(sum[r]), dot[r]));
    }
  }
}

ALWAYS_INLINE void dot_rows(sy_mode mode, const int rows, const struct tile *tile,
                            const struct operand *x, int first, float (*sum)[SY_TILE]) {
  if (mode == SY_MODE_W4A4) {
    dot_w4a4(rows, tile, x, first, sum);
  } else if (mode == SY_MODE_W4A16) {
    dot_w4a16(rows, tile, x, first, sum);
  } else {
    dot_bf16(rows, tile, x, first, sum);
  }
}

/* The row counts that are compiled apart, so that running sums live in registers: any number of
 * rows is at most three of them. */
static void dot(sy_mode mode, int rows, const struct tile *tile, const struct operand *x,
                float (*sum)[SY_TILE]) {
  int first = 0;
  while (rows - first > 0) {
    const int left = rows - first;
#define DOT_CASE(n)                                   \
  if (left >= (n)) {                                  \
    dot_rows(mode, (n), tile, x, first, sum + first); \
    first += (n);                                     \
    continue;                                         \
  }
    DOT_CASE(16)
    DOT_CASE(12)
    DOT_CASE(8)
    DOT_CASE(6)
    DOT_CASE(4)
    DOT_CASE(3)
    DOT_CASE(2)
    DOT_CASE(1)
#undef DOT_CASE
  }
}

/* The part of a tile that begins at block `begin`. */
static struct tile tile_from(struct tile tile, sy_mode mode, int64_t begin) {
  const size_t block_bytes = mode == SY_MODE_BF16 ? SY_BF16_BLOCK_BYTES : SY_FP4_CODE_BYTES;
  return (struct tile){tile.data + (size_t)begin * block_bytes,
                       tile.scales + (size_t)begin * SY_FP4_SCALE_BYTES};
}

/* ---- FC1 ---- */

/* Sums of a unit: [tile][row][lane]. */
typedef float unit_sums[UNIT_TILES][ROWS][SY_TILE];

static void decode_received(const struct expert *e, int32_t first, int rows, int64_t begin,
                            struct operand *x) {
  for (int r = 0; r < rows; ++r) {
    const uint8_t *row = source_row(e, first + r);
    if (e->env->mode == SY_MODE_W4A4) {
      decode_fp4_row(row + begin * (SY_BLOCK / 2), row + e->env->wire_row.scales + begin, r, x);
    } else {
      decode_bf16_row(row + begin * SY_BLOCK * 2, r, x);
    }
  }
}

/* The sums of sum[tile][row], scaled and biased, as rows of the unit's columns. */
static void finish_fc1(const struct expert *e, enum sy_projection p, int64_t column, int tiles,
                       int32_t first, int rows, unit_sums sums, float (*out)[UNIT]) {
  const bool w4a4 = e->env->mode == SY_MODE_W4A4;
  for (int r = 0; r < rows; ++r) {
    const float scale = w4a4 ? source_global(e, first + r) * e->globals[p] : e->globals[p];
    const __m512 factor = _mm512_set1_ps(scale);
    const __m512 quarter = _mm512_set1_ps(w4a4 ? 0.25f : 1.0f);
    for (int t = 0; t < tiles; ++t) {
      const __m512 sum = _mm512_mul_ps(quarter, _mm512_loadu_ps(sums[t][r]));
      __m512 y = _mm512_mul_ps(sum, factor);
      if (e->env->has_bias) {
        y = _mm512_add_ps(y, _mm512_loadu_ps(bias_of(e, p) + column + t * SY_TILE));
      }
      _mm512_storeu_ps(&out[r][t * SY_TILE], y);
    }
  }
}

ALWAYS_INLINE void activate_as(sy_activation activation, const struct sy_stage_env *env,
                               int columns, const float *gate, const float *up, float *values) {
#pragma omp simd
  for (int c = 0; c < columns; ++c) {
    values[c] = sy_activate(activation, gate[c], up[c], env->swiglu_alpha, env->swiglu_limit);
  }
}

static void activate(const struct sy_stage_env *env, int columns, const float *gate,
                     const float *up, float *values) {
  switch (env->activation) {
  case SY_ACTIVATION_SWIGLU:
    activate_as(SY_ACTIVATION_SWIGLU, env, columns, gate, up, values);
    break;
  case SY_ACTIVATION_SWIGLU_CLAMPED:
    activate_as(SY_ACTIVATION_SWIGLU_CLAMPED, env, columns, gate, up, values);
    break;
  case SY_ACTIVATION_GELU_TANH:
    activate_as(SY_ACTIVATION_GELU_TANH, env, columns, gate, up, values);
    break;
  case SY_ACTIVATION_RELU2:
    activate_as(SY_ACTIVATION_RELU2, env, columns, gate, up, values);
    break;
  }
}

/* sy_nvfp4_quantise_block on a vector: 16 f32 -> 8 bytes. */
static void quantise_block(__m512 x, float global, uint8_t *codes, uint8_t *scale) {
  const __m512 magnitude = _mm512_abs_ps(x);
  const uint8_t s = sy_e4m3_from_f32(_mm512_reduce_max_ps(magnitude) / (SY_E2M1_MAX * global));
  const float divisor = sy_e4m3_to_f32(s) * global;
  *scale = s;
  if (divisor == 0.0f) {
    memset(codes, 0, SY_BLOCK / 2);
    return;
  }
  const __m512 a = _mm512_div_ps(magnitude, _mm512_set1_ps(divisor));
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

static float quantise(const float *values, int columns, uint8_t *codes, uint8_t *scales) {
  __m512 amax = _mm512_setzero_ps();
  __mmask16 strange = 0; /* NaN or infinite */
  for (int c = 0; c < columns; c += SY_BLOCK) {
    const __m512 x = _mm512_loadu_ps(values + c);
    strange |= _mm512_fpclass_ps_mask(x, 0x99);
    amax = _mm512_max_ps(amax, _mm512_abs_ps(x));
  }
  if (strange != 0) {
    memset(codes, 0, (size_t)columns / 2);
    memset(scales, 0, (size_t)columns / SY_BLOCK);
    return sy_f32_of_bits(0x7FC00000u);
  }
  const float global = sy_nvfp4_global(_mm512_reduce_max_ps(amax));
  for (int c = 0; c < columns; c += SY_BLOCK) {
    quantise_block(_mm512_loadu_ps(values + c), global, codes + c / 2, scales + c / SY_BLOCK);
  }
  return global;
}

static void store_intermediate(const struct expert *e, int64_t column, int columns,
                               int32_t routed_row, const float *values) {
  const struct intermediate row = intermediate_at(e, routed_row);
  if (e->env->mode == SY_MODE_W4A4) {
    row.globals[column / UNIT] =
        quantise(values, columns, row.data + column / 2, row.scales + column / SY_BLOCK);
    return;
  }
  uint16_t *out = (uint16_t *)(void *)row.data + column;
  for (int c = 0; c < columns; ++c) {
    out[c] = sy_f32_to_bf16(values[c]);
  }
}

static void clear_sums(unit_sums sums, int tiles, int rows) {
  for (int t = 0; t < tiles; ++t) {
    memset(sums[t], 0, (size_t)rows * sizeof sums[t][0]);
  }
}

static void fc1_rows(const struct expert *e, int64_t column, int columns, int32_t first, int rows) {
  const struct sy_stage_env *env = e->env;
  const int64_t blocks = env->hidden / SY_BLOCK;
  const int tiles = columns / SY_TILE;
  const bool gated = sy_is_gated(env->activation);
  _Alignas(64) unit_sums gate_sums;
  _Alignas(64) unit_sums up_sums;
  struct operand x;
  clear_sums(gate_sums, tiles, rows);
  clear_sums(up_sums, tiles, rows);
  for (int64_t begin = 0; begin < blocks; begin += x.blocks) {
    x.blocks = min_int(OPERAND_BLOCKS / rows, blocks - begin);
    decode_received(e, first, rows, begin, &x);
    for (int t = 0; t < tiles; ++t) {
      const int64_t row = column + t * SY_TILE;
      if (gated) {
        const struct tile gate = tile_from(tile_at(e, SY_GATE, row), env->mode, begin);
        dot(env->mode, rows, &gate, &x, gate_sums[t]);
      }
      const struct tile up = tile_from(tile_at(e, SY_UP, row), env->mode, begin);
      dot(env->mode, rows, &up, &x, up_sums[t]);
    }
  }
  float gate[ROWS][UNIT];
  float up[ROWS][UNIT];
  finish_fc1(e, gated ? SY_GATE : SY_UP, column, tiles, first, rows, gate_sums, gate);
  finish_fc1(e, SY_UP, column, tiles, first, rows, up_sums, up);
  for (int r = 0; r < rows; ++r) {
    float values[UNIT];
    store_trace(e, column, columns, first + r, gate[r], up[r]);
    activate(env, columns, gate[r], up[r], values);
    store_intermediate(e, column, columns, first + r, values);
  }
}

/* ---- FC2 ---- */

static void decode_intermediate(const struct expert *e, int32_t first, int rows, int64_t begin,
                                struct operand *x) {
  for (int r = 0; r < rows; ++r) {
    const struct intermediate row = intermediate_at(e, first + r);
    if (e->env->mode == SY_MODE_W4A4) {
      decode_fp4_row(row.data + begin * (SY_BLOCK / 2), row.scales + begin, r, x);
    } else {
      decode_bf16_row(row.data + begin * SY_BLOCK * 2, r, x);
    }
  }
}

/* w4a4: a slice of 128 columns summed by itself, times the slice's global scale. */
static void add_slice(const struct expert *e, const struct tile *tile, const struct operand *x,
                      int32_t first, int rows, int64_t slice, float (*total)[SY_TILE]) {
  _Alignas(64) float sum[ROWS][SY_TILE];
  memset(sum, 0, (size_t)rows * sizeof sum[0]);
  dot(SY_MODE_W4A4, rows, tile, x, sum);
  for (int r = 0; r < rows; ++r) {
    const __m512 global = _mm512_set1_ps(intermediate_at(e, first + r).globals[slice]);
    const __m512 scaled = _mm512_mul_ps(_mm512_load_ps(sum[r]), global);
    _mm512_storeu_ps(total[r], _mm512_add_ps(_mm512_loadu_ps(total[r]), scaled));
  }
}

static void finish_fc2(const struct expert *e, int64_t column, int tiles, int32_t first, int rows,
                       unit_sums sums) {
  const __m512 factor = _mm512_set1_ps(e->globals[SY_DOWN]);
  const __m512 quarter = _mm512_set1_ps(e->env->mode == SY_MODE_W4A4 ? 0.25f : 1.0f);
  for (int r = 0; r < rows; ++r) {
    float *out = e->args->expert_out + (int64_t)(first + r) * e->env->hidden + column;
    for (int t = 0; t < tiles; ++t) {
      const __m512 sum = _mm512_mul_ps(quarter, _mm512_loadu_ps(sums[t][r]));
      __m512 y = _mm512_mul_ps(sum, factor);
      if (e->env->has_bias) {
        y = _mm512_add_ps(y, _mm512_loadu_ps(bias_of(e, SY_DOWN) + column + t * SY_TILE));
      }
      _mm512_storeu_ps(out + t * SY_TILE, y);
    }
  }
}

static void fc2_rows(const struct expert *e, int64_t column, int columns, int32_t first, int rows) {
  const struct sy_stage_env *env = e->env;
  const bool w4a4 = env->mode == SY_MODE_W4A4;
  const int64_t blocks = env->intermediate / SY_BLOCK;
  const int64_t step = w4a4 ? UNIT / SY_BLOCK : OPERAND_BLOCKS / rows;
  const int tiles = columns / SY_TILE;
  _Alignas(64) unit_sums sums;
  struct operand x;
  clear_sums(sums, tiles, rows);
  for (int64_t begin = 0; begin < blocks; begin += step) {
    x.blocks = min_int(step, blocks - begin);
    decode_intermediate(e, first, rows, begin, &x);
    for (int t = 0; t < tiles; ++t) {
      const struct tile tile =
          tile_from(tile_at(e, SY_DOWN, column + t * SY_TILE), env->mode, begin);
      if (w4a4) {
        add_slice(e, &tile, &x, first, rows, begin / step, sums[t]);
      } else {
        dot(env->mode, rows, &tile, &x, sums[t]);
      }
    }
  }
  finish_fc2(e, column, tiles, first, rows, sums);
}

/* ---- Entry ---- */

typedef void (*rows_fn)(const struct expert *e, int64_t column, int columns, int32_t first,
                        int rows);

static void run_unit(const struct expert *e, int64_t unit, int64_t width, rows_fn compute) {
  const int64_t column = unit * UNIT;
  const int columns = min_int(UNIT, width - column);
  for (int32_t first = e->begin; first < e->end; first += ROWS) {
    compute(e, column, columns, first, min_int(ROWS, e->end - first));
  }
}

sy_status sy_cpu_experts_avx512(const struct sy_stage_env *env,
                                const struct sy_experts_args *args) {
  if (env->mode != SY_MODE_BF16 && env->format == SY_FORMAT_MXFP4) {
    return sy_cpu_experts_x86_64_v4(env, args);
  }
  const int64_t active = args->routed->num_active;
  const int64_t fc1_units = (env->intermediate + UNIT - 1) / UNIT;
  const int64_t fc2_units = (env->hidden + UNIT - 1) / UNIT;
#pragma omp parallel num_threads(env->num_threads) if (env->num_threads > 1)
  {
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < active * fc1_units; ++i) {
      const struct expert e = active_expert(env, args, i / fc1_units);
      run_unit(&e, i % fc1_units, env->intermediate, fc1_rows);
    }
#pragma omp for schedule(dynamic)
    for (int64_t i = 0; i < active * fc2_units; ++i) {
      const struct expert e = active_expert(env, args, i / fc2_units);
      run_unit(&e, i % fc2_units, env->hidden, fc2_rows);
    }
  }
  return SY_OK;
}
