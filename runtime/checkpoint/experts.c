#include "runtime/checkpoint/experts.h"

#include <stdio.h>
#include <string.h>

#include "kernels/wire.h"
#include "runtime/checkpoint/file.h"
#include "runtime/internal.h"

#define SHAPE_TEXT_BYTES 192 /* eight numbers of 19 digits */

struct dims {
  int32_t count;
  int64_t size[4];
};

static const char *shape_text(int32_t num_dims, const int64_t *shape, char text[SHAPE_TEXT_BYTES]) {
  size_t used = (size_t)snprintf(text, SHAPE_TEXT_BYTES, "[");
  for (int32_t i = 0; i < num_dims; ++i) {
    used += (size_t)snprintf(text + used, SHAPE_TEXT_BYTES - used, i == 0 ? "%lld" : ", %lld",
                             (long long)shape[i]);
  }
  snprintf(text + used, SHAPE_TEXT_BYTES - used, "]");
  return text;
}

static sy_status check_dtype(const struct sy_checkpoint_tensor *tensor, sy_tensor_dtype expected) {
  const sy_tensor_dtype found = tensor->entry->tensor.dtype;
  return found == expected ? SY_OK
                           : sy_fail(SY_ERR_FORMAT, "%s: tensor '%s': dtype is %s; expected %s",
                                     sy_path_shown(tensor->file->path), tensor->name,
                                     sy_tensor_dtype_name(found), sy_tensor_dtype_name(expected));
}

static sy_status check_dims(const struct sy_checkpoint_tensor *tensor, const struct dims *want) {
  const sy_tensor *found = &tensor->entry->tensor;
  bool same = found->num_dims == want->count;
  for (int32_t i = 0; same && i < want->count; ++i) {
    same = found->shape[i] == want->size[i];
  }
  if (!same) {
    char have[SHAPE_TEXT_BYTES];
    char wanted[SHAPE_TEXT_BYTES];
    return sy_fail(SY_ERR_FORMAT, "%s: tensor '%s': shape is %s; expected %s, as config.json says",
                   sy_path_shown(tensor->file->path), tensor->name,
                   shape_text(found->num_dims, found->shape, have),
                   shape_text(want->count, want->size, wanted));
  }
  return SY_OK;
}

/* [] or [1]: writers differ. */
static sy_status check_scalar(const struct sy_checkpoint_tensor *tensor) {
  const sy_tensor *found = &tensor->entry->tensor;
  SY_TRY(check_dtype(tensor, SY_TENSOR_F32));
  if (found->num_dims > 1 || (found->num_dims == 1 && found->shape[0] != 1)) {
    char have[SHAPE_TEXT_BYTES];
    return sy_fail(SY_ERR_FORMAT, "%s: tensor '%s': shape is %s; expected [] or [1]",
                   sy_path_shown(tensor->file->path), tensor->name,
                   shape_text(found->num_dims, found->shape, have));
  }
  return SY_OK;
}

static int64_t scale_rows(sy_dtype dtype, int64_t rows) {
  return dtype == SY_DTYPE_F8_E4M3 ? (rows + SY_F8_BLOCK - 1) / SY_F8_BLOCK : rows;
}

static int64_t scale_columns(sy_dtype dtype, int64_t columns) {
  switch (dtype) {
  case SY_DTYPE_F8_E4M3:
    return (columns + SY_F8_BLOCK - 1) / SY_F8_BLOCK;
  case SY_DTYPE_MXFP4:
    return columns / SY_MXFP4_BLOCK;
  default:
    return columns / SY_NVFP4_BLOCK;
  }
}

/* The rows of all experts and projections in one tensor; those of gate and up may alternate. */
static int64_t tensor_rows(const sy_checkpoint *checkpoint,
                           const struct sy_checkpoint_projection *p) {
  return checkpoint->model.family->stacked ? p->rows * p->row_step : p->rows;
}

static sy_status check_weight(const sy_checkpoint *checkpoint, const struct sy_storage *storage,
                              const struct sy_checkpoint_projection *p) {
  const int64_t experts = checkpoint->model.info.shape.num_experts;
  const int64_t rows = tensor_rows(checkpoint, p);
  const bool fp4 = sy_dtype_is_fp4(storage->dtype);
  const struct dims plain = {2, {rows, fp4 ? p->columns / 2 : p->columns}};
  const struct dims blocks = {4, {experts, rows, p->columns / SY_MXFP4_BLOCK, SY_MXFP4_BLOCK / 2}};
  SY_TRY(check_dtype(p->weight, storage->weight_dtype));
  if (storage->dtype == SY_DTYPE_MXFP4 && p->columns % SY_MXFP4_BLOCK != 0) {
    return sy_fail(SY_ERR_FORMAT,
                   "%s: tensor '%s': is MXFP4 of %lld columns; allowed: multiples of "
                   "%d",
                   sy_path_shown(p->weight->file->path), p->weight->name, (long long)p->columns,
                   SY_MXFP4_BLOCK);
  }
  return check_dims(p->weight, storage->stacked ? &blocks : &plain);
}

static sy_status check_scales(const sy_checkpoint *checkpoint, const struct sy_storage *storage,
                              const struct sy_checkpoint_projection *p) {
  const int64_t experts = checkpoint->model.info.shape.num_experts;
  const int64_t rows = scale_rows(storage->dtype, tensor_rows(checkpoint, p));
  const int64_t columns = scale_columns(storage->dtype, p->columns);
  const struct dims plain = {2, {rows, columns}};
  const struct dims stacked = {3, {experts, rows, columns}};
  SY_TRY(check_dtype(p->scales, storage->scales_dtype));
  return check_dims(p->scales, storage->stacked ? &stacked : &plain);
}

static sy_status check_bias(const sy_checkpoint *checkpoint,
                            const struct sy_checkpoint_projection *p) {
  const sy_tensor *found = &p->bias->entry->tensor;
  const int64_t experts = checkpoint->model.info.shape.num_experts;
  const int64_t rows = tensor_rows(checkpoint, p);
  const struct dims plain = {1, {rows}};
  const struct dims stacked = {2, {experts, rows}};
  if (found->dtype != SY_TENSOR_BF16 && found->dtype != SY_TENSOR_F16 &&
      found->dtype != SY_TENSOR_F32) {
    return sy_fail(SY_ERR_FORMAT, "%s: tensor '%s': dtype is %s; expected BF16, F16 or F32",
                   sy_path_shown(p->bias->file->path), p->bias->name,
                   sy_tensor_dtype_name(found->dtype));
  }
  return check_dims(p->bias, checkpoint->model.family->stacked ? &stacked : &plain);
}

static sy_status find_tensor(const sy_checkpoint *checkpoint, const char *stem, const char *suffix,
                             const struct sy_checkpoint_tensor **tensor_out) {
  *tensor_out = suffix == NULL ? NULL : sy_storage_tensor(checkpoint, stem, suffix);
  return suffix == NULL || *tensor_out != NULL ? SY_OK : SY_ERR_FORMAT;
}

/* Bytes that the projection's own rows take. */
static uint64_t bytes_of(const struct sy_storage *storage,
                         const struct sy_checkpoint_projection *p) {
  uint64_t bytes = (uint64_t)p->rows * sy_dtype_row_bytes(storage->dtype, p->columns);
  if (p->scales != NULL) {
    bytes += (uint64_t)scale_rows(storage->dtype, p->rows) *
             (uint64_t)scale_columns(storage->dtype, p->columns) *
             (storage->scales_dtype == SY_TENSOR_F32 ? 4 : 1);
  }
  bytes += p->global != NULL ? 4 : 0;
  bytes += p->bias != NULL
               ? (uint64_t)p->rows * (p->bias->entry->tensor.dtype == SY_TENSOR_F32 ? 4 : 2)
               : 0;
  return bytes;
}

static sy_status find_projection(const sy_checkpoint *checkpoint, int32_t layer_idx,
                                 enum sy_projection which, struct sy_checkpoint_expert *expert) {
  const struct sy_family *family = checkpoint->model.family;
  const sy_shape *shape = &checkpoint->model.info.shape;
  const struct sy_family_projection *names = &family->projections[which];
  struct sy_checkpoint_projection *p = &expert->projections[which];
  char stem[SY_TENSOR_NAME_BYTES];
  sy_family_tensor_name(names->stem, layer_idx, expert->global_expert, stem, sizeof stem);
  p->rows = which == SY_DOWN ? shape->hidden : shape->intermediate;
  p->columns = which == SY_DOWN ? shape->intermediate : shape->hidden;
  p->row_step = names->row_step;
  p->first_row =
      names->first_row + (family->stacked ? expert->global_expert * tensor_rows(checkpoint, p) : 0);
  if (expert->storage == NULL) {
    SY_TRY(sy_storage_find(checkpoint, family->stacked, stem, &expert->storage));
  }
  const struct sy_storage *storage = expert->storage;
  p->weight = sy_storage_tensor(checkpoint, stem, storage->weight);
  if (p->weight == NULL) {
    return SY_ERR_FORMAT;
  }
  SY_TRY(check_weight(checkpoint, storage, p));
  SY_TRY(find_tensor(checkpoint, stem, storage->scales, &p->scales));
  SY_TRY(find_tensor(checkpoint, stem, storage->global, &p->global));
  SY_TRY(find_tensor(checkpoint, stem, family->bias, &p->bias));
  if (p->scales != NULL) {
    SY_TRY(check_scales(checkpoint, storage, p));
  }
  if (p->global != NULL) {
    SY_TRY(check_scalar(p->global));
  }
  if (p->bias != NULL) {
    SY_TRY(check_bias(checkpoint, p));
  }
  expert->bytes += bytes_of(storage, p);
  return SY_OK;
}

sy_status sy_checkpoint_find_expert(const sy_checkpoint *checkpoint, int32_t layer_idx,
                                    int32_t global_expert,
                                    struct sy_checkpoint_expert *expert_out) {
  struct sy_checkpoint_expert expert = {.global_expert = global_expert};
  for (int p = 0; p < SY_NUM_PROJECTIONS; ++p) {
    SY_TRY(find_projection(checkpoint, layer_idx, (enum sy_projection)p, &expert));
  }
  *expert_out = expert;
  return SY_OK;
}

sy_status sy_checkpoint_require_moe_layer(const sy_checkpoint *checkpoint, int32_t layer_idx) {
  SY_TRY(sy_checkpoint_require_config(checkpoint));
  const struct sy_checkpoint_model *model = &checkpoint->model;
  const char *const path = sy_path_shown(checkpoint->config_path);
  if (layer_idx < 0 || layer_idx >= model->info.num_layers) {
    return sy_fail(SY_ERR_ARGUMENT, "%s: layer %d; allowed: 0 to %d", path, layer_idx,
                   model->info.num_layers - 1);
  }
  if (sy_checkpoint_layer_is_dense(model, layer_idx)) {
    char keys[96];
    return sy_fail(SY_ERR_ARGUMENT, "%s: layer %d is dense by %s; expected a MoE layer", path,
                   layer_idx, sy_family_dense_keys(model->family, keys, sizeof keys));
  }
  if (model->family->stacked) {
    return SY_OK; /* the shapes of its tensors say how many experts there are */
  }
  /* Fewer experts in the config than in the file would load, and compute another model. */
  char stem[SY_TENSOR_NAME_BYTES];
  sy_family_tensor_name(model->family->projections[SY_DOWN].stem, layer_idx,
                        model->info.shape.num_experts, stem, sizeof stem);
  const struct sy_checkpoint_tensor *beyond = sy_storage_lookup(checkpoint, false, stem);
  if (beyond != NULL) {
    return sy_fail(SY_ERR_FORMAT,
                   "%s: '%s' is %d, but the checkpoint has tensor '%s': expected no expert beyond "
                   "%d",
                   path, model->family->experts_key, model->info.shape.num_experts, beyond->name,
                   model->info.shape.num_experts - 1);
  }
  return SY_OK;
}

/* The index is inside the model. */
static sy_status check_experts(const sy_checkpoint *checkpoint, int32_t layer_idx,
                               sy_layer_info *info) {
  SY_TRY(sy_checkpoint_require_moe_layer(checkpoint, layer_idx));
  for (int32_t expert = 0; expert < checkpoint->model.info.shape.num_experts; ++expert) {
    struct sy_checkpoint_expert found;
    SY_TRY(sy_checkpoint_find_expert(checkpoint, layer_idx, expert, &found));
    if (expert == 0) {
      info->format = found.storage->name;
      info->dtype = found.storage->dtype;
    } else if (info->dtype != found.storage->dtype) {
      return sy_fail(SY_ERR_FORMAT,
                     "%s: layer %d: expert %d is %s, expert 0 %s; expected one format in a layer",
                     sy_path_shown(checkpoint->config_path), layer_idx, expert, found.storage->name,
                     info->format);
    }
    info->expert_bytes += found.bytes;
  }
  return SY_OK;
}

sy_status sy_checkpoint_check_layer(const sy_checkpoint *checkpoint, int32_t layer_idx,
                                    sy_layer_info *info_out) {
  if (checkpoint == NULL || !SY_DESC_OK(info_out)) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_checkpoint_check_layer: %s",
                   checkpoint == NULL ? "checkpoint is NULL" : "info_out needs SY_LAYER_INFO_INIT");
  }
  SY_TRY(sy_checkpoint_require_config(checkpoint));
  const struct sy_checkpoint_model *model = &checkpoint->model;
  sy_layer_info info = SY_LAYER_INFO_INIT;
  info.struct_size = info_out->struct_size;
  info.is_dense = layer_idx >= 0 && layer_idx < model->info.num_layers &&
                  sy_checkpoint_layer_is_dense(model, layer_idx);
  if (info.is_dense == 0) {
    SY_TRY(check_experts(checkpoint, layer_idx, &info));
  }
  *info_out = info;
  return SY_OK;
}
