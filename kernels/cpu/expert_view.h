/* One active expert during the experts stage: its weights, its routed rows, and where they lie.
 * Shared by the specification (experts.c) and the SIMD kernels. */
#ifndef SY_KERNELS_CPU_EXPERT_VIEW_H
#define SY_KERNELS_CPU_EXPERT_VIEW_H

#include <string.h>

#include "kernels/cpu/expert_layout.h"
#include "kernels/fp4.h"

struct expert {
  const struct sy_stage_env *env;
  const struct sy_experts_args *args;
  struct sy_expert_layout layout;
  const uint8_t *data;
  const float *globals;
  int32_t begin, end; /* its routed rows */
};

/* SY_TILE output rows: codes or bf16 values, and scales (FP4). */
struct tile {
  const uint8_t *data;
  const uint8_t *scales;
};

static inline int min_int(int64_t a, int64_t b) { return (int)(a < b ? a : b); }

static inline struct expert active_expert(const struct sy_stage_env *env,
                                          const struct sy_experts_args *args, int64_t active) {
  const int32_t local = args->routed->active_expert[active];
  const uint8_t *data = args->weights + (size_t)local * args->expert_bytes;
  return (struct expert){.env = env,
                         .args = args,
                         .layout = sy_expert_layout_make(env),
                         .data = data,
                         .globals = (const float *)(const void *)data,
                         .begin = args->routed->expert_offset[local],
                         .end = args->routed->expert_offset[local + 1]};
}

static inline const float *bias_of(const struct expert *e, enum sy_projection p) {
  return (const float *)(const void *)(e->data + e->layout.bias[p]);
}

/* The tile whose first output row is `row` of a projection. */
static inline struct tile tile_at(const struct expert *e, enum sy_projection p, int64_t row) {
  const bool down = p == SY_DOWN;
  const int64_t columns = down ? e->env->intermediate : e->env->hidden;
  const int64_t per_row = down ? 1 : e->layout.fc1_projections;
  const int64_t index = row / SY_TILE * per_row + (per_row == 2 && p == SY_UP ? 1 : 0);
  const size_t stride = down ? e->layout.fc2_tile_bytes : e->layout.fc1_tile_bytes;
  const uint8_t *data = e->data + (down ? e->layout.fc2 : e->layout.fc1) + (size_t)index * stride;
  return (struct tile){data, data + columns / SY_BLOCK * SY_FP4_CODE_BYTES};
}

/* Whether rows and intermediates have global scales. */
static inline bool has_globals(const struct sy_stage_env *env) {
  return env->mode == SY_MODE_W4A4 && env->format == SY_FORMAT_NVFP4;
}

/* The received row behind a routed row, and its global scale (NVFP4). */
static inline const uint8_t *source_row(const struct expert *e, int32_t routed_row) {
  const struct sy_routed *routed = e->args->routed;
  return routed->received_row[routed->routed_source[routed_row]];
}

static inline float source_global(const struct expert *e, int32_t routed_row) {
  float global;
  memcpy(&global, source_row(e, routed_row) + e->env->wire_row.global, sizeof global);
  return global;
}

/* One routed row's intermediate: codes or bf16 values, scales and slices' global scales. */
struct intermediate {
  uint8_t *data;
  uint8_t *scales; /* w4a4 */
  float *globals;  /* w4a4 of NVFP4 */
};

static inline struct intermediate intermediate_at(const struct expert *e, int32_t routed_row) {
  const struct sy_stage_env *env = e->env;
  const struct sy_experts_args *args = e->args;
  const size_t row = (size_t)routed_row;
  const size_t columns = (size_t)env->intermediate;
  const size_t slices = (columns + SY_INTERMEDIATE_SLICE - 1) / SY_INTERMEDIATE_SLICE;
  const size_t row_bytes = sy_intermediate_row_bytes(env->mode, env->intermediate);
  const bool w4a4 = env->mode == SY_MODE_W4A4;
  const size_t block = (size_t)sy_scale_block(env->format);
  return (struct intermediate){
      .data = args->intermediate + row * row_bytes,
      .scales = w4a4 ? args->intermediate_scales + row * (columns / block) : NULL,
      .globals = has_globals(env) ? args->intermediate_global + row * slices : NULL};
}

/* Keeps FC1's sums of one slice of one row for the judge. */
static inline void store_trace(const struct expert *e, int64_t column, int columns,
                               int32_t routed_row, const float *gate, const float *up) {
  if (e->args->fc1_trace != NULL) {
    float *trace = e->args->fc1_trace + (int64_t)routed_row * 2 * e->env->intermediate + column;
    memcpy(trace, gate, (size_t)columns * sizeof *gate);
    memcpy(trace + e->env->intermediate, up, (size_t)columns * sizeof *up);
  }
}

#endif
