/* Loads a rank's experts: first finds and checks all their tensors, then has the kernels pull them
 * from the files, expert after expert, each with all threads. */
#include <stdio.h>
#include <string.h>

#include "runtime/checkpoint/expert_source.h"
#include "runtime/checkpoint/file.h"
#include "runtime/internal.h"

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
  const bool clamped = want->activation == SY_ACTIVATION_SWIGLU_CLAMPED;
  if (clamped &&
      (have->swiglu_alpha != want->swiglu_alpha || have->swiglu_limit != want->swiglu_limit)) {
    return sy_fail(SY_ERR_ARGUMENT,
                   "the layer's swiglu_alpha is %g and its swiglu_limit %g; expected %g and %g, as "
                   "%s says",
                   (double)have->swiglu_alpha, (double)have->swiglu_limit,
                   (double)want->swiglu_alpha, (double)want->swiglu_limit,
                   sy_path_shown(checkpoint->config_path));
  }
  return SY_OK;
}

/* The sentence of a failure, and which tensor it is about. */
static sy_status fail_tensor(sy_status status, const struct sy_checkpoint_tensor *tensor) {
  char text[SY_ERROR_TEXT_BYTES]; /* sy_fail overwrites what sy_last_error points to */
  snprintf(text, sizeof text, "%s", sy_last_error(NULL));
  return sy_fail(status, "%s: tensor '%s': %s", sy_path_shown(tensor->file->path), tensor->name,
                 text);
}

/* The layer must take what is FP4 already. */
static sy_status check_format(const sy_layer *layer, const struct sy_checkpoint_expert *expert) {
  if (!sy_dtype_is_fp4(expert->storage->dtype)) {
    return SY_OK;
  }
  const sy_format format =
      expert->storage->dtype == SY_DTYPE_MXFP4 ? SY_FORMAT_MXFP4 : SY_FORMAT_NVFP4;
  const sy_status status = sy_layer_check_format(layer, format);
  return status == SY_OK ? SY_OK : fail_tensor(status, expert->projections[SY_UP].weight);
}

/* The tensor that holds a value or a scale which cannot be loaded. */
static const struct sy_checkpoint_tensor *culprit_of(const struct sy_checkpoint_expert *expert,
                                                     const struct sy_bad_weight *bad) {
  static const char *const names[] = {"gate", "up", "down"};
  int p = 0;
  while (p < SY_DOWN && strncmp(bad->projection, names[p], strlen(names[p])) != 0) {
    ++p;
  }
  const bool is_bias = bad->projection[strlen(names[p])] != '\0';
  const struct sy_checkpoint_projection *projection = &expert->projections[p];
  return is_bias                ? projection->bias
         : bad->scale_code >= 0 ? projection->scales
                                : projection->weight;
}

static sy_status load_expert(sy_layer *layer, int32_t local_expert,
                             const struct sy_checkpoint_expert *expert) {
  struct sy_expert_source source;
  struct sy_bad_weight bad = {.projection = NULL};
  sy_status status = sy_expert_source_open(expert, &source);
  if (status == SY_OK) {
    status = sy_layer_load_source(layer, local_expert, &source.base, &bad);
    if (bad.projection != NULL) {
      fail_tensor(status, culprit_of(expert, &bad));
    } else if (source.error[0] != '\0') {
      sy_fail(status, "%s", source.error);
    }
  }
  sy_expert_source_close(&source);
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
    SY_TRY(check_format(layer, &expert));
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
