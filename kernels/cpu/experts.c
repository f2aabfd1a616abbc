/* experts: routed rows -> FC1 (gate, up) -> activation -> FC2. The scalar specification.
 *
 * Order of sums, fixed by the layer's shape alone. A contraction is cut into blocks of 16 columns,
 * added in ascending order:
 *
 *   w4a4   sum += float(dot) * (row scale * weight scale); dot is of doubled codes, exact in int32
 *          (<= 2304), and so is the product in f32 (20 bits): only the addition rounds. FC2 sums
 *          each slice of 128 columns by itself, times the slice's global scale, slices ascending.
 *          MXFP4: sum = fma(float(dot), row scale * weight scale, sum): powers of two may leave the
 *          normal range. No slices: FC2 sums as FC1 does.
 *   w4a16  dot = fma chain over the block's columns, ascending; sum = fma(dot, weight scale, sum)
 *   bf16   the same dot; sum += dot
 *
 * A lane is an output row, so that SIMD of any width adds in this same order. Global scales and
 * biases come last: w4a4 FC1 (sum / 4) * (row global * weight global), FC2 (sum / 4) * weight
 * global; w4a16 sum * weight global. Those that MXFP4 does not have are 1.
 *
 * This file is compiled once per instruction level (SY_CPU_SUFFIX): the compiler makes vectors of
 * the inner loops over lanes, and every level gives the same bits.
 *
 * Work is cut into units of one active expert x 128 output rows; FC2 begins when FC1 is done. */
#include "kernels/cpu/activation.h"
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/expert_view.h"

#define ROWS 8 /* routed rows that share one decoded weight block */
#define SLICE SY_INTERMEDIATE_SLICE
#define SLICE_BLOCKS (SLICE / SY_BLOCK)

/* The operand rows of one contraction: codes and scales (w4a4), or bf16 values in `data`. */
struct operand {
  const uint8_t *data[ROWS];
  const uint8_t *scales[ROWS];
};

/* ---- Dots: sum[row][lane] over blocks [begin, end) of one tile ---- */

/* One block of codes, columns 2j and 2j + 1 apart as they lie in the bytes. Doubled codes. */
struct fp4_ints {
  int16_t even[SY_BLOCK / 2][SY_TILE];
  int16_t odd[SY_BLOCK / 2][SY_TILE];
};

/* sy_e2m1_doubled in bytes throughout, so that the compiler keeps a code in a byte lane. */
static inline int8_t doubled_in_bytes(uint8_t code) {
  const uint8_t m = code & 7u;
  const int8_t magnitude = (int8_t)(m + (m > 4 ? 1 : 0) + (m > 5 ? 1 : 0) + (m > 6 ? 3 : 0));
  return code > 7u ? (int8_t)-magnitude : magnitude;
}

static void decode_fp4(const uint8_t *codes, struct fp4_ints *w) {
  int16_t *even = &w->even[0][0];
  int16_t *odd = &w->odd[0][0];
#pragma omp simd
  for (int i = 0; i < SY_TILE * SY_BLOCK / 2; ++i) {
    even[i] = doubled_in_bytes(codes[i] & 15u);
  }
#pragma omp simd
  for (int i = 0; i < SY_TILE * SY_BLOCK / 2; ++i) {
    odd[i] = doubled_in_bytes(codes[i] >> 4);
  }
}

static void decode_fp4_floats(const uint8_t *codes, float (*w)[SY_TILE]) {
  struct fp4_ints ints;
  decode_fp4(codes, &ints);
  for (int j = 0; j < SY_BLOCK / 2; ++j) {
#pragma omp simd
    for (int lane = 0; lane < SY_TILE; ++lane) {
      w[2 * j][lane] = 0.5f * (float)ints.even[j][lane];
      w[2 * j + 1][lane] = 0.5f * (float)ints.odd[j][lane];
    }
  }
}

static void decode_bf16(const uint8_t *block, float (*w)[SY_TILE]) {
  const uint16_t *values = (const uint16_t *)(const void *)block;
  for (int k = 0; k < SY_BLOCK; ++k) {
#pragma omp simd
    for (int lane = 0; lane < SY_TILE; ++lane) {
      w[k][lane] = sy_bf16_to_f32(values[k * SY_TILE + lane]);
    }
  }
}

static void decode_scales(sy_format format, const uint8_t *codes, float *scales) {
  /* NOLINTNEXTLINE(bugprone-branch-clone): it does not look inside loops of OpenMP */
  if (format == SY_FORMAT_MXFP4) {
#pragma omp simd
    for (int lane = 0; lane < SY_TILE; ++lane) {
      scales[lane] = sy_e8m0_to_f32(codes[lane]);
    }
  } else {
#pragma omp simd
    for (int lane = 0; lane < SY_TILE; ++lane) {
      scales[lane] = sy_e4m3_to_f32(codes[lane]);
    }
  }
}

/* An instruction set's own, where the compiler makes nothing good of this one. */
#if defined(SY_CPU_DOTS)
#include SY_CPU_DOTS
#else

static inline float decode_scale(sy_format format, uint8_t code) {
  return format == SY_FORMAT_MXFP4 ? sy_e8m0_to_f32(code) : sy_e4m3_to_f32(code);
}

/* sy_e2m1_doubled of every code. */
static const int8_t doubled[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

/* sum += dot of one block times its scales. */
static inline void add_block(sy_format format, const int32_t *dot, float x_scale,
                             const float *w_scale, float *sum) {
  /* NOLINTNEXTLINE(bugprone-branch-clone): it does not look inside loops of OpenMP */
  if (format == SY_FORMAT_MXFP4) {
#pragma omp simd
    for (int lane = 0; lane < SY_TILE; ++lane) {
      sum[lane] = fmaf((float)dot[lane], x_scale * w_scale[lane], sum[lane]);
    }
  } else {
#pragma omp simd
    for (int lane = 0; lane < SY_TILE; ++lane) {
      sum[lane] += (float)dot[lane] * (x_scale * w_scale[lane]);
    }
  }
}

static void dot_w4a4(sy_format format, const struct tile *tile, const struct operand *x, int rows,
                     int64_t begin, int64_t end, float (*sum)[SY_TILE]) {
  const int64_t per_scale = sy_scale_block(format) / SY_BLOCK;
  for (int64_t b = begin; b < end; ++b) {
    struct fp4_ints w;
    float w_scale[SY_TILE];
    decode_fp4(tile->data + b * SY_FP4_CODE_BYTES, &w);
    decode_scales(format, tile->scales + b / per_scale * SY_FP4_SCALE_BYTES, w_scale);
    for (int r = 0; r < rows; ++r) {
      const uint8_t *codes = x->data[r] + b * (SY_BLOCK / 2);
      const float x_scale = decode_scale(format, x->scales[r][b / per_scale]);
      int32_t even[SY_BLOCK / 2];
      int32_t odd[SY_BLOCK / 2];
      for (int j = 0; j < SY_BLOCK / 2; ++j) {
        even[j] = doubled[codes[j] & 15u];
        odd[j] = doubled[codes[j] >> 4];
      }
      int32_t dot[SY_TILE] = {0};
      for (int j = 0; j < SY_BLOCK / 2; ++j) {
#pragma omp simd
        for (int lane = 0; lane < SY_TILE; ++lane) {
          dot[lane] += even[j] * w.even[j][lane];
        }
#pragma omp simd
        for (int lane = 0; lane < SY_TILE; ++lane) {
          dot[lane] += odd[j] * w.odd[j][lane];
        }
      }
      add_block(format, dot, x_scale, w_scale, sum[r]);
    }
  }
}

#endif

/* dot[lane] = fma chain over one block, columns ascending. */
static void dot_block(const uint8_t *x, const float (*w)[SY_TILE], float *dot) {
  const uint16_t *values = (const uint16_t *)(const void *)x;
#pragma omp simd
  for (int lane = 0; lane < SY_TILE; ++lane) {
    dot[lane] = 0.0f;
  }
  for (int k = 0; k < SY_BLOCK; ++k) {
    const float xk = sy_bf16_to_f32(values[k]);
#pragma omp simd
    for (int lane = 0; lane < SY_TILE; ++lane) {
      dot[lane] = fmaf(xk, w[k][lane], dot[lane]);
    }
  }
}

static void dot_w4a16(sy_format format, const struct tile *tile, const struct operand *x, int rows,
                      int64_t begin, int64_t end, float (*sum)[SY_TILE]) {
  const int64_t per_scale = sy_scale_block(format) / SY_BLOCK;
  for (int64_t b = begin; b < end; ++b) {
    float w[SY_BLOCK][SY_TILE];
    float w_scale[SY_TILE];
    float dot[SY_TILE];
    decode_fp4_floats(tile->data + b * SY_FP4_CODE_BYTES, w);
    decode_scales(format, tile->scales + b / per_scale * SY_FP4_SCALE_BYTES, w_scale);
    for (int r = 0; r < rows; ++r) {
      dot_block(x->data[r] + b * SY_BLOCK * 2, (const float(*)[SY_TILE])w, dot);
#pragma omp simd
      for (int lane = 0; lane < SY_TILE; ++lane) {
        sum[r][lane] = fmaf(dot[lane], w_scale[lane], sum[r][lane]);
      }
    }
  }
}

static void dot_bf16(const struct tile *tile, const struct operand *x, int rows, int64_t begin,
                     int64_t end, float (*sum)[SY_TILE]) {
  for (int64_t b = begin; b < end; ++b) {
    float w[SY_BLOCK][SY_TILE];
    float dot[SY_TILE];
    decode_bf16(tile->data + b * SY_BF16_BLOCK_BYTES, w);
    for (int r = 0; r < rows; ++r) {
      dot_block(x->data[r] + b * SY_BLOCK * 2, (const float(*)[SY_TILE])w, dot);
#pragma omp simd
      for (int lane = 0; lane < SY_TILE; ++lane) {
        sum[r][lane] += dot[lane];
      }
    }
  }
}

static void dot(const struct sy_stage_env *env, const struct tile *tile, const struct operand *x,
                int rows, int64_t begin, int64_t end, float (*sum)[SY_TILE]) {
  memset(sum, 0, (size_t)rows * sizeof sum[0]);
  switch (env->mode) {
  case SY_MODE_W4A4:
    dot_w4a4(env->format, tile, x, rows, begin, end, sum);
    break;
  case SY_MODE_W4A16:
    dot_w4a16(env->format, tile, x, rows, begin, end, sum);
    break;
  case SY_MODE_BF16:
    dot_bf16(tile, x, rows, begin, end, sum);
    break;
  }
}

/* ---- FC1 ---- */

static struct operand received_operand(const struct expert *e, int32_t first, int rows) {
  struct operand x;
  for (int r = 0; r < rows; ++r) {
    x.data[r] = source_row(e, first + r);
    x.scales[r] = x.data[r] + e->env->wire_row.scales;
  }
  return x;
}

/* out[row][column of the slice] = FC1 sums of one projection, global scales and bias applied. */
static void fc1_projection(const struct expert *e, enum sy_projection p, int64_t column,
                           int columns, const struct operand *x, int32_t first, int rows,
                           float (*out)[SLICE]) {
  const int64_t blocks = e->env->hidden / SY_BLOCK;
  const float sum_scale = e->env->mode == SY_MODE_W4A4 ? 0.25f : 1.0f;
  for (int c = 0; c < columns; c += SY_TILE) {
    const struct tile tile = tile_at(e, p, column + c);
    float sum[ROWS][SY_TILE];
    dot(e->env, &tile, x, rows, 0, blocks, sum);
    for (int r = 0; r < rows; ++r) {
      const float scale =
          has_globals(e->env) ? source_global(e, first + r) * e->globals[p] : e->globals[p];
      for (int lane = 0; lane < SY_TILE; ++lane) {
        const float y = (sum_scale * sum[r][lane]) * scale;
        out[r][c + lane] = e->env->has_bias ? y + bias_of(e, p)[column + c + lane] : y;
      }
    }
  }
}

/* One slice of one row's intermediate: FP4 (NVFP4 with a global scale of its own), or BF16. */
static void store_intermediate(const struct expert *e, int64_t column, int columns,
                               int32_t routed_row, const float *values) {
  const struct intermediate row = intermediate_at(e, routed_row);
  if (e->env->mode == SY_MODE_W4A4) {
    uint8_t *codes = row.data + column / 2;
    uint8_t *scales = row.scales + column / sy_scale_block(e->env->format);
    if (row.globals == NULL) { /* MXFP4 */
      sy_mxfp4_quantise(values, columns, codes, scales);
    } else {
      row.globals[column / SLICE] = sy_nvfp4_quantise(values, columns, codes, scales);
    }
    return;
  }
  uint16_t *out = (uint16_t *)(void *)row.data + column;
  for (int c = 0; c < columns; ++c) {
    out[c] = sy_f32_to_bf16(values[c]);
  }
}

static void fc1_unit(const struct expert *e, int64_t slice) {
  const struct sy_stage_env *env = e->env;
  const int64_t column = slice * SLICE;
  const int columns = min_int(SLICE, env->intermediate - column);
  const bool gated = sy_is_gated(env->activation);
  float gate[ROWS][SLICE];
  float up[ROWS][SLICE];
  memset(gate, 0, sizeof gate);
  for (int32_t first = e->begin; first < e->end; first += ROWS) {
    const int rows = min_int(ROWS, e->end - first);
    const struct operand x = received_operand(e, first, rows);
    if (gated) {
      fc1_projection(e, SY_GATE, column, columns, &x, first, rows, gate);
    }
    fc1_projection(e, SY_UP, column, columns, &x, first, rows, up);
    for (int r = 0; r < rows; ++r) {
      store_trace(e, column, columns, first + r, gate[r], up[r]);
      float values[SLICE];
      for (int c = 0; c < columns; ++c) {
        values[c] = sy_activate(env->activation, gate[r][c], up[r][c], env->swiglu_alpha,
                                env->swiglu_limit);
      }
      store_intermediate(e, column, columns, first + r, values);
    }
  }
}

/* ---- FC2 ---- */

static struct operand intermediate_operand(const struct expert *e, int32_t first, int rows) {
  struct operand x;
  for (int r = 0; r < rows; ++r) {
    const struct intermediate row = intermediate_at(e, first + r);
    x.data[r] = row.data;
    x.scales[r] = row.scales;
  }
  return x;
}

/* NVFP4 w4a4: slices ascending, each with the global scale of its row. */
static void dot_slices(const struct expert *e, const struct tile *tile, const struct operand *x,
                       int32_t first, int rows, float (*total)[SY_TILE]) {
  const int64_t blocks = e->env->intermediate / SY_BLOCK;
  memset(total, 0, (size_t)rows * sizeof total[0]);
  for (int64_t begin = 0; begin < blocks; begin += SLICE_BLOCKS) {
    float sum[ROWS][SY_TILE];
    dot(e->env, tile, x, rows, begin, begin + min_int(SLICE_BLOCKS, blocks - begin), sum);
    for (int r = 0; r < rows; ++r) {
      const float global = intermediate_at(e, first + r).globals[begin / SLICE_BLOCKS];
      for (int lane = 0; lane < SY_TILE; ++lane) {
        total[r][lane] += sum[r][lane] * global;
      }
    }
  }
}

static void fc2_unit(const struct expert *e, int64_t slice) {
  const struct sy_stage_env *env = e->env;
  const int64_t column = slice * SLICE;
  const int columns = min_int(SLICE, env->hidden - column);
  const float sum_scale = env->mode == SY_MODE_W4A4 ? 0.25f : 1.0f;
  for (int32_t first = e->begin; first < e->end; first += ROWS) {
    const int rows = min_int(ROWS, e->end - first);
    const struct operand x = intermediate_operand(e, first, rows);
    for (int64_t c = column; c < column + columns; c += SY_TILE) {
      const struct tile tile = tile_at(e, SY_DOWN, c);
      float sum[ROWS][SY_TILE];
      if (has_globals(env)) {
        dot_slices(e, &tile, &x, first, rows, sum);
      } else {
        dot(env, &tile, &x, rows, 0, env->intermediate / SY_BLOCK, sum);
      }
      for (int r = 0; r < rows; ++r) {
        float *out = e->args->expert_out + (int64_t)(first + r) * env->hidden + c;
        for (int lane = 0; lane < SY_TILE; ++lane) {
          const float y = (sum_scale * sum[r][lane]) * e->globals[SY_DOWN];
          out[lane] = env->has_bias ? y + bias_of(e, SY_DOWN)[c + lane] : y;
        }
      }
    }
  }
}

/* ---- Entry ---- */

sy_status SY_CPU_ENTRY(experts)(const struct sy_stage_env *env,
                                const struct sy_experts_args *args) {
  const int64_t active = args->routed->num_active;
  const int64_t fc1_slices = (env->intermediate + SLICE - 1) / SLICE;
  const int64_t fc2_slices = (env->hidden + SLICE - 1) / SLICE;
#pragma omp parallel num_threads(env->num_threads) if (env->num_threads > 1)
  {
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < active * fc1_slices; ++unit) {
      const struct expert e = active_expert(env, args, unit / fc1_slices);
      fc1_unit(&e, unit % fc1_slices);
    }
#pragma omp for schedule(dynamic)
    for (int64_t unit = 0; unit < active * fc2_slices; ++unit) {
      const struct expert e = active_expert(env, args, unit / fc2_slices);
      fc2_unit(&e, unit % fc2_slices);
    }
  }
  return SY_OK;
}
