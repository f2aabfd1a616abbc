/* Loads a rank's experts: first finds and checks all their tensors, then reads each once. */
#include <stdio.h>
#include <string.h>

#include "kernels/fp4.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/file.h"
#include "runtime/internal.h"
#include "runtime/memory.h"

#define SHAPE_TEXT_BYTES 192 /* eight numbers of 19 digits */

struct expert {
  int32_t local_expert;
  int32_t global_expert;
  const struct sy_checkpoint_tensor *tensors[SY_NUM_PROJECTIONS];
  uint64_t bytes; /* of all of them */
};

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

static sy_status find_expert(const sy_layer *layer, const sy_checkpoint *checkpoint,
                             int32_t layer_idx, int32_t local_expert, struct expert *expert_out) {
  struct expert expert = {.local_expert = local_expert,
                          .global_expert = sy_layer_global_expert(layer, local_expert)};
  for (int p = 0; p < SY_NUM_PROJECTIONS; ++p) {
    char name[SY_TENSOR_NAME_BYTES];
    sy_family_tensor_name(checkpoint->model.family->weights[p], layer_idx, expert.global_expert,
                          name, sizeof name);
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

/* The layer may be in any mode, and choose its own top-k; what it computes must be the model's. */
static sy_status check_layer(const sy_layer *layer, const sy_checkpoint *checkpoint) {
  const sy_shape *have = sy_layer_shape(layer);
  const sy_shape *want = &checkpoint->model.info.shape;
  const struct {
    const char *name;
    int64_t have, want;
  } fields[] = {
      {"hidden", have->hidden, want->hidden},
      {"intermediate", have->intermediate, want->intermediate},
      {"num_experts", have->num_experts, want->num_experts},
      {"activation", have->activation, want->activation},
      {"has_bias", have->has_bias, want->has_bias},
  };
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; ++i) {
    if (fields[i].have != fields[i].want) {
      return sy_fail(SY_ERR_ARGUMENT, "the layer's %s is %lld; expected %lld, as %s says",
                     fields[i].name, (long long)fields[i].have, (long long)fields[i].want,
                     sy_path_shown(checkpoint->config_path));
    }
  }
  return SY_OK;
}

static sy_status check_model_layer(const sy_checkpoint *checkpoint, int32_t layer_idx) {
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

static bool is_finite(const uint16_t *values, size_t bytes) {
  bool finite = true;
  for (size_t i = 0; finite && i < bytes / sizeof *values; ++i) {
    finite = sy_is_finite(sy_bf16_to_f32(values[i]));
  }
  return finite;
}

/* sy_layer_load_expert says what is wrong; where the weights came from is known here. */
static sy_status fail_expert(const struct expert *expert, void *const values[SY_NUM_PROJECTIONS],
                             sy_status status) {
  char text[SY_ERROR_TEXT_BYTES]; /* sy_fail overwrites what sy_last_error points to */
  snprintf(text, sizeof text, "%s", sy_last_error(NULL));
  const struct sy_checkpoint_tensor *culprit = expert->tensors[0];
  for (int p = SY_NUM_PROJECTIONS - 1; p >= 0; --p) {
    if (!is_finite(values[p], expert->tensors[p]->entry->tensor.bytes)) {
      culprit = expert->tensors[p];
    }
  }
  return sy_fail(status, "%s: tensor '%s': %s", sy_path_shown(culprit->file->path), culprit->name,
                 text);
}

/* The tensor's values, to be freed. */
static sy_status fetch(const struct sy_checkpoint_tensor *tensor, void **values_out) {
  const size_t bytes = tensor->entry->tensor.bytes;
  *values_out = sy_alloc(bytes);
  if (*values_out == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: tensor '%s': no memory for its %zu bytes",
                   sy_path_shown(tensor->file->path), tensor->name, bytes);
  }
  return sy_safetensors_read(tensor->file, tensor->entry, 0, *values_out, bytes);
}

static sy_status load_expert(sy_layer *layer, const struct expert *expert) {
  void *values[SY_NUM_PROJECTIONS] = {NULL};
  sy_status status = SY_OK;
  for (int p = 0; p < SY_NUM_PROJECTIONS && status == SY_OK; ++p) {
    status = fetch(expert->tensors[p], &values[p]);
  }
  if (status == SY_OK) {
    sy_expert_weights weights = SY_EXPERT_WEIGHTS_INIT;
    weights.dtype = SY_DTYPE_BF16;
    weights.gate = values[SY_GATE];
    weights.up = values[SY_UP];
    weights.down = values[SY_DOWN];
    status = sy_layer_load_expert(layer, expert->local_expert, &weights);
    status = status == SY_OK ? SY_OK : fail_expert(expert, values, status);
  }
  for (int p = 0; p < SY_NUM_PROJECTIONS; ++p) {
    sy_free(values[p]);
  }
  return status;
}

static sy_status load(sy_layer *layer, const sy_checkpoint *checkpoint, int32_t layer_idx) {
  SY_TRY(sy_checkpoint_require_config(checkpoint));
  SY_TRY(check_model_layer(checkpoint, layer_idx));
  SY_TRY(check_layer(layer, checkpoint));
  const int32_t num_experts = sy_layer_num_local_experts(layer);
  struct expert expert;
  uint64_t total_bytes = 0;
  for (int32_t local = 0; local < num_experts; ++local) {
    SY_TRY(find_expert(layer, checkpoint, layer_idx, local, &expert));
    total_bytes += expert.bytes;
  }
  char what[32];
  snprintf(what, sizeof what, "layer %d", layer_idx);
  uint64_t done_bytes = 0;
  for (int32_t local = 0; local < num_experts; ++local) {
    SY_TRY(find_expert(layer, checkpoint, layer_idx, local, &expert));
    SY_TRY(load_expert(layer, &expert));
    done_bytes += expert.bytes;
    sy_layer_report_progress(layer, what, done_bytes, total_bytes);
  }
  return SY_OK;
}

sy_status sy_layer_load_checkpoint(sy_layer *layer, const sy_checkpoint *checkpoint,
                                   int32_t layer_idx) {
  if (layer == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_layer_load_checkpoint: layer is NULL");
  }
  const sy_status status =
      checkpoint == NULL ? sy_fail(SY_ERR_ARGUMENT, "sy_layer_load_checkpoint: checkpoint is NULL")
                         : load(layer, checkpoint, layer_idx);
  if (status != SY_OK) {
    return sy_group_fail(layer->group, status, "%s", sy_last_error(NULL));
  }
  return SY_OK;
}
