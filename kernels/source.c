#include "kernels/source.h"

#include <string.h>

#include "kernels/fp4.h"
#include "kernels/wire.h"

size_t sy_dtype_row_bytes(sy_dtype dtype, int64_t n) {
  switch (dtype) {
  case SY_DTYPE_F32:
    return (size_t)n * 4;
  case SY_DTYPE_BF16:
  case SY_DTYPE_F16:
    return (size_t)n * 2;
  case SY_DTYPE_F8_E4M3:
    return (size_t)n;
  case SY_DTYPE_NVFP4:
  case SY_DTYPE_MXFP4:
    return (size_t)n / 2;
  }
  return 0;
}

static float load_f32(const void *data, int64_t i) {
  float x;
  memcpy(&x, (const char *)data + i * 4, sizeof x);
  return x;
}

static uint16_t load_u16(const void *data, int64_t i) {
  uint16_t x;
  memcpy(&x, (const char *)data + i * 2, sizeof x);
  return x;
}

/* A block's values times its scale; the product is rounded once, to f32. */
static void f8_to_f32(const uint8_t *codes, const void *scales, int64_t column, int64_t n,
                      float *values) {
  for (int64_t i = 0; i < n; ++i) {
    const float scale = load_f32(scales, (column + i) / SY_F8_BLOCK);
    const float magnitude = sy_e4m3_to_f32(codes[i]) * scale;
    values[i] = (codes[i] & 0x80u) != 0u ? -magnitude : magnitude;
  }
}

void sy_row_to_f32(sy_dtype dtype, const void *row, const void *scales, int64_t column, int64_t n,
                   float *values) {
  const unsigned char *data = (const unsigned char *)row + sy_dtype_row_bytes(dtype, column);
  if (dtype == SY_DTYPE_F32) {
    memcpy(values, data, (size_t)n * sizeof *values);
  } else if (dtype == SY_DTYPE_BF16) {
    for (int64_t i = 0; i < n; ++i) {
      values[i] = sy_bf16_to_f32(load_u16(data, i));
    }
  } else if (dtype == SY_DTYPE_F16) {
    for (int64_t i = 0; i < n; ++i) {
      values[i] = sy_f16_to_f32(load_u16(data, i));
    }
  } else if (scales != NULL) {
    f8_to_f32(data, scales, column, n, values);
  }
}

/* ---- Weights in the caller's memory ---- */

struct matrix {
  const unsigned char *data;
  const unsigned char *scales;
  int64_t columns;
};

static struct matrix matrix_of(const struct sy_memory_source *source, enum sy_projection p) {
  const sy_expert_weights *w = source->weights;
  const void *data[] = {w->gate, w->up, w->down};
  const void *scales[] = {w->gate_scales, w->up_scales, w->down_scales};
  return (struct matrix){data[p], scales[p], source->columns[p]};
}

static sy_status read_values(const struct sy_source *source, const struct sy_panel *panel,
                             float *values) {
  const struct sy_memory_source *memory = (const struct sy_memory_source *)source;
  const struct matrix m = matrix_of(memory, panel->projection);
  const sy_dtype dtype = memory->weights->dtype;
  const size_t row_bytes = sy_dtype_row_bytes(dtype, m.columns);
  const size_t scale_row_bytes =
      (size_t)(m.columns + SY_F8_BLOCK - 1) / SY_F8_BLOCK * sizeof(float);
  for (int64_t r = 0; r < panel->num_rows; ++r) {
    const size_t row = (size_t)(panel->row + r);
    const unsigned char *scales =
        m.scales == NULL ? NULL : m.scales + row / SY_F8_BLOCK * scale_row_bytes;
    sy_row_to_f32(dtype, m.data + row * row_bytes, scales, panel->column, panel->num_columns,
                  values + r * panel->num_columns);
  }
  return SY_OK;
}

static sy_status read_codes(const struct sy_source *source, const struct sy_panel *panel,
                            uint8_t *codes, uint8_t *scales) {
  const struct sy_memory_source *memory = (const struct sy_memory_source *)source;
  const struct matrix m = matrix_of(memory, panel->projection);
  const int64_t block = memory->weights->dtype == SY_DTYPE_MXFP4 ? SY_MXFP4_BLOCK : SY_NVFP4_BLOCK;
  for (int64_t r = 0; r < panel->num_rows; ++r) {
    const int64_t first = (panel->row + r) * m.columns + panel->column;
    memcpy(codes + r * panel->num_columns / 2, m.data + first / 2, (size_t)panel->num_columns / 2);
    memcpy(scales + r * panel->num_columns / block, m.scales + first / block,
           (size_t)(panel->num_columns / block));
  }
  return SY_OK;
}

void sy_memory_source_make(const sy_expert_weights *weights, int64_t hidden, int64_t intermediate,
                           struct sy_memory_source *source_out) {
  *source_out = (struct sy_memory_source){
      .base = {.read_values = read_values,
               .read_codes = sy_dtype_is_fp4(weights->dtype) ? read_codes : NULL,
               .global = {weights->gate_global, weights->up_global, weights->down_global},
               .bias = {weights->gate_bias, weights->up_bias, weights->down_bias}},
      .weights = weights,
      .columns = {hidden, hidden, intermediate}};
}
