/* Loading: one expert's weights, quantised as the mode asks and prepacked in the layout of
 * expert_layout.h. */
#include <math.h>

#include "kernels/cpu/cpu.h"
#include "kernels/cpu/expert_layout.h"
#include "kernels/fp4.h"

/* A projection [rows, columns], row-major, as the caller gave it. */
struct matrix {
  const char *name;
  const void *data;
  sy_dtype dtype;
  int64_t rows;
  int64_t columns;
};

static float at(const struct matrix *m, int64_t row, int64_t column) {
  const int64_t i = row * m->columns + column;
  return m->dtype == SY_DTYPE_F32 ? ((const float *)m->data)[i]
                                  : sy_bf16_to_f32(((const uint16_t *)m->data)[i]);
}

/* A value is bad if it is not finite, or becomes infinite when it is stored as BF16. */
static sy_status find_amax(const struct matrix *m, bool bf16, float *amax_out,
                           struct sy_bad_weight *bad) {
  float amax = 0.0f;
  for (int64_t r = 0; r < m->rows; ++r) {
    for (int64_t c = 0; c < m->columns; ++c) {
      const float x = at(m, r, c);
      if (!sy_is_finite(bf16 ? sy_bf16_to_f32(sy_f32_to_bf16(x)) : x)) {
        *bad = (struct sy_bad_weight){m->name, r, c, x};
        return SY_ERR_ARGUMENT;
      }
      amax = fabsf(x) > amax ? fabsf(x) : amax;
    }
  }
  *amax_out = amax;
  return SY_OK;
}

/* 16 rows x the columns of one scale, from (row, column) on -> codes of one or two blocks, and their
 * scales. */
static void pack_fp4_block(sy_format format, const struct matrix *m, int64_t row, int64_t column,
                           float global, unsigned char *codes, unsigned char *scales) {
  const int columns = (int)sy_scale_block(format);
  for (int lane = 0; lane < SY_TILE; ++lane) {
    float x[SY_MXFP4_BLOCK];
    uint8_t pairs[SY_MXFP4_BLOCK / 2];
    for (int k = 0; k < columns; ++k) {
      x[k] = at(m, row + lane, column + k);
    }
    if (format == SY_FORMAT_MXFP4) {
      sy_mxfp4_quantise_block(x, pairs, &scales[lane]);
    } else {
      sy_nvfp4_quantise_block(x, global, pairs, &scales[lane]);
    }
    for (int j = 0; j < columns / 2; ++j) {
      codes[j * SY_TILE + lane] = pairs[j];
    }
  }
}

static void pack_bf16_block(const struct matrix *m, int64_t row, int64_t column,
                            unsigned char *block) {
  uint16_t *out = (uint16_t *)(void *)block;
  for (int k = 0; k < SY_BLOCK; ++k) {
    for (int lane = 0; lane < SY_TILE; ++lane) {
      out[k * SY_TILE + lane] = sy_f32_to_bf16(at(m, row + lane, column + k));
    }
  }
}

/* Tiles of one projection, tile_stride bytes apart; returns its global scale. */
static sy_status pack_projection(const struct sy_stage_env *env, const struct matrix *m,
                                 unsigned char *tiles, size_t tile_stride, float *global_out,
                                 struct sy_bad_weight *bad) {
  float amax;
  const bool bf16 = env->mode == SY_MODE_BF16;
  const sy_status status = find_amax(m, bf16, &amax, bad);
  if (status != SY_OK) {
    return status;
  }
  const float global = bf16 || env->format == SY_FORMAT_MXFP4 ? 1.0f : sy_nvfp4_global(amax);
  const int64_t step = bf16 ? SY_BLOCK : sy_scale_block(env->format);
  for (int64_t row = 0; row < m->rows; row += SY_TILE) {
    unsigned char *tile = tiles + (size_t)(row / SY_TILE) * tile_stride;
    unsigned char *scales = tile + m->columns / SY_BLOCK * SY_FP4_CODE_BYTES;
    for (int64_t column = 0; column < m->columns; column += step) {
      if (bf16) {
        pack_bf16_block(m, row, column, tile + column / SY_BLOCK * SY_BF16_BLOCK_BYTES);
      } else {
        pack_fp4_block(env->format, m, row, column, global,
                       tile + column / SY_BLOCK * SY_FP4_CODE_BYTES,
                       scales + column / step * SY_FP4_SCALE_BYTES);
      }
    }
  }
  *global_out = global;
  return SY_OK;
}

static sy_status copy_bias(const float *bias, int64_t count, const char *name, float *out,
                           struct sy_bad_weight *bad) {
  for (int64_t i = 0; i < count; ++i) {
    if (!sy_is_finite(bias[i])) {
      *bad = (struct sy_bad_weight){name, i, 0, bias[i]};
      return SY_ERR_ARGUMENT;
    }
    out[i] = bias[i];
  }
  return SY_OK;
}

static sy_status copy_biases(const struct sy_stage_env *env, const struct sy_expert_layout *layout,
                             const sy_expert_weights *weights, unsigned char *expert,
                             struct sy_bad_weight *bad) {
  const float *bias[] = {weights->gate_bias, weights->up_bias, weights->down_bias};
  static const char *const names[] = {"gate_bias", "up_bias", "down_bias"};
  const int first = sy_is_gated(env->activation) ? SY_GATE : SY_UP;
  for (int p = first; env->has_bias && p < SY_NUM_PROJECTIONS; ++p) {
    const int64_t count = p == SY_DOWN ? env->hidden : env->intermediate;
    const sy_status status =
        copy_bias(bias[p], count, names[p], (float *)(void *)(expert + layout->bias[p]), bad);
    if (status != SY_OK) {
      return status;
    }
  }
  return SY_OK;
}

size_t sy_cpu_expert_bytes(const struct sy_stage_env *env) {
  return sy_expert_layout_make(env).bytes;
}

sy_status sy_cpu_load_expert(const struct sy_stage_env *env, const sy_expert_weights *weights,
                             unsigned char *expert, struct sy_bad_weight *bad) {
  const struct sy_expert_layout layout = sy_expert_layout_make(env);
  float *globals = (float *)(void *)expert;
  const int64_t h = env->hidden;
  const int64_t i = env->intermediate;
  const bool gated = sy_is_gated(env->activation);
  const size_t fc1_stride = (size_t)layout.fc1_projections * layout.fc1_tile_bytes;
  const struct matrix gate = {"gate", weights->gate, weights->dtype, i, h};
  const struct matrix up = {"up", weights->up, weights->dtype, i, h};
  const struct matrix down = {"down", weights->down, weights->dtype, h, i};
  unsigned char *fc1 = expert + layout.fc1;
  sy_status status = SY_OK;
  globals[SY_GATE] = 1.0f;
  if (gated) {
    status = pack_projection(env, &gate, fc1, fc1_stride, &globals[SY_GATE], bad);
    fc1 += layout.fc1_tile_bytes;
  }
  if (status == SY_OK) {
    status = pack_projection(env, &up, fc1, fc1_stride, &globals[SY_UP], bad);
  }
  if (status == SY_OK) {
    status = pack_projection(env, &down, expert + layout.fc2, layout.fc2_tile_bytes,
                             &globals[SY_DOWN], bad);
  }
  return status == SY_OK ? copy_biases(env, &layout, weights, expert, bad) : status;
}
