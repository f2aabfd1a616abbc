#include "runtime/checkpoint/expert_source.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "kernels/wire.h"
#include "runtime/checkpoint/file.h"
#include "runtime/memory.h"

static sy_status read_bytes(const struct sy_checkpoint_tensor *tensor, size_t offset, void *buffer,
                            size_t bytes) {
  return sy_safetensors_read(tensor->file, tensor->entry, offset, buffer, bytes);
}

/* Part [offset, offset + bytes) of each row of a panel, packed; rows of the tensor are row_bytes
 * long. Whole rows that lie together are read at once. */
static sy_status read_rows(const struct sy_checkpoint_tensor *tensor,
                           const struct sy_checkpoint_projection *p, const struct sy_panel *panel,
                           size_t row_bytes, size_t offset, size_t bytes, unsigned char *out) {
  const size_t first = (size_t)(p->first_row + panel->row * p->row_step);
  if (p->row_step == 1 && bytes == row_bytes) {
    return read_bytes(tensor, first * row_bytes, out, (size_t)panel->num_rows * row_bytes);
  }
  for (size_t r = 0; r < (size_t)panel->num_rows; ++r) {
    const size_t row = first + r * (size_t)p->row_step;
    SY_TRY(read_bytes(tensor, row * row_bytes + offset, out + r * bytes, bytes));
  }
  return SY_OK;
}

/* The FP8 scales of a panel's columns: its rows lie in one row of blocks. */
static sy_status read_block_scales(const struct sy_checkpoint_projection *p,
                                   const struct sy_panel *panel, float *scales) {
  const size_t blocks = (size_t)(p->columns + SY_F8_BLOCK - 1) / SY_F8_BLOCK;
  const size_t first = (size_t)(p->first_row + panel->row) / SY_F8_BLOCK * blocks +
                       (size_t)panel->column / SY_F8_BLOCK;
  const size_t count = (size_t)(panel->num_columns + SY_F8_BLOCK - 1) / SY_F8_BLOCK;
  return read_bytes(p->scales, first * sizeof *scales, scales, count * sizeof *scales);
}

static sy_status values_of(const struct sy_checkpoint_expert *expert, const struct sy_panel *panel,
                           float *values) {
  const struct sy_checkpoint_projection *p = &expert->projections[panel->projection];
  const sy_dtype dtype = expert->storage->dtype;
  unsigned char raw[sizeof(float) * SY_PANEL_ROWS * SY_PANEL_COLUMNS];
  float scales[SY_PANEL_COLUMNS / SY_F8_BLOCK];
  const size_t bytes = sy_dtype_row_bytes(dtype, panel->num_columns);
  if (p->scales != NULL) {
    SY_TRY(read_block_scales(p, panel, scales));
  }
  SY_TRY(read_rows(p->weight, p, panel, sy_dtype_row_bytes(dtype, p->columns),
                   sy_dtype_row_bytes(dtype, panel->column), bytes, raw));
  for (int64_t r = 0; r < panel->num_rows; ++r) {
    sy_row_to_f32(dtype, raw + (size_t)r * bytes, scales, 0, panel->num_columns,
                  values + r * panel->num_columns);
  }
  return SY_OK;
}

static sy_status codes_of(const struct sy_checkpoint_expert *expert, const struct sy_panel *panel,
                          uint8_t *codes, uint8_t *scales) {
  const struct sy_checkpoint_projection *p = &expert->projections[panel->projection];
  const int64_t block = expert->storage->dtype == SY_DTYPE_MXFP4 ? SY_MXFP4_BLOCK : SY_NVFP4_BLOCK;
  SY_TRY(read_rows(p->weight, p, panel, (size_t)p->columns / 2, (size_t)panel->column / 2,
                   (size_t)panel->num_columns / 2, codes));
  return read_rows(p->scales, p, panel, (size_t)(p->columns / block),
                   (size_t)(panel->column / block), (size_t)(panel->num_columns / block), scales);
}

/* The thread that waits for the load hears what happened on this one. */
static sy_status keep_error(const struct sy_expert_source *source, sy_status status) {
  if (status != SY_OK) {
#pragma omp critical(sy_expert_source_error)
    if (source->error[0] == '\0') {
      snprintf(source->error, SY_ERROR_TEXT_BYTES, "%s", sy_last_error(NULL));
    }
  }
  return status;
}

static sy_status read_values(const struct sy_source *base, const struct sy_panel *panel,
                             float *values) {
  const struct sy_expert_source *source = (const struct sy_expert_source *)base;
  return keep_error(source, values_of(source->expert, panel, values));
}

static sy_status read_codes(const struct sy_source *base, const struct sy_panel *panel,
                            uint8_t *codes, uint8_t *scales) {
  const struct sy_expert_source *source = (const struct sy_expert_source *)base;
  return keep_error(source, codes_of(source->expert, panel, codes, scales));
}

/* ---- What is read once ---- */

static sy_status read_global(const struct sy_storage *storage,
                             const struct sy_checkpoint_projection *p, float *global_out) {
  float stored = 1.0f;
  if (p->global == NULL) {
    *global_out = stored;
    return SY_OK;
  }
  SY_TRY(read_bytes(p->global, 0, &stored, sizeof stored));
  const float global = storage->reciprocal ? 1.0f / stored : stored;
  if (!(isfinite(global) && global >= 0.0f && isfinite(stored))) {
    return sy_fail(SY_ERR_FORMAT, "%s: tensor '%s': is %g; expected a finite %s",
                   sy_path_shown(p->global->file->path), p->global->name, (double)stored,
                   storage->reciprocal ? "number above 0" : "number, 0 or more");
  }
  *global_out = global;
  return SY_OK;
}

static sy_dtype bias_dtype(const struct sy_checkpoint_tensor *tensor) {
  switch (tensor->entry->tensor.dtype) {
  case SY_TENSOR_F32:
    return SY_DTYPE_F32;
  case SY_TENSOR_F16:
    return SY_DTYPE_F16;
  default:
    return SY_DTYPE_BF16;
  }
}

static sy_status read_bias(const struct sy_checkpoint_projection *p, float *bias) {
  const sy_dtype dtype = bias_dtype(p->bias);
  const size_t bytes = sy_dtype_row_bytes(dtype, 2) / 2;
  const int64_t span = (p->rows - 1) * p->row_step + 1;
  unsigned char *raw = sy_alloc((size_t)span * bytes);
  if (raw == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: tensor '%s': no memory for %lld of its values",
                   sy_path_shown(p->bias->file->path), p->bias->name, (long long)span);
  }
  const sy_status status =
      read_bytes(p->bias, (size_t)p->first_row * bytes, raw, (size_t)span * bytes);
  for (int64_t r = 0; r < p->rows && status == SY_OK; ++r) {
    sy_row_to_f32(dtype, raw + (size_t)(r * p->row_step) * bytes, NULL, 0, 1, &bias[r]);
  }
  sy_free(raw);
  return status;
}

static sy_status read_biases(struct sy_expert_source *source) {
  int64_t count = 0;
  for (int p = 0; p < SY_NUM_PROJECTIONS; ++p) {
    const struct sy_checkpoint_projection *projection = &source->expert->projections[p];
    count += projection->bias != NULL ? projection->rows : 0;
  }
  if (count == 0) {
    return SY_OK;
  }
  source->biases = sy_alloc((size_t)count * sizeof *source->biases);
  if (source->biases == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory for the %lld biases of an expert", (long long)count);
  }
  float *next = source->biases;
  for (int p = 0; p < SY_NUM_PROJECTIONS; ++p) {
    const struct sy_checkpoint_projection *projection = &source->expert->projections[p];
    if (projection->bias != NULL) {
      SY_TRY(read_bias(projection, next));
      source->base.bias[p] = next;
      next += projection->rows;
    }
  }
  return SY_OK;
}

sy_status sy_expert_source_open(const struct sy_checkpoint_expert *expert,
                                struct sy_expert_source *source_out) {
  *source_out = (struct sy_expert_source){
      .base = {.read_values = read_values,
               .read_codes = sy_dtype_is_fp4(expert->storage->dtype) ? read_codes : NULL},
      .expert = expert};
  source_out->error = source_out->error_text;
  for (int p = 0; p < SY_NUM_PROJECTIONS; ++p) {
    SY_TRY(read_global(expert->storage, &expert->projections[p], &source_out->base.global[p]));
  }
  return read_biases(source_out);
}

void sy_expert_source_close(struct sy_expert_source *source) { sy_free(source->biases); }
