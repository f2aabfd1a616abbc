/* Where an expert's weights come from. load_expert asks for panels, from several threads at once, so
 * that nobody ever holds a second copy of an expert: weights in the caller's memory (below), or in a
 * checkpoint's files (runtime/checkpoint/). */
#ifndef SY_KERNELS_SOURCE_H
#define SY_KERNELS_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "runtime/switchyard.h"

#ifdef __cplusplus
extern "C" {
#endif

enum sy_projection { SY_GATE = 0, SY_UP = 1, SY_DOWN = 2, SY_NUM_PROJECTIONS = 3 };

/* A panel has at most as many rows, from a multiple of it on, and columns, from a multiple of it on. */
#define SY_PANEL_ROWS 16
#define SY_PANEL_COLUMNS 4096

/* Rows and columns that share an f32 scale of FP8 weights. */
#define SY_F8_BLOCK 128

struct sy_panel {
  enum sy_projection projection;
  int64_t row, num_rows;
  int64_t column, num_columns;
};

struct sy_source {
  /* f32 [num_rows, num_columns]. Never ARGUMENT, which load_expert says of the values themselves. */
  sy_status (*read_values)(const struct sy_source *source, const struct sy_panel *panel,
                           float *values);
  /* NULL, or the weights are FP4 already, in the layer's format, and taken as they are: codes
   * [num_rows, num_columns / 2], scales [num_rows, num_columns / scale block]. */
  sy_status (*read_codes)(const struct sy_source *source, const struct sy_panel *panel,
                          uint8_t *codes, uint8_t *scales);
  float global[SY_NUM_PROJECTIONS]; /* with read_codes, of NVFP4 */
  const float *bias[SY_NUM_PROJECTIONS];
};

/* sy_expert_weights as a source. Both must outlive it. */
struct sy_memory_source {
  struct sy_source base;
  const sy_expert_weights *weights;
  int64_t columns[SY_NUM_PROJECTIONS];
};

void sy_memory_source_make(const sy_expert_weights *weights, int64_t hidden, int64_t intermediate,
                           struct sy_memory_source *source_out);

static inline bool sy_dtype_is_fp4(sy_dtype dtype) {
  return dtype == SY_DTYPE_NVFP4 || dtype == SY_DTYPE_MXFP4;
}

/* Bytes of n values in a row: n is even. */
size_t sy_dtype_row_bytes(sy_dtype dtype, int64_t n);

/* Columns [column, column + n) of a row, not FP4, at any address -> f32. scales: of FP8, those of the
 * row's blocks from column 0 on, at any address. */
void sy_row_to_f32(sy_dtype dtype, const void *row, const void *scales, int64_t column, int64_t n,
                   float *values);

#ifdef __cplusplus
}
#endif

#endif
