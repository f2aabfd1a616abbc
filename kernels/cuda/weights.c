/* Loading for the GPU: an expert that the CPU backend has quantised and prepacked, put in the order
 * of expert_layout.h. Codes and scales are moved, never computed again. */
#include "kernels/cuda/weights.h"

#include <string.h>

#include "kernels/cpu/expert_layout.h"
#include "kernels/cuda/expert_layout.h"

/* A projection in the CPU's layout: tiles of 16 rows, tile_stride bytes apart. */
struct source {
  const unsigned char *tiles;
  size_t tile_stride;
  int64_t columns;
  int64_t scale_block;
};

/* The weight row that is row r of an A tile. */
struct tile_row {
  const struct source *source;
  int64_t row;
};

static const unsigned char *tile_of(const struct tile_row *at) {
  return at->source->tiles + (size_t)(at->row / SY_TILE) * at->source->tile_stride;
}

/* The byte of columns k and k + 1, k even; zeros beyond the contraction. */
static unsigned char codes_at(const struct tile_row *at, int64_t k) {
  if (k >= at->source->columns) {
    return 0;
  }
  const int64_t offset = k / SY_BLOCK * SY_FP4_CODE_BYTES + k % SY_BLOCK / 2 * SY_TILE;
  return tile_of(at)[offset + at->row % SY_TILE];
}

static unsigned char scale_at(const struct tile_row *at, int64_t block) {
  const struct source *source = at->source;
  if (block >= source->columns / source->scale_block) {
    return 0;
  }
  const unsigned char *scales = tile_of(at) + source->columns / SY_BLOCK * SY_FP4_CODE_BYTES;
  return scales[block * SY_FP4_SCALE_BYTES + at->row % SY_TILE];
}

/* The bf16 values of columns k and k + 1; the contraction is a multiple of 16. */
static void copy_bf16_pair(const struct tile_row *at, int64_t k, unsigned char *out) {
  for (int64_t i = 0; i < 2; ++i) {
    const int64_t block = (k + i) / SY_BLOCK;
    const int64_t index = (k + i) % SY_BLOCK * SY_TILE + at->row % SY_TILE;
    memcpy(out + 2 * i, tile_of(at) + block * SY_BF16_BLOCK_BYTES + 2 * index, 2);
  }
}

/* Lane l of 32 holds, of register i, row l / 4 + 8 (i % 2), and of its half i / 2 of k the l % 4-th
 * four bytes. */
static void pack_fp4_record(const struct tile_row *rows, int64_t k, unsigned char *record) {
  const int64_t scale_block = rows[0].source->scale_block;
  const int64_t scales = SY_CUDA_FP4_STEP / scale_block;
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const struct tile_row *row = &rows[lane / 4 + 8 * (i % 2)];
      const int64_t first = k + 32 * (i / 2) + 8 * (lane % 4);
      for (int q = 0; q < 4; ++q) {
        record[lane * 16 + i * 4 + q] = codes_at(row, first + 2 * q);
      }
    }
  }
  for (int r = 0; r < SY_CUDA_TILE_ROWS; ++r) {
    for (int64_t b = 0; b < scales; ++b) {
      record[SY_CUDA_LANE_BYTES + scales * r + b] = scale_at(&rows[r], k / scale_block + b);
    }
  }
}

static void pack_bf16_record(const struct tile_row *rows, int64_t k, unsigned char *record) {
  for (int lane = 0; lane < 32; ++lane) {
    for (int i = 0; i < 4; ++i) {
      const struct tile_row *row = &rows[lane / 4 + 8 * (i % 2)];
      copy_bf16_pair(row, k + 8 * (i / 2) + 2 * (lane % 4), record + lane * 16 + i * 4);
    }
  }
}

static void pack_tile(const struct sy_stage_env *env, const struct tile_row *rows,
                      unsigned char *tile) {
  const int64_t columns = rows[0].source->columns;
  const int64_t step = env->mode == SY_MODE_BF16 ? SY_CUDA_BF16_STEP : SY_CUDA_FP4_STEP;
  unsigned char *record = tile;
  for (int64_t k = 0; k < columns; k += step) {
    if (env->mode == SY_MODE_BF16) {
      pack_bf16_record(rows, k, record);
    } else {
      pack_fp4_record(rows, k, record);
    }
    record += sy_cuda_record_bytes(env->mode, env->format);
  }
}

void sy_cuda_repack_expert(const struct sy_stage_env *env, const unsigned char *cpu_expert,
                           unsigned char *expert) {
  const struct sy_expert_layout from = sy_expert_layout_make(env);
  const struct sy_cuda_expert_layout to = sy_cuda_expert_layout_make(env);
  const size_t fc1_stride = (size_t)from.fc1_projections * from.fc1_tile_bytes;
  const bool gated = from.fc1_projections == 2;
  const int64_t block = sy_scale_block(env->format);
  const struct source first = {cpu_expert + from.fc1, fc1_stride, env->hidden, block};
  const struct source second = {first.tiles + from.fc1_tile_bytes, fc1_stride, env->hidden, block};
  const struct source down = {cpu_expert + from.fc2, from.fc2_tile_bytes, env->intermediate, block};
  struct tile_row rows[SY_CUDA_TILE_ROWS];
  memset(expert, 0, to.fc1);
  memcpy(expert, cpu_expert, SY_NUM_PROJECTIONS * sizeof(float));
  for (int p = 0; env->has_bias && p < SY_NUM_PROJECTIONS; ++p) {
    const int64_t count = p == SY_DOWN ? env->hidden : env->intermediate;
    memcpy(expert + to.bias[p], cpu_expert + from.bias[p], (size_t)count * sizeof(float));
  }
  for (int64_t column = 0; column < env->intermediate; column += to.fc1_columns) {
    for (int r = 0; r < SY_CUDA_TILE_ROWS; ++r) {
      rows[r].source = gated && r >= 8 ? &second : &first;
      rows[r].row = column + (gated ? r % 8 : r);
    }
    pack_tile(env, rows, expert + to.fc1 + (size_t)(column / to.fc1_columns) * to.fc1_tile_bytes);
  }
  for (int64_t row = 0; row < env->hidden; row += SY_CUDA_TILE_ROWS) {
    for (int r = 0; r < SY_CUDA_TILE_ROWS; ++r) {
      rows[r] = (struct tile_row){&down, row + r};
    }
    pack_tile(env, rows, expert + to.fc2 + (size_t)(row / SY_CUDA_TILE_ROWS) * to.fc2_tile_bytes);
  }
}
