/* One prepacked expert on the GPU, in the order in which a lane reads it: one formula, for load
 * (weights.c) and for the kernels (experts.cu).
 *
 *   | 4 f32: global scales | biases | FC1 tiles | FC2 tiles |
 *
 * A tile is 16 weight rows (operand A of m16n8k64 and m16n8k16) over the whole contraction. FC1 with a
 * gate: 8 gate rows, then the 8 up rows of the same columns, so that a lane holds both of an element.
 * A tile is a row of records, one per step of k; k beyond the contraction is zero:
 *   FP4   k 64: 32 lanes x 16 B (a0 .. a3 of kernels/cuda/ptx/mma.cuh), then 16 rows x 4 scales
 *         (MXFP4: x 2)
 *   BF16  k 16: 32 lanes x 16 B */
#ifndef SY_KERNELS_CUDA_EXPERT_LAYOUT_H
#define SY_KERNELS_CUDA_EXPERT_LAYOUT_H

#include "kernels/kernels.h"

#define SY_CUDA_TILE_ROWS 16
#define SY_CUDA_FP4_STEP 64
#define SY_CUDA_BF16_STEP 16
#define SY_CUDA_LANE_BYTES 512 /* 32 lanes x 16 B */
#define SY_CUDA_NVFP4_RECORD (SY_CUDA_LANE_BYTES + SY_CUDA_TILE_ROWS * 4)
#define SY_CUDA_MXFP4_RECORD (SY_CUDA_LANE_BYTES + SY_CUDA_TILE_ROWS * 2)
#define SY_CUDA_BF16_RECORD SY_CUDA_LANE_BYTES

/* Byte offsets inside an expert; the global scales of gate, up and down are at 0. */
struct sy_cuda_expert_layout {
  size_t bias[3]; /* of gate, up, down */
  size_t fc1;
  size_t fc2;
  size_t fc1_tile_bytes;
  size_t fc2_tile_bytes;
  int32_t fc1_columns; /* intermediate columns of an FC1 tile: 8 with a gate, 16 without */
  size_t bytes;
};

static inline size_t sy_cuda_record_bytes(sy_mode mode, sy_format format) {
  return mode == SY_MODE_BF16        ? SY_CUDA_BF16_RECORD
         : format == SY_FORMAT_MXFP4 ? SY_CUDA_MXFP4_RECORD
                                     : SY_CUDA_NVFP4_RECORD;
}

static inline size_t sy_cuda_tile_bytes(const struct sy_stage_env *env, int64_t columns) {
  const size_t step = env->mode == SY_MODE_BF16 ? SY_CUDA_BF16_STEP : SY_CUDA_FP4_STEP;
  return ((size_t)columns + step - 1) / step * sy_cuda_record_bytes(env->mode, env->format);
}

static inline struct sy_cuda_expert_layout
sy_cuda_expert_layout_make(const struct sy_stage_env *env) {
  const size_t h = (size_t)env->hidden;
  const size_t i = (size_t)env->intermediate;
  const size_t bias_bytes = env->has_bias ? sizeof(float) : 0;
  struct sy_cuda_expert_layout layout;
  layout.fc1_columns = env->activation == SY_ACTIVATION_RELU2 ? 16 : 8;
  layout.bias[0] = 4 * sizeof(float);
  layout.bias[1] = layout.bias[0] + i * bias_bytes;
  layout.bias[2] = layout.bias[1] + i * bias_bytes;
  layout.fc1 = sy_align_up(layout.bias[2] + h * bias_bytes, 64);
  layout.fc1_tile_bytes = sy_cuda_tile_bytes(env, env->hidden);
  layout.fc2_tile_bytes = sy_cuda_tile_bytes(env, env->intermediate);
  layout.fc2 = layout.fc1 + i / (size_t)layout.fc1_columns * layout.fc1_tile_bytes;
  layout.bytes = sy_align_up(layout.fc2 + h / SY_CUDA_TILE_ROWS * layout.fc2_tile_bytes, 64);
  return layout;
}

#endif
