/* What a conversion makes of a checkpoint: its shards, and the tensors of each. */
#include "runtime/checkpoint/convert.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/wire.h"
#include "runtime/checkpoint/experts.h"
#include "runtime/checkpoint/file.h"
#include "runtime/internal.h"
#include "runtime/memory.h"

static const char weight_suffix[] = ".weight"; /* of every storage that is not FP4 */

/* ---- Shards ---- */

/* The number behind "layers." in a name, or num_layers. */
static int32_t layer_of(const char *name, int32_t num_layers) {
  static const char mark[] = "layers.";
  const char *digits = strstr(name, mark);
  if (digits == NULL || !isdigit((unsigned char)digits[sizeof mark - 1])) {
    return num_layers;
  }
  const long layer = strtol(digits + sizeof mark - 1, NULL, 10);
  return layer < num_layers ? (int32_t)layer : num_layers;
}

static size_t position_of(const sy_checkpoint *checkpoint,
                          const struct sy_checkpoint_tensor *tensor) {
  return (size_t)(tensor - checkpoint->tensors);
}

/* Marks what becomes of an expert's tensors; biases are copied. */
static void mark_expert(sy_convert *convert, const struct sy_checkpoint_expert *expert) {
  const sy_checkpoint *checkpoint = convert->checkpoint;
  for (int p = 0; p < SY_NUM_PROJECTIONS; ++p) {
    const struct sy_checkpoint_projection *projection = &expert->projections[p];
    convert->fate[position_of(checkpoint, projection->weight)] =
        expert->global_expert * SY_NUM_PROJECTIONS + p;
    if (projection->scales != NULL) {
      convert->fate[position_of(checkpoint, projection->scales)] = SY_FATE_DROPPED;
    }
  }
}

/* Refuses experts that are FP4 already: they are never quantised again. */
static sy_status mark_layer(sy_convert *convert, int32_t layer) {
  const sy_checkpoint *checkpoint = convert->checkpoint;
  sy_layer_info info = SY_LAYER_INFO_INIT;
  SY_TRY(sy_checkpoint_check_layer(checkpoint, layer, &info));
  if (info.is_dense != 0) {
    return SY_OK;
  }
  if (sy_dtype_is_fp4(info.dtype)) {
    return sy_fail(SY_ERR_UNSUPPORTED,
                   "%s: the experts of layer %d are %s already; expected bf16, f16, f32 or fp8",
                   sy_path_shown(checkpoint->path), layer, info.format);
  }
  for (int32_t e = 0; e < checkpoint->model.info.shape.num_experts; ++e) {
    struct sy_checkpoint_expert expert;
    SY_TRY(sy_checkpoint_find_expert(checkpoint, layer, e, &expert));
    mark_expert(convert, &expert);
  }
  return SY_OK;
}

/* Every tensor gets its layer, every layer with tensors its shard. */
static sy_status lay_out(sy_convert *convert) {
  const sy_checkpoint *checkpoint = convert->checkpoint;
  const int32_t num_layers = checkpoint->model.info.num_layers;
  const size_t count = checkpoint->num_tensors;
  convert->tensor_layer = sy_alloc(count * sizeof *convert->tensor_layer);
  convert->fate = sy_alloc(count * sizeof *convert->fate);
  convert->shard_layer = sy_alloc(((size_t)num_layers + 1) * sizeof *convert->shard_layer);
  if (convert->tensor_layer == NULL || convert->fate == NULL || convert->shard_layer == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory for a list of %zu tensors",
                   sy_path_shown(checkpoint->path), count);
  }
  memset(convert->shard_layer, 0, ((size_t)num_layers + 1) * sizeof *convert->shard_layer);
  for (size_t i = 0; i < count; ++i) {
    const char *name = checkpoint->tensors[i].name;
    if (sy_checkpoint_find(checkpoint, name) == NULL) {
      return SY_ERR_FORMAT; /* its dtype is not known, and so neither is how to copy it */
    }
    convert->tensor_layer[i] = layer_of(name, num_layers);
    convert->fate[i] = SY_FATE_COPIED;
    ++convert->shard_layer[convert->tensor_layer[i]];
  }
  for (int32_t layer = 0; layer <= num_layers; ++layer) {
    if (convert->shard_layer[layer] > 0) {
      convert->shard_layer[convert->num_shards++] = layer;
    }
  }
  for (int32_t layer = 0; layer < num_layers; ++layer) {
    SY_TRY(mark_layer(convert, layer));
  }
  return SY_OK;
}

/* ---- Tensors of a shard ---- */

static size_t element_bytes(const struct sy_convert_tensor *tensor) {
  return tensor->dtype == SY_TENSOR_BF16 || tensor->dtype == SY_TENSOR_F16  ? 2
         : tensor->dtype == SY_TENSOR_F32 || tensor->dtype == SY_TENSOR_I32 ? 4
         : tensor->dtype == SY_TENSOR_F64 || tensor->dtype == SY_TENSOR_I64 ? 8
                                                                            : 1;
}

/* Large elements first, so that all data is aligned to its own size; then by name. */
static int by_place(const void *a, const void *b) {
  const struct sy_convert_tensor *x = a;
  const struct sy_convert_tensor *y = b;
  const size_t x_bytes = element_bytes(x);
  const size_t y_bytes = element_bytes(y);
  return x_bytes != y_bytes ? (x_bytes > y_bytes ? -1 : 1) : strcmp(x->name, y->name);
}

static void add_copy(struct sy_convert_list *list, const struct sy_checkpoint_tensor *source) {
  const sy_tensor *tensor = &source->entry->tensor;
  struct sy_convert_tensor *added = &list->tensors[list->count++];
  *added = (struct sy_convert_tensor){.part = SY_PART_COPY,
                                      .source = source,
                                      .dtype = tensor->dtype,
                                      .num_dims = tensor->num_dims,
                                      .bytes = tensor->bytes};
  snprintf(added->name, sizeof added->name, "%s", source->name);
  memcpy(added->shape, tensor->shape, sizeof added->shape);
}

/* "x.weight" -> "x" and a suffix; `columns` bytes for each row, but for the global scale. */
static sy_status add_part(const sy_checkpoint *checkpoint, struct sy_convert_list *list,
                          const struct sy_checkpoint_tensor *source, enum sy_convert_part part,
                          const char *suffix, sy_tensor_dtype dtype, int64_t columns) {
  const size_t stem = strlen(source->name) - (sizeof weight_suffix - 1);
  struct sy_convert_tensor *added = &list->tensors[list->count++];
  *added = (struct sy_convert_tensor){.part = part, .source = source, .dtype = dtype};
  const int length =
      snprintf(added->name, sizeof added->name, "%.*s%s", (int)stem, source->name, suffix);
  if (length >= SY_TENSOR_NAME_BYTES) {
    return sy_fail(SY_ERR_FORMAT, "tensor '%s': its name has no room for '%s'; allowed: %d bytes",
                   source->name, suffix, SY_TENSOR_NAME_BYTES - 1);
  }
  if (strcmp(suffix, weight_suffix) != 0 && sy_checkpoint_lookup(checkpoint, added->name) != NULL) {
    return sy_fail(SY_ERR_FORMAT, "%s: tensor '%s' is there already; expected it free for a scale",
                   sy_path_shown(checkpoint->path), added->name);
  }
  if (part == SY_PART_GLOBAL) {
    added->bytes = sizeof(float);
    return SY_OK;
  }
  added->num_dims = 2;
  added->shape[0] = source->entry->tensor.shape[0];
  added->shape[1] = columns;
  added->bytes = (size_t)(added->shape[0] * columns);
  return SY_OK;
}

/* The names of ModelOpt for NVFP4, whose second scale multiplies as ours does and so keeps its bits;
 * those of compressed-tensors for MXFP4. */
static sy_status add_quantised(const sy_convert *convert, struct sy_convert_list *list,
                               const struct sy_checkpoint_tensor *source) {
  const sy_checkpoint *in = convert->checkpoint;
  const int64_t columns = source->entry->tensor.shape[1];
  const int64_t scales = columns / sy_scale_block(convert->format);
  if (convert->format == SY_FORMAT_MXFP4) {
    SY_TRY(add_part(in, list, source, SY_PART_CODES, ".weight_packed", SY_TENSOR_U8, columns / 2));
    return add_part(in, list, source, SY_PART_SCALES, ".weight_scale", SY_TENSOR_U8, scales);
  }
  SY_TRY(add_part(in, list, source, SY_PART_CODES, ".weight", SY_TENSOR_U8, columns / 2));
  SY_TRY(add_part(in, list, source, SY_PART_SCALES, ".weight_scale", SY_TENSOR_F8_E4M3, scales));
  return add_part(in, list, source, SY_PART_GLOBAL, ".weight_scale_2", SY_TENSOR_F32, 0);
}

static sy_status fill_list(const sy_convert *convert, int32_t layer, struct sy_convert_list *list) {
  const sy_checkpoint *checkpoint = convert->checkpoint;
  for (size_t i = 0; i < checkpoint->num_tensors; ++i) {
    if (convert->tensor_layer[i] != layer) {
      continue;
    }
    if (convert->fate[i] >= 0) {
      SY_TRY(add_quantised(convert, list, &checkpoint->tensors[i]));
    } else if (convert->fate[i] == SY_FATE_COPIED) {
      add_copy(list, &checkpoint->tensors[i]);
    }
  }
  qsort(list->tensors, list->count, sizeof *list->tensors, by_place);
  for (size_t i = 0; i < list->count; ++i) {
    list->tensors[i].begin = list->data_bytes;
    list->data_bytes += list->tensors[i].bytes;
  }
  return SY_OK;
}

sy_status sy_convert_list_shard(const sy_convert *convert, int32_t shard,
                                struct sy_convert_list *list_out) {
  const int32_t layer = convert->shard_layer[shard];
  size_t most = 0; /* an expert's tensor becomes at most three */
  for (size_t i = 0; i < convert->checkpoint->num_tensors; ++i) {
    most += convert->tensor_layer[i] == layer ? (convert->fate[i] >= 0 ? 3 : 1) : 0;
  }
  struct sy_convert_list list = {.tensors = sy_alloc(most * sizeof *list.tensors)};
  if (list.tensors == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory for a list of %zu tensors", most);
  }
  const sy_status status = fill_list(convert, layer, &list);
  if (status != SY_OK) {
    sy_free(list.tensors);
    return status;
  }
  *list_out = list;
  return SY_OK;
}

/* ---- The handle ---- */

static sy_status check_arguments(const sy_checkpoint *checkpoint, const char *folder,
                                 sy_format format, sy_convert **convert_out) {
  if (checkpoint == NULL || folder == NULL || convert_out == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_convert_create: %s is NULL",
                   checkpoint == NULL ? "checkpoint"
                   : folder == NULL   ? "folder"
                                      : "convert_out");
  }
  SY_TRY(sy_check_range("format", format, SY_FORMAT_NVFP4, SY_FORMAT_MXFP4));
  SY_TRY(sy_checkpoint_require_config(checkpoint));
  const sy_shape *shape = &checkpoint->model.info.shape;
  const int block = (int)sy_scale_block(format);
  if (shape->hidden % block != 0 || shape->intermediate % block != 0) {
    return sy_fail(SY_ERR_UNSUPPORTED,
                   "%s: hidden is %lld, intermediate %lld; expected multiples of %d, a block of %s",
                   sy_path_shown(checkpoint->config_path), (long long)shape->hidden,
                   (long long)shape->intermediate, block,
                   format == SY_FORMAT_MXFP4 ? "MXFP4" : "NVFP4");
  }
  return SY_OK;
}

sy_status sy_convert_create(const sy_checkpoint *checkpoint, const char *folder, sy_format format,
                            sy_convert **convert_out) {
  SY_TRY(check_arguments(checkpoint, folder, format, convert_out));
  sy_convert *convert = sy_alloc(sizeof *convert);
  if (convert == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory for a conversion");
  }
  *convert = (sy_convert){.checkpoint = checkpoint, .format = format, .manifest_fd = -1};
  sy_status status = sy_path_join(NULL, folder, &convert->folder);
  if (status == SY_OK) {
    status = lay_out(convert);
  }
  if (status != SY_OK) {
    sy_convert_destroy(convert);
    return status;
  }
  *convert_out = convert;
  return SY_OK;
}

void sy_convert_destroy(sy_convert *convert) {
  if (convert == NULL) {
    return;
  }
  if (convert->manifest_fd >= 0) {
    close(convert->manifest_fd);
  }
  sy_free(convert->folder);
  sy_free(convert->shard_layer);
  sy_free(convert->tensor_layer);
  sy_free(convert->fate);
  sy_free(convert);
}

int32_t sy_convert_num_shards(const sy_convert *convert) {
  return convert == NULL ? 0 : convert->num_shards;
}

uint64_t sy_convert_shard_bytes(const sy_convert *convert, int32_t shard) {
  uint64_t bytes = 0;
  const bool exists = convert != NULL && shard >= 0 && shard < convert->num_shards;
  for (size_t i = 0; exists && i < convert->checkpoint->num_tensors; ++i) {
    if (convert->tensor_layer[i] == convert->shard_layer[shard]) {
      bytes += convert->checkpoint->tensors[i].entry->tensor.bytes;
    }
  }
  return bytes;
}

sy_status sy_convert_shard_path(const sy_convert *convert, int32_t shard, const char *suffix,
                                char **path_out) {
  char name[96];
  snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors%s", shard + 1, convert->num_shards,
           suffix);
  return sy_path_join(convert->folder, name, path_out);
}
