#include "runtime/checkpoint/experts.h"

#include <stdio.h>

#include "runtime/checkpoint/file.h"
#include "runtime/internal.h"

#define SHAPE_TEXT_BYTES 192 /* eight numbers of 19 digits */

static const char *shape_text(const sy_tensor *tensor, char text[SHAPE_TEXT_BYTES]) {
  size_t used = (size_t)snprintf(text, SHAPE_TEXT_BYTES, "[");
  for (int32_t i = 0; i < tensor->num_dims; ++i) {
    used += (size_t)snprintf(text + used, SHAPE_TEXT_BYTES - used, i == 0 ? "%lld" : ", %lld",
                             (long long)tensor->shape[i]);
  }
  snprintf(text + used, SHAPE_TEXT_BYTES - used, "]");
  return text;
}

static sy_status check_tensor(const sy_checkpoint *checkpoint, enum sy_projection projection,
                              const struct sy_checkpoint_tensor *tensor) {
  const sy_shape *shape = &checkpoint->model.info.shape;
  const int64_t rows = projection == SY_DOWN ? shape->hidden : shape->intermediate;
  const int64_t columns = projection == SY_DOWN ? shape->intermediate : shape->hidden;
  const sy_tensor *found = &tensor->entry->tensor;
  const char *const path = sy_path_shown(tensor->file->path);
  if (found->dtype != SY_TENSOR_BF16) {
    return sy_fail(SY_ERR_FORMAT, "%s: tensor '%s': dtype is %s; expected BF16", path, tensor->name,
                   sy_tensor_dtype_name(found->dtype));
  }
  if (found->num_dims != 2 || found->shape[0] != rows || found->shape[1] != columns) {
    char dims[SHAPE_TEXT_BYTES];
    return sy_fail(SY_ERR_FORMAT,
                   "%s: tensor '%s': shape is %s; expected [%lld, %lld], as config.json says", path,
                   tensor->name, shape_text(found, dims), (long long)rows, (long long)columns);
  }
  return SY_OK;
}

sy_status sy_checkpoint_find_expert(const sy_checkpoint *checkpoint, int32_t layer_idx,
                                    int32_t global_expert,
                                    struct sy_checkpoint_expert *expert_out) {
  struct sy_checkpoint_expert expert = {.global_expert = global_expert};
  for (int p = 0; p < SY_NUM_PROJECTIONS; ++p) {
    char name[SY_TENSOR_NAME_BYTES];
    sy_family_tensor_name(checkpoint->model.family->weights[p], layer_idx, global_expert, name,
                          sizeof name);
    expert.tensors[p] = sy_checkpoint_find(checkpoint, name);
    if (expert.tensors[p] == NULL) {
      return SY_ERR_FORMAT;
    }
    SY_TRY(check_tensor(checkpoint, (enum sy_projection)p, expert.tensors[p]));
    expert.bytes += expert.tensors[p]->entry->tensor.bytes;
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
    return sy_fail(SY_ERR_ARGUMENT, "%s: layer %d is dense by '%s' or '%s'; expected a MoE layer",
                   path, layer_idx, model->family->dense_layers_key,
                   model->family->sparse_step_key);
  }
  /* Fewer experts in the config than in the file would load, and compute another model. */
  char name[SY_TENSOR_NAME_BYTES];
  sy_family_tensor_name(model->family->weights[SY_DOWN], layer_idx, model->info.shape.num_experts,
                        name, sizeof name);
  if (sy_checkpoint_lookup(checkpoint, name) != NULL) {
    return sy_fail(SY_ERR_FORMAT,
                   "%s: '%s' is %d, but the checkpoint has tensor '%s': expected no expert beyond "
                   "%d",
                   path, model->family->experts_key, model->info.shape.num_experts, name,
                   model->info.shape.num_experts - 1);
  }
  return SY_OK;
}

/* The index is inside the model. */
static sy_status check_experts(const sy_checkpoint *checkpoint, int32_t layer_idx,
                               sy_layer_info *info) {
  SY_TRY(sy_checkpoint_require_moe_layer(checkpoint, layer_idx));
  info->format = "bf16";
  for (int32_t expert = 0; expert < checkpoint->model.info.shape.num_experts; ++expert) {
    struct sy_checkpoint_expert found;
    SY_TRY(sy_checkpoint_find_expert(checkpoint, layer_idx, expert, &found));
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
