/* The experts stage for AVX-512 with VNNI and VBMI, and once more with BF16: the sums of experts.c,
 * in the same order, bit for bit; with numerics = fastest BF16 rows take the order of avx512_dots.h.
 *
 * A unit of work is one active expert x 128 columns of the intermediate (FC1: gate and up together)
 * or 256 columns of the result (FC2): weights that lie together in memory. Up to GROUP routed rows
 * share one decoding of a weight block: with one row the kernel streams weights at the speed of
 * memory (micro), with many it is bound by vpdpbusd or fma (grouped). A unit is cut into slices of
 * the contraction, for which the rows are decoded once into the second-level cache: the fewer the
 * rows, the longer the slices, so that weights come in long runs.
 *
 * A thread claims a unit before it begins the one before, so that it can ask memory for its weights
 * in time; weights are asked for one pair of tiles ahead. */
#include "kernels/cpu/activation.h"
#include "kernels/cpu/avx512_dots.h"
#include "kernels/cpu/avx512_quantise.h"
#include "kernels/cpu/cpu.h"

#define FC1_COLUMNS SY_INTERMEDIATE_SLICE /* what shares a global scale is quantised at once */
#define FC2_COLUMNS 256
#define UNIT_TILES 16 /* of either */

/* One unit of work. */
struct unit {
  struct expert e;
  bool fc2;
  int64_t column; /* of the output */
  int columns;
};

/* ---- Contracting ---- */

static const uint8_t *unit_weights(const struct unit *u) {
  const bool gated = sy_is_gated(u->e.env->activation);
  return tile_at(&u->e, u->fc2 ? SY_DOWN : gated ? SY_GATE : SY_UP, u->column).data;
}

static int unit_tiles(const struct unit *u) {
  return u->columns / SY_TILE * (u->fc2 ? 1 : u->e.layout.fc1_projections);
}

/* Row r of the contraction's input: codes or values, and scales (FP4). */
struct input_row {
  const uint8_t *data;
  const uint8_t *scales;
};

static struct input_row input_row(const struct unit *u, int32_t routed_row) {
  if (u->fc2) {
    const struct intermediate row = intermediate_at(&u->e, routed_row);
    return (struct input_row){row.data, row.scales};
  }
  const uint8_t *row = source_row(&u->e, routed_row);
  return (struct input_row){row, row + u->e.env->wire_row.scales};
}

/* Rows [first, first + rows), blocks [begin, begin + x->blocks). */
static void decode_rows(const struct unit *u, enum dot_kind kind, int32_t first, int rows,
                        int64_t begin, struct operand *x) {
  const sy_format format = u->e.env->format;
  const int64_t per_scale = sy_scale_block(format) / SY_BLOCK;
  for (int group = 0; group * GROUP < rows; ++group) {
    const struct row_group g = group_of(rows, group);
    for (int r = 0; r < g.rows; ++r) {
      const struct input_row row = input_row(u, first + g.first + r);
      if (kind == DOT_W4A4) {
        decode_fp4_row(format, row.data + begin * (SY_BLOCK / 2), row.scales + begin / per_scale, x,
                       g, r);
      } else if (kind == DOT_W4A16 || kind == DOT_BF16) {
        decode_f32_row(row.data + begin * SY_BLOCK * 2, x, g, r);
      } else {
        decode_pair_row(kind == DOT_W4A16_PAIRS, row.data + begin * SY_BLOCK * 2, x, g, r);
      }
    }
  }
}

/* The slices' global scales that begin at block `begin`. */
static void gather_globals(const struct unit *u, int32_t first, int rows, int64_t begin,
                           struct operand *x) {
  const int slices = (x->blocks + SLICE_BLOCKS - 1) / SLICE_BLOCKS;
  for (int group = 0; group * GROUP < rows; ++group) {
    const struct row_group g = group_of(rows, group);
    float *globals = group_globals(x, g);
    for (int r = 0; r < g.rows; ++r) {
      const float *of_row =
          intermediate_at(&u->e, first + g.first + r).globals + begin / SLICE_BLOCKS;
      for (int s = 0; s < slices; ++s) {
        globals[s * g.rows + r] = of_row[s];
      }
    }
  }
}

/* sums[tile][row] of the unit over one slice. ahead: the weights that are wanted next. */
static void dot_slice(const struct unit *u, enum dot_kind kind, int rows, int64_t begin,
                      struct operand *x, const uint8_t *ahead, row_sums *sums) {
  const struct expert *e = &u->e;
  const bool fp4 = e->env->mode != SY_MODE_BF16;
  const int64_t blocks = (u->fc2 ? e->env->intermediate : e->env->hidden) / SY_BLOCK;
  const int64_t per_scale = sy_scale_block(e->env->format) / SY_BLOCK;
  const size_t codes = fp4 ? SY_FP4_CODE_BYTES : SY_BF16_BLOCK_BYTES;
  const size_t stride = u->fc2 ? e->layout.fc2_tile_bytes : e->layout.fc1_tile_bytes;
  const uint8_t *tile = unit_weights(u) + (size_t)begin * codes;
  const int tiles = unit_tiles(u);
  for (int t = 0; t < tiles; t += tiles_at_once(kind)) {
    const int taken = min_int(tiles_at_once(kind), tiles - t);
    const bool last = t + taken == tiles;
    struct dot_args a = {.tile = tile + (size_t)t * stride,
                         .tile_bytes = stride,
                         .scales = (size_t)(blocks - begin) * codes +
                                   (size_t)(begin / per_scale) * SY_FP4_SCALE_BYTES,
                         .ahead = last ? ahead : tile + (size_t)(t + taken) * stride,
                         .ahead_bytes = (size_t)taken * stride / (size_t)blocks,
                         .blocks = x->blocks,
                         .mxfp4 = e->env->format == SY_FORMAT_MXFP4};
    for (int group = 0; group * GROUP < rows; ++group) {
      const struct row_group g = group_of(rows, group);
      a.x = group_data(x, g);
      a.globals = u->fc2 && has_globals(e->env) ? group_globals(x, g) : NULL;
      a.sums = (row_sums *)(void *)(sums[t] + g.first);
      if (kind == DOT_W4A4) {
        w4a4_dots[taken - 1][g.rows - 1](&a);
      } else {
        one_tile_dots[kind][g.rows - 1](&a);
      }
      a.ahead_bytes = 0; /* asked for once */
    }
  }
}

/* sums[tile][row] of a unit for a block of rows. */
static void contract(const struct unit *u, int32_t first, int rows, const uint8_t *ahead,
                     row_sums *sums) {
  const struct sy_stage_env *env = u->e.env;
  const enum dot_kind kind = dot_kind_of(env);
  const int64_t blocks = (u->fc2 ? env->intermediate : env->hidden) / SY_BLOCK;
  struct operand x;
  x.entry = entry_bytes(kind);
  for (int t = 0; t < unit_tiles(u); ++t) {
    memset(sums[t], 0, (size_t)rows * sizeof sums[t][0]);
  }
  for (int64_t begin = 0; begin < blocks; begin += x.blocks) {
    x.blocks = operand_blocks(x.entry, rows, blocks - begin);
    decode_rows(u, kind, first, rows, begin, &x);
    if (u->fc2 && has_globals(env)) {
      gather_globals(u, first, rows, begin, &x);
    }
    dot_slice(u, kind, rows, begin, &x, ahead, sums);
  }
}

/* ---- FC1 ---- */

/* y = (sum * quarter) * scale + bias, for one vector. */
static __m512 finish(const struct expert *e, enum sy_projection p, int64_t column, float scale,
                     const float *sum) {
  const float quarter = e->env->mode == SY_MODE_W4A4 ? 0.25f : 1.0f; /* of doubled codes */
  const __m512 whole = _mm512_mul_ps(_mm512_set1_ps(quarter), _mm512_loadu_ps(sum));
  const __m512 y = _mm512_mul_ps(whole, _mm512_set1_ps(scale));
  return e->env->has_bias ? _mm512_add_ps(y, _mm512_loadu_ps(bias_of(e, p) + column)) : y;
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

/* sy_nvfp4_quantise and sy_mxfp4_quantise of one slice of a row. */
static float quantise_nvfp4(const float *values, int columns, uint8_t *codes, uint8_t *scales) {
  const float amax = sy_avx512_amax(values, columns);
  if (!sy_is_finite(amax)) {
    memset(codes, 0, (size_t)columns / 2);
    memset(scales, 0, (size_t)columns / SY_NVFP4_BLOCK);
    return sy_f32_of_bits(0x7FC00000u);
  }
  const float global = sy_nvfp4_global(amax);
  sy_avx512_nvfp4(values, columns, global, codes, scales);
  return global;
}

static void quantise_mxfp4(const float *values, int columns, uint8_t *codes, uint8_t *scales) {
  if (!sy_is_finite(sy_avx512_amax(values, columns))) {
    memset(codes, 0, (size_t)columns / 2);
    memset(scales, SY_E8M0_NAN, (size_t)columns / SY_MXFP4_BLOCK);
    return;
  }
  sy_avx512_mxfp4(values, columns, codes, scales);
}

static void store_intermediate(const struct expert *e, int64_t column, int columns,
                               int32_t routed_row, const float *values) {
  const struct intermediate row = intermediate_at(e, routed_row);
  if (e->env->mode != SY_MODE_W4A4) {
    uint16_t *out = (uint16_t *)(void *)row.data + column;
#pragma omp simd
    for (int c = 0; c < columns; ++c) {
      out[c] = sy_f32_to_bf16(values[c]);
    }
    return;
  }
  uint8_t *codes = row.data + column / 2;
  uint8_t *scales = row.scales + column / sy_scale_block(e->env->format);
  if (e->env->format == SY_FORMAT_MXFP4) {
    quantise_mxfp4(values, columns, codes, scales);
  } else {
    row.globals[column / FC1_COLUMNS] = quantise_nvfp4(values, columns, codes, scales);
  }
}

static void finish_fc1(const struct unit *u, int32_t first, int rows, row_sums *sums) {
  const struct expert *e = &u->e;
  const struct sy_stage_env *env = e->env;
  const int per_column = e->layout.fc1_projections;
  for (int r = 0; r < rows; ++r) {
    const float row_global = has_globals(env) ? source_global(e, first + r) : 1.0f;
    float gate[FC1_COLUMNS];
    float up[FC1_COLUMNS];
    float values[FC1_COLUMNS];
    for (int c = 0; c < u->columns; c += SY_TILE) {
      const int t = c / SY_TILE * per_column;
      const enum sy_projection p = per_column == 2 ? SY_GATE : SY_UP;
      const int64_t column = u->column + c;
      _mm512_storeu_ps(gate + c, finish(e, p, column, row_global * e->globals[p], sums[t][r]));
      _mm512_storeu_ps(up + c, finish(e, SY_UP, column, row_global * e->globals[SY_UP],
                                      sums[t + per_column - 1][r]));
    }
    store_trace(e, u->column, u->columns, first + r, gate, up);
    activate(env, u->columns, gate, up, values);
    store_intermediate(e, u->column, u->columns, first + r, values);
  }
}

/* ---- FC2's result ---- */

static void finish_fc2(const struct unit *u, int32_t first, int rows, row_sums *sums) {
  const struct expert *e = &u->e;
  for (int r = 0; r < rows; ++r) {
    float *out = e->args->expert_out + (int64_t)(first + r) * e->env->hidden + u->column;
    for (int c = 0; c < u->columns; c += SY_TILE) {
      _mm512_storeu_ps(
          out + c, finish(e, SY_DOWN, u->column + c, e->globals[SY_DOWN], sums[c / SY_TILE][r]));
    }
  }
}

/* ---- Entry ---- */

/* All units, FC1's first. */
struct work {
  const struct sy_stage_env *env;
  const struct sy_experts_args *args;
  int64_t fc1_units; /* of an expert */
  int64_t fc2_units;
  int64_t num_fc1; /* of all */
  int64_t num_units;
  int64_t claimed;
};

static struct work all_work(const struct sy_stage_env *env, const struct sy_experts_args *args) {
  const int64_t active = args->routed->num_active;
  struct work work = {.env = env, .args = args};
  work.fc1_units = (env->intermediate + FC1_COLUMNS - 1) / FC1_COLUMNS;
  work.fc2_units = (env->hidden + FC2_COLUMNS - 1) / FC2_COLUMNS;
  work.num_fc1 = active * work.fc1_units;
  work.num_units = work.num_fc1 + active * work.fc2_units;
  return work;
}

static int64_t claim(struct work *work) {
  int64_t mine;
#pragma omp atomic capture
  mine = work->claimed++;
  return mine;
}

static struct unit unit_at(const struct work *work, int64_t index) {
  const bool fc2 = index >= work->num_fc1;
  const int64_t within = fc2 ? index - work->num_fc1 : index;
  const int64_t per_expert = fc2 ? work->fc2_units : work->fc1_units;
  const int64_t width = fc2 ? work->env->hidden : work->env->intermediate;
  const int64_t column = within % per_expert * (fc2 ? FC2_COLUMNS : FC1_COLUMNS);
  return (struct unit){.e = active_expert(work->env, work->args, within / per_expert),
                       .fc2 = fc2,
                       .column = column,
                       .columns = min_int(fc2 ? FC2_COLUMNS : FC1_COLUMNS, width - column)};
}

static void run_unit(const struct unit *u, const uint8_t *ahead) {
  _Alignas(64) float sums[UNIT_TILES][ROWS][SY_TILE];
  for (int32_t first = u->e.begin; first < u->e.end; first += ROWS) {
    const int rows = min_int(ROWS, u->e.end - first);
    contract(u, first, rows, first + rows == u->e.end ? ahead : unit_weights(u), sums);
    if (u->fc2) {
      finish_fc2(u, first, rows, sums);
    } else {
      finish_fc1(u, first, rows, sums);
    }
  }
}

/* Runs units up to `end`, from `mine` on; returns the first one claimed beyond. */
static int64_t run_units(struct work *work, int64_t mine, int64_t end) {
  while (mine < end) {
    const int64_t next = claim(work);
    const struct unit u = unit_at(work, mine);
    const uint8_t *ahead = u.e.data; /* nothing more to come: what is asked for is here already */
    if (next < work->num_units) {
      const struct unit after = unit_at(work, next);
      ahead = unit_weights(&after);
    }
    run_unit(&u, ahead);
    mine = next;
  }
  return mine;
}

sy_status SY_CPU_ENTRY(experts)(const struct sy_stage_env *env,
                                const struct sy_experts_args *args) {
  struct work work = all_work(env, args);
#pragma omp parallel num_threads(env->num_threads) if (env->num_threads > 1)
  {
    const int64_t mine = run_units(&work, claim(&work), work.num_fc1);
#pragma omp barrier
    run_units(&work, mine, work.num_units);
  }
  return SY_OK;
}
