/* The experts of a model in the names and storages that people's checkpoints have, and beside them
 * what they mean. */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/checkpoint_writer.h"
#include "tests/support/random.h"

enum { GATE, UP, DOWN, PROJECTIONS };

static void *allocate(struct written_model *model, size_t bytes) {
  void *block = calloc(bytes > 0 ? bytes : 1, 1);
  model->owned = realloc(model->owned, (size_t)(model->num_owned + 1) * sizeof *model->owned);
  if (block == NULL || model->owned == NULL) {
    perror("memory for a test's model");
    abort();
  }
  model->owned[model->num_owned++] = block;
  return block;
}

static void *copy(const void *data, size_t bytes) {
  void *block = malloc(bytes > 0 ? bytes : 1);
  if (block == NULL) {
    perror("memory for a test's tensor");
    abort();
  }
  return memcpy(block, data, bytes);
}

/* One projection: what was drawn, with the global scale as it multiplies. */
struct drawn {
  sy_dtype dtype;
  int64_t rows, columns;
  size_t bytes, scale_bytes;
  void *data, *scales;
  float global, stored_global;
  float *bias;
};

static sy_dtype dtype_of(const char *storage) {
  static const struct {
    const char *storage;
    sy_dtype dtype;
  } list[] = {{"bf16", SY_DTYPE_BF16},        {"f16", SY_DTYPE_F16},
              {"f32", SY_DTYPE_F32},          {"fp8", SY_DTYPE_F8_E4M3},
              {"modelopt", SY_DTYPE_NVFP4},   {"nvfp4-pack", SY_DTYPE_NVFP4},
              {"mxfp4-pack", SY_DTYPE_MXFP4}, {"gpt-oss", SY_DTYPE_MXFP4}};
  size_t i = 0;
  while (strcmp(list[i].storage, storage) != 0) {
    ++i;
  }
  return list[i].dtype;
}

static void draw_bytes(struct random_stream *r, uint8_t *bytes, size_t count, int64_t low,
                       int64_t high) {
  for (size_t i = 0; i < count; ++i) {
    bytes[i] = (uint8_t)random_between(r, low, high);
  }
}

static void draw_values(struct random_stream *r, struct drawn *d) {
  const size_t count = (size_t)(d->rows * d->columns);
  for (size_t i = 0; i < count; ++i) {
    const float value = (float)random_normal(r);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    if (d->dtype == SY_DTYPE_F32) {
      ((float *)d->data)[i] = value;
    } else if (d->dtype == SY_DTYPE_BF16) { /* the upper half of an f32 is a valid value */
      ((uint16_t *)d->data)[i] = (uint16_t)(bits >> 16);
    } else {
      ((uint16_t *)d->data)[i] = (uint16_t)((bits >> 16 & 0x8000u) | (bits & 0x3BFFu));
    }
  }
}

/* Any codes, and scales that keep values near 1. */
static void draw_codes(struct written_model *model, struct random_stream *r, struct drawn *d) {
  const size_t count = (size_t)(d->rows * d->columns);
  if (d->dtype == SY_DTYPE_F8_E4M3) {
    const size_t blocks = (size_t)((d->rows + 127) / 128 * ((d->columns + 127) / 128));
    d->scale_bytes = blocks * sizeof(float);
    d->scales = allocate(model, d->scale_bytes);
    for (size_t i = 0; i < blocks; ++i) {
      ((float *)d->scales)[i] = (float)(0.002 + 0.01 * random_unit(r));
    }
    draw_bytes(r, d->data, count, 0, 0x7E);
    for (size_t i = 0; i < count; i += 2) {
      ((uint8_t *)d->data)[i] |= 0x80u;
    }
    return;
  }
  const bool mx = d->dtype == SY_DTYPE_MXFP4;
  d->scale_bytes = count / (mx ? 32 : 16);
  d->scales = allocate(model, d->scale_bytes);
  draw_bytes(r, d->data, count / 2, 0, 255);
  draw_bytes(r, d->scales, d->scale_bytes, mx ? 121 : 0x20, mx ? 127 : 0x60);
  d->stored_global = (float)(0.01 + 0.01 * random_unit(r));
  if (strcmp(model->sizes.storage, "nvfp4-pack") == 0) {
    d->stored_global = 1.0f / d->stored_global;
  }
  d->global =
      strcmp(model->sizes.storage, "nvfp4-pack") == 0 ? 1.0f / d->stored_global : d->stored_global;
}

static struct drawn draw(struct written_model *model, int64_t index, int64_t rows,
                         int64_t columns) {
  static const size_t half_bytes[] = {4, 8, 4, 2, 1, 1}; /* of two values, by dtype, halved */
  struct random_stream r = random_stream_make(1, "weig", index);
  struct drawn d = {.dtype = dtype_of(model->sizes.storage), .rows = rows, .columns = columns};
  d.bytes = (size_t)(rows * columns) * half_bytes[d.dtype] / 2;
  d.data = allocate(model, d.bytes);
  if (d.dtype == SY_DTYPE_F8_E4M3 || d.dtype == SY_DTYPE_NVFP4 || d.dtype == SY_DTYPE_MXFP4) {
    draw_codes(model, &r, &d);
  } else {
    draw_values(&r, &d);
  }
  return d;
}

static void add(struct written_model *model, const char *stem, const char *suffix,
                const char *dtype, int64_t rows, int64_t columns, const void *data, size_t bytes) {
  char name[128];
  const int64_t shape[] = {rows, columns};
  snprintf(name, sizeof name, "%.95s%s", stem, suffix);
  written_tensor_add(model, name, dtype, columns == 0 ? rows == 0 ? 0 : 1 : 2, shape, bytes,
                     copy(data, bytes));
}

/* The tensors of one projection, in its own storage. The meaning points into them where it can, so
 * that a case which spoils a tensor may look there. */
static void add_projection(struct written_model *model, const char *stem, struct drawn *d) {
  const bool packed = strstr(model->sizes.storage, "-pack") != NULL;
  switch (d->dtype) {
  case SY_DTYPE_F8_E4M3:
    add(model, stem, ".weight", "F8_E4M3", d->rows, d->columns, d->data, d->bytes);
    add(model, stem, ".weight_scale_inv", "F32", (d->rows + 127) / 128, (d->columns + 127) / 128,
        d->scales, d->scale_bytes);
    break;
  case SY_DTYPE_NVFP4:
    add(model, stem, packed ? ".weight_packed" : ".weight", "U8", d->rows, d->columns / 2, d->data,
        d->bytes);
    add(model, stem, ".weight_scale", "F8_E4M3", d->rows, d->columns / 16, d->scales,
        d->scale_bytes);
    add(model, stem, packed ? ".weight_global_scale" : ".weight_scale_2", "F32", packed ? 1 : 0, 0,
        &d->stored_global, 4);
    add(model, stem, packed ? ".input_global_scale" : ".input_scale", "F32", packed ? 1 : 0, 0,
        &d->stored_global, 4);
    break;
  case SY_DTYPE_MXFP4:
    add(model, stem, ".weight_packed", "U8", d->rows, d->columns / 2, d->data, d->bytes);
    add(model, stem, ".weight_scale", "U8", d->rows, d->columns / 32, d->scales, d->scale_bytes);
    break;
  default:
    add(model, stem, ".weight",
        d->dtype == SY_DTYPE_F32   ? "F32"
        : d->dtype == SY_DTYPE_F16 ? "F16"
                                   : "BF16",
        d->rows, d->columns, d->data, d->bytes);
  }
}

static void set_meaning(sy_expert_weights *w, const struct drawn d[PROJECTIONS]) {
  *w = (sy_expert_weights)SY_EXPERT_WEIGHTS_INIT;
  w->dtype = d[GATE].dtype;
  w->gate = d[GATE].data;
  w->up = d[UP].data;
  w->down = d[DOWN].data;
  w->gate_bias = d[GATE].bias;
  w->up_bias = d[UP].bias;
  w->down_bias = d[DOWN].bias;
  w->gate_scales = d[GATE].scales;
  w->up_scales = d[UP].scales;
  w->down_scales = d[DOWN].scales;
  w->gate_global = d[GATE].global;
  w->up_global = d[UP].global;
  w->down_global = d[DOWN].global;
}

static void draw_expert(struct written_model *model, int64_t index, struct drawn d[PROJECTIONS]) {
  const int64_t h = model->sizes.hidden;
  const int64_t n = model->sizes.intermediate;
  d[GATE] = draw(model, 3 * index, n, h);
  d[UP] = draw(model, 3 * index + 1, n, h);
  d[DOWN] = draw(model, 3 * index + 2, h, n);
}

void written_expert_stem(const struct written_model *model, int layer, int expert,
                         const char *projection, char stem[96]) {
  static const char *const mixtral[] = {"w1", "w3", "w2"};
  const int p = strcmp(projection, "gate") == 0 ? GATE : strcmp(projection, "up") == 0 ? UP : DOWN;
  if (strcmp(model->sizes.family, "mixtral") == 0) {
    snprintf(stem, 96, "model.layers.%d.block_sparse_moe.experts.%d.%s", layer, expert, mixtral[p]);
  } else if (strcmp(model->sizes.family, "gpt_oss") == 0) {
    snprintf(stem, 96, "model.layers.%d.mlp.experts.%s", layer,
             p == DOWN ? "down_proj" : "gate_up_proj");
  } else {
    snprintf(stem, 96, "model.layers.%d.mlp.experts.%d.%s_proj", layer, expert, projection);
  }
}

static void add_layer(struct written_model *model, int layer) {
  static const char *const names[] = {"gate", "up", "down"};
  for (int expert = 0; expert < model->sizes.experts; ++expert) {
    const int64_t index = (int64_t)layer * model->sizes.experts + expert;
    struct drawn d[PROJECTIONS];
    draw_expert(model, index, d);
    for (int p = 0; p < PROJECTIONS; ++p) {
      char stem[96];
      written_expert_stem(model, layer, expert, names[p], stem);
      add_projection(model, stem, &d[p]);
    }
    set_meaning(&model->weights[index], d);
  }
}

/* ---- gpt-oss: all experts in one tensor, gate and up rows in turn ---- */

/* Every step-th row from first on of an expert's part of a tensor. */
static void place_rows(const struct drawn *d, const void *rows, size_t row_bytes, int first,
                       int step, unsigned char *part) {
  for (int64_t r = 0; r < d->rows; ++r) {
    memcpy(part + (size_t)(first + r * step) * row_bytes,
           (const unsigned char *)rows + (size_t)r * row_bytes, row_bytes);
  }
}

static void draw_bias(struct written_model *model, struct random_stream *r, struct drawn *d,
                      int first, int step, unsigned char *part) {
  d->bias = allocate(model, (size_t)d->rows * sizeof(float));
  for (int64_t i = 0; i < d->rows; ++i) {
    const float value = (float)random_normal(r);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    const uint16_t bf16 = (uint16_t)(bits >> 16);
    bits &= 0xFFFF0000u;
    memcpy(&d->bias[i], &bits, sizeof bits);
    memcpy(part + (size_t)(first + i * step) * 2, &bf16, sizeof bf16);
  }
}

struct stacked {
  const char *stem;
  int64_t rows, columns; /* of one expert */
  unsigned char *blocks, *scales, *bias;
};

static struct stacked stack(struct written_model *model, const char *stem, int64_t rows,
                            int64_t columns) {
  const size_t count = (size_t)(model->sizes.experts * rows);
  return (struct stacked){.stem = stem,
                          .rows = rows,
                          .columns = columns,
                          .blocks = allocate(model, count * (size_t)columns / 2),
                          .scales = allocate(model, count * (size_t)columns / 32),
                          .bias = allocate(model, count * 2)};
}

static void place(struct written_model *model, struct random_stream *r, int expert, struct drawn *d,
                  int first, int step, const struct stacked *s) {
  const size_t row = (size_t)(expert * s->rows);
  place_rows(d, d->data, (size_t)s->columns / 2, first, step,
             s->blocks + row * (size_t)s->columns / 2);
  place_rows(d, d->scales, (size_t)s->columns / 32, first, step,
             s->scales + row * (size_t)s->columns / 32);
  draw_bias(model, r, d, first, step, s->bias + row * 2);
}

static void add_stacked(struct written_model *model, int layer, const struct stacked *s) {
  const int64_t blocks[] = {model->sizes.experts, s->rows, s->columns / 32, 16};
  const size_t count = (size_t)(model->sizes.experts * s->rows);
  char name[96];
  snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s_blocks", layer, s->stem);
  written_tensor_add(model, name, "U8", 4, blocks, count * (size_t)s->columns / 2,
                     copy(s->blocks, count * (size_t)s->columns / 2));
  snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s_scales", layer, s->stem);
  written_tensor_add(model, name, "U8", 3, blocks, count * (size_t)s->columns / 32,
                     copy(s->scales, count * (size_t)s->columns / 32));
  snprintf(name, sizeof name, "model.layers.%d.mlp.experts.%s_bias", layer, s->stem);
  written_tensor_add(model, name, "BF16", 2, blocks, count * 2, copy(s->bias, count * 2));
}

static void add_stacked_layer(struct written_model *model, int layer) {
  const int64_t h = model->sizes.hidden;
  const int64_t n = model->sizes.intermediate;
  const struct stacked gate_up = stack(model, "gate_up_proj", 2 * n, h);
  const struct stacked down = stack(model, "down_proj", h, n);
  struct random_stream r = random_stream_make(1, "bias", layer);
  for (int expert = 0; expert < model->sizes.experts; ++expert) {
    const int64_t index = (int64_t)layer * model->sizes.experts + expert;
    struct drawn d[PROJECTIONS];
    draw_expert(model, index, d);
    place(model, &r, expert, &d[GATE], 0, 2, &gate_up);
    place(model, &r, expert, &d[UP], 1, 2, &gate_up);
    place(model, &r, expert, &d[DOWN], 0, 1, &down);
    set_meaning(&model->weights[index], d);
  }
  add_stacked(model, layer, &gate_up);
  add_stacked(model, layer, &down);
}

void written_model_fill(struct written_model *model) {
  const struct written_sizes *s = &model->sizes;
  model->weights = allocate(model, (size_t)(s->layers * s->experts) * sizeof *model->weights);
  for (int layer = s->dense_layers; layer < s->layers; ++layer) {
    if (strcmp(s->family, "gpt_oss") == 0) {
      add_stacked_layer(model, layer);
    } else {
      add_layer(model, layer);
    }
  }
}
