/* Writes one shard of a conversion: the header, what is copied, and experts' weights as codes, scales
 * and a global scale, by the sequence of operations with which a layer quantises at load. */
#include <stdio.h>
#include <string.h>

#include "kernels/fp4.h"
#include "kernels/wire.h"
#include "runtime/checkpoint/convert.h"
#include "runtime/checkpoint/expert_source.h"
#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/output.h"
#include "runtime/internal.h"
#include "runtime/memory.h"

#define LENGTH_BYTES 8
#define COPY_BYTES ((size_t)4 << 20)

/* ---- Header ---- */

static json_t *tensor_json(const struct sy_convert_tensor *tensor) {
  json_t *shape = json_array();
  for (int32_t i = 0; i < tensor->num_dims; ++i) {
    json_array_append_new(shape, json_integer((json_int_t)tensor->shape[i]));
  }
  return json_pack("{s:s, s:o, s:[I, I]}", "dtype", sy_tensor_dtype_name(tensor->dtype), "shape",
                   shape, "data_offsets", (json_int_t)tensor->begin,
                   (json_int_t)tensor->begin + (json_int_t)tensor->bytes);
}

static json_t *header_json(const struct sy_convert_list *list) {
  json_t *root = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
  for (size_t i = 0; i < list->count; ++i) {
    if (json_object_set_new(root, list->tensors[i].name, tensor_json(&list->tensors[i])) != 0) {
      json_decref(root);
      return NULL;
    }
  }
  return root;
}

/* Length, text, and spaces up to a multiple of 8, where the data begins. */
static sy_status make_header(const struct sy_convert_list *list, unsigned char **header_out,
                             size_t *bytes_out) {
  json_t *root = header_json(list);
  const size_t text_bytes = root == NULL ? 0 : json_dumpb(root, NULL, 0, JSON_COMPACT);
  const size_t bytes = sy_align_up(LENGTH_BYTES + text_bytes, 8);
  unsigned char *header = text_bytes == 0 ? NULL : sy_alloc(bytes);
  if (header == NULL) {
    json_decref(root);
    return sy_fail(SY_ERR_MEMORY, "no memory for a header of %zu tensors", list->count);
  }
  for (int i = 0; i < LENGTH_BYTES; ++i) {
    header[i] = (unsigned char)((uint64_t)(bytes - LENGTH_BYTES) >> (8 * i));
  }
  memset(header + LENGTH_BYTES, ' ', bytes - LENGTH_BYTES);
  json_dumpb(root, (char *)header + LENGTH_BYTES, text_bytes, JSON_COMPACT);
  json_decref(root);
  if (bytes - LENGTH_BYTES > SY_SAFETENSORS_MAX_HEADER_BYTES) {
    sy_free(header);
    return sy_fail(SY_ERR_OVERFLOW, "the header of a shard has %zu bytes; allowed: at most %zu",
                   bytes, SY_SAFETENSORS_MAX_HEADER_BYTES);
  }
  *header_out = header;
  *bytes_out = bytes;
  return SY_OK;
}

/* ---- Copies ---- */

static sy_status copy_tensor(const struct sy_output *output, size_t data_offset,
                             const struct sy_convert_tensor *tensor, void *buffer) {
  const struct sy_checkpoint_tensor *source = tensor->source;
  for (size_t done = 0; done < tensor->bytes;) {
    const size_t left = tensor->bytes - done;
    const size_t bytes = left < COPY_BYTES ? left : COPY_BYTES;
    SY_TRY(sy_safetensors_read(source->file, source->entry, done, buffer, bytes));
    SY_TRY(sy_output_write_at(output, data_offset + tensor->begin + done, buffer, bytes));
    done += bytes;
  }
  return SY_OK;
}

/* ---- Experts ---- */

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

/* A projection as it is read, and as it is written. */
struct matrix {
  int64_t rows, columns;
  float *values;   /* [rows, columns] */
  uint8_t *codes;  /* [rows, columns / 2] */
  uint8_t *scales; /* [rows, columns / block] */
  float global;
};

static sy_status matrix_create(const struct sy_checkpoint_tensor *source, int block,
                               struct matrix *m) {
  const int64_t *shape = source->entry->tensor.shape;
  const size_t count = (size_t)(shape[0] * shape[1]);
  *m = (struct matrix){.rows = shape[0],
                       .columns = shape[1],
                       .values = sy_alloc(count * sizeof *m->values),
                       .codes = sy_alloc(count / 2),
                       .scales = sy_alloc(count / (size_t)block),
                       .global = 1.0f};
  if (m->values == NULL || m->codes == NULL || m->scales == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: tensor '%s': no memory to quantise its %zu values",
                   sy_path_shown(source->file->path), source->name, count);
  }
  return SY_OK;
}

static void matrix_release(struct matrix *m) {
  sy_free(m->values);
  sy_free(m->codes);
  sy_free(m->scales);
}

/* Panel by panel, as a layer reads them. */
static sy_status read_panels(const struct sy_source *source, enum sy_projection projection,
                             float *buffer, struct matrix *m) {
  for (int64_t row = 0; row < m->rows; row += SY_PANEL_ROWS) {
    for (int64_t column = 0; column < m->columns; column += SY_PANEL_COLUMNS) {
      const struct sy_panel panel = {.projection = projection,
                                     .row = row,
                                     .num_rows = min_i64(m->rows - row, SY_PANEL_ROWS),
                                     .column = column,
                                     .num_columns = min_i64(m->columns - column, SY_PANEL_COLUMNS)};
      SY_TRY(source->read_values(source, &panel, buffer));
      for (int64_t r = 0; r < panel.num_rows; ++r) {
        memcpy(m->values + (row + r) * m->columns + column, buffer + r * panel.num_columns,
               (size_t)panel.num_columns * sizeof *buffer);
      }
    }
  }
  return SY_OK;
}

static sy_status read_matrix(const sy_convert *convert, const struct sy_checkpoint_tensor *tensor,
                             void *buffer, struct matrix *m) {
  const size_t position = (size_t)(tensor - convert->checkpoint->tensors);
  const int32_t fate = convert->fate[position];
  struct sy_checkpoint_expert expert;
  struct sy_expert_source source;
  SY_TRY(sy_checkpoint_find_expert(convert->checkpoint, convert->tensor_layer[position],
                                   fate / SY_NUM_PROJECTIONS, &expert));
  sy_status status = sy_expert_source_open(&expert, &source);
  if (status == SY_OK) {
    const enum sy_projection projection = (enum sy_projection)(fate % SY_NUM_PROJECTIONS);
    status = read_panels(&source.base, projection, buffer, m);
  }
  sy_expert_source_close(&source);
  return status;
}

static sy_status check_finite(const struct sy_checkpoint_tensor *source, const struct matrix *m) {
  for (int64_t i = 0; i < m->rows * m->columns; ++i) {
    if (!sy_is_finite(m->values[i])) {
      return sy_fail(SY_ERR_FORMAT, "%s: tensor '%s': [%lld, %lld] is %g; expected a finite value",
                     sy_path_shown(source->file->path), source->name, (long long)(i / m->columns),
                     (long long)(i % m->columns), (double)m->values[i]);
    }
  }
  return SY_OK;
}

static void quantise(sy_format format, struct matrix *m) {
  const int block = (int)sy_scale_block(format);
  const int64_t num_blocks = m->rows * m->columns / block;
  if (format == SY_FORMAT_NVFP4) {
    m->global = sy_nvfp4_global(sy_amax(m->values, m->rows * m->columns));
  }
#pragma omp parallel for
  for (int64_t b = 0; b < num_blocks; ++b) {
    uint8_t *codes = m->codes + b * (block / 2);
    if (format == SY_FORMAT_MXFP4) {
      sy_mxfp4_quantise_block(m->values + b * block, codes, m->scales + b);
    } else {
      sy_nvfp4_quantise_block(m->values + b * block, m->global, codes, m->scales + b);
    }
  }
}

/* ---- The shard ---- */

struct writer {
  const sy_convert *convert;
  int32_t shard;
  struct sy_convert_list list;
  struct sy_output output;
  size_t data_offset;
  void *buffer; /* of COPY_BYTES, which hold a panel */
};

/* The part of the same source. A list has few kinds of tensors, and is in order of names within each:
 * still, a walk over all is nothing beside quantising. */
static const struct sy_convert_tensor *find_part(const struct sy_convert_list *list,
                                                 const struct sy_checkpoint_tensor *source,
                                                 enum sy_convert_part part) {
  for (size_t i = 0; i < list->count; ++i) {
    if (list->tensors[i].source == source && list->tensors[i].part == part) {
      return &list->tensors[i];
    }
  }
  return NULL;
}

static sy_status put_part(const struct writer *w, const struct sy_checkpoint_tensor *source,
                          enum sy_convert_part part, const void *bytes) {
  const struct sy_convert_tensor *tensor = find_part(&w->list, source, part);
  return tensor == NULL
             ? SY_OK
             : sy_output_write_at(&w->output, w->data_offset + tensor->begin, bytes, tensor->bytes);
}

static sy_status put_expert(const struct writer *w, const struct sy_checkpoint_tensor *source) {
  const sy_format format = w->convert->format;
  struct matrix m;
  sy_status status = matrix_create(source, (int)sy_scale_block(format), &m);
  if (status == SY_OK) {
    status = read_matrix(w->convert, source, w->buffer, &m);
  }
  if (status == SY_OK) {
    status = check_finite(source, &m);
  }
  if (status == SY_OK) {
    quantise(format, &m);
    status = put_part(w, source, SY_PART_CODES, m.codes);
  }
  if (status == SY_OK) {
    status = put_part(w, source, SY_PART_SCALES, m.scales);
  }
  if (status == SY_OK) {
    status = put_part(w, source, SY_PART_GLOBAL, &m.global);
  }
  matrix_release(&m);
  return status;
}

static sy_status put_tensors(struct writer *w, sy_progress_fn progress, void *user) {
  unsigned char *header = NULL;
  SY_TRY(make_header(&w->list, &header, &w->data_offset));
  const sy_status status = sy_output_write_at(&w->output, 0, header, w->data_offset);
  sy_free(header);
  SY_TRY(status);
  const uint64_t total_bytes = sy_convert_shard_bytes(w->convert, w->shard);
  uint64_t done_bytes = 0;
  for (size_t i = 0; i < w->list.count; ++i) {
    const struct sy_convert_tensor *tensor = &w->list.tensors[i];
    if (tensor->part == SY_PART_COPY) {
      SY_TRY(copy_tensor(&w->output, w->data_offset, tensor, w->buffer));
    } else if (tensor->part == SY_PART_CODES) {
      SY_TRY(put_expert(w, tensor->source));
    } else {
      continue; /* written with the codes */
    }
    done_bytes += tensor->source->entry->tensor.bytes;
    if (progress != NULL) {
      progress(user, "converting", done_bytes, total_bytes);
    }
  }
  return SY_OK;
}

static sy_status write_shard(struct writer *w, sy_progress_fn progress, void *user) {
  char *path = NULL;
  char *ready = NULL;
  sy_status status = sy_convert_shard_path(w->convert, w->shard, "", &path);
  if (status == SY_OK) {
    status = sy_convert_shard_path(w->convert, w->shard, SY_CONVERT_READY, &ready);
  }
  if (status == SY_OK) {
    status = sy_output_create(path, &w->output);
  }
  if (status == SY_OK) {
    status = put_tensors(w, progress, user);
    if (status == SY_OK) {
      status = sy_output_commit(&w->output, ready);
    } else {
      sy_output_abandon(&w->output);
    }
  }
  sy_free(path);
  sy_free(ready);
  return status;
}

sy_status sy_convert_shard(const sy_convert *convert, int32_t shard, sy_progress_fn progress,
                           void *user) {
  if (convert == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_convert_shard: convert is NULL");
  }
  SY_TRY(sy_check_range("shard", shard, 0, convert->num_shards - 1));
  bool ready = false;
  SY_TRY(sy_convert_shard_is_ready(convert, shard, &ready));
  if (ready) {
    return SY_OK;
  }
  struct writer w = {.convert = convert, .shard = shard};
  SY_TRY(sy_convert_list_shard(convert, shard, &w.list));
  w.buffer = sy_alloc(COPY_BYTES);
  const sy_status status = w.buffer != NULL
                               ? write_shard(&w, progress, user)
                               : sy_fail(SY_ERR_MEMORY, "no memory for %zu bytes", COPY_BYTES);
  sy_free(w.buffer);
  sy_free(w.list.tensors);
  return status;
}
