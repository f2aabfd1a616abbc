/* Loads a rank's experts: first finds and checks all their tensors, then reads each once. */
#include <stdio.h>
#include <string.h>

#include "kernels/fp4.h"
#include "runtime/checkpoint/experts.h"
#include "runtime/checkpoint/file.h"
#include "runtime/internal.h"
#include "runtime/memory.h"

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

static bool is_finite(const uint16_t *values, size_t bytes) {
  bool finite = true;
  for (size_t i = 0; finite && i < bytes / sizeof *values; ++i) {
    finite = sy_is_finite(sy_bf16_to_f32(values[i]));
  }
  return finite;
}

/* sy_layer_load_expert says what is wrong; where the weights came from is known here. */
static sy_status fail_expert(const struct sy_checkpoint_expert *expert,
                             void *const values[SY_NUM_PROJECTIONS], sy_status status) {
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

static sy_status load_expert(sy_layer *layer, int32_t local_expert,
                             const struct sy_checkpoint_expert *expert) {
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
    status = sy_layer_load_expert(layer, local_expert, &weights);
    status = status == SY_OK ? SY_OK : fail_expert(expert, values, status);
  }
  for (int p = 0; p < SY_NUM_PROJECTIONS; ++p) {
    sy_free(values[p]);
  }
  return status;
}

static sy_status load(sy_layer *layer, const sy_checkpoint *checkpoint, int32_t layer_idx) {
  SY_TRY(sy_checkpoint_require_moe_layer(checkpoint, layer_idx));
  SY_TRY(check_layer(layer, checkpoint));
  const int32_t num_experts = sy_layer_num_local_experts(layer);
  struct sy_checkpoint_expert expert;
  uint64_t total_bytes = 0;
  for (int32_t local = 0; local < num_experts; ++local) {
    SY_TRY(sy_checkpoint_find_expert(checkpoint, layer_idx, sy_layer_global_expert(layer, local),
                                     &expert));
    total_bytes += expert.bytes;
  }
  char what[32];
  snprintf(what, sizeof what, "layer %d", layer_idx);
  uint64_t done_bytes = 0;
  for (int32_t local = 0; local < num_experts; ++local) {
    SY_TRY(sy_checkpoint_find_expert(checkpoint, layer_idx, sy_layer_global_expert(layer, local),
                                     &expert));
    SY_TRY(load_expert(layer, local, &expert));
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
