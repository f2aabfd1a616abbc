/* One prepacked expert: one formula, used by load (weights.c) and by the kernels (experts.c).
 *
 *   | 3 global scales | biases | FC1 tiles: gate 0, up 0, gate 1, up 1, ... | FC2 tiles: 0, 1, ...
 * |
 *
 * A tile is SY_TILE output rows over the whole contraction, cut into blocks of 16 columns. A lane
 * is an output row. Tiles start at multiples of 64:
 *   FP4   | codes of block 0, 1, ... | scales of scale block 0, 1, ... |
 *         128 B of codes: byte [j][lane] has column 2j low, 2j + 1 high; 16 B of scales: [lane],
 *         for every block (NVFP4) or every two (MXFP4, whose global scales are 1)
 *   BF16  | block 0, 1, ... |: 16 x 16 values [column][lane], 512 B */
#ifndef SY_KERNELS_CPU_EXPERT_LAYOUT_H
#define SY_KERNELS_CPU_EXPERT_LAYOUT_H

#include "kernels/kernels.h"
#include "kernels/source.h"

#define SY_TILE 16
#define SY_BLOCK 16
#define SY_FP4_CODE_BYTES (SY_TILE * SY_BLOCK / 2)
#define SY_FP4_SCALE_BYTES SY_TILE
#define SY_BF16_BLOCK_BYTES (SY_TILE * SY_BLOCK * 2)

/* Byte offsets inside an expert. globals is at 0. */
struct sy_expert_layout {
  size_t bias[SY_NUM_PROJECTIONS];
  size_t fc1;
  size_t fc2;
  size_t fc1_tile_bytes;
  size_t fc2_tile_bytes;
  int32_t fc1_projections; /* 2, or 1 without a gate */
  size_t bytes;
};

static inline bool sy_is_gated(sy_activation activation) {
  return activation != SY_ACTIVATION_RELU2;
}

static inline size_t sy_tile_bytes(sy_mode mode, sy_format format, size_t columns) {
  const size_t blocks = columns / SY_BLOCK;
  const size_t scale_blocks = columns / (size_t)sy_scale_block(format);
  return sy_align_up(mode == SY_MODE_BF16
                         ? blocks * SY_BF16_BLOCK_BYTES
                         : blocks * SY_FP4_CODE_BYTES + scale_blocks * SY_FP4_SCALE_BYTES,
                     64);
}

/* Bounds: hidden, intermediate <= 2^20, so that every product fits in 64 bits. */
static inline struct sy_expert_layout sy_expert_layout_make(const struct sy_stage_env *env) {
  const size_t h = (size_t)env->hidden;
  const size_t i = (size_t)env->intermediate;
  struct sy_expert_layout layout;
  layout.fc1_projections = sy_is_gated(env->activation) ? 2 : 1;
  layout.bias[SY_GATE] = SY_NUM_PROJECTIONS * sizeof(float);
  layout.bias[SY_UP] = layout.bias[SY_GATE] + (env->has_bias ? i * sizeof(float) : 0);
  layout.bias[SY_DOWN] = layout.bias[SY_UP] + (env->has_bias ? i * sizeof(float) : 0);
  layout.fc1 = sy_align_up(layout.bias[SY_DOWN] + (env->has_bias ? h * sizeof(float) : 0), 64);
  layout.fc1_tile_bytes = sy_tile_bytes(env->mode, env->format, h);
  layout.fc2_tile_bytes = sy_tile_bytes(env->mode, env->format, i);
  const size_t fc1_tiles = i / SY_TILE * (size_t)layout.fc1_projections;
  layout.fc2 = sy_align_up(layout.fc1 + fc1_tiles * layout.fc1_tile_bytes, 64);
  layout.bytes = sy_align_up(layout.fc2 + h / SY_TILE * layout.fc2_tile_bytes, 64);
  return layout;
}

#endif
