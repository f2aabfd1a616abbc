/* An expert's weights from the caller's memory. */
#include <math.h>

#include "kernels/source.h"
#include "runtime/internal.h"

static const char *dtype_name(sy_dtype dtype) {
  static const char *const names[] = {"bf16", "f32", "f16", "f8_e4m3", "nvfp4", "mxfp4"};
  return names[dtype];
}

/* FP4 weights are taken code for code: in another format, or as BF16, they would be other weights. */
static sy_status check_dtype(const sy_layer *layer, sy_dtype dtype) {
  SY_TRY(sy_check_range("weights.dtype", (int64_t)dtype, SY_DTYPE_BF16, SY_DTYPE_MXFP4));
  const sy_format format = dtype == SY_DTYPE_MXFP4 ? SY_FORMAT_MXFP4 : SY_FORMAT_NVFP4;
  if (sy_dtype_is_fp4(dtype)) {
    return sy_layer_check_format(layer, format);
  }
  return SY_OK;
}

/* Exactly the pointers that the shape and the dtype ask for. */
static sy_status check_pointers(const sy_layer *layer, const sy_expert_weights *weights) {
  const bool gated = layer->env.activation != SY_ACTIVATION_RELU2;
  const bool bias = layer->env.has_bias;
  const bool scales = weights->dtype == SY_DTYPE_F8_E4M3 || sy_dtype_is_fp4(weights->dtype);
  const struct {
    const char *name;
    const void *pointer;
    bool wanted;
  } fields[] = {{"gate", weights->gate, gated},
                {"up", weights->up, true},
                {"down", weights->down, true},
                {"gate_bias", weights->gate_bias, bias && gated},
                {"up_bias", weights->up_bias, bias},
                {"down_bias", weights->down_bias, bias},
                {"gate_scales", weights->gate_scales, scales && gated},
                {"up_scales", weights->up_scales, scales},
                {"down_scales", weights->down_scales, scales}};
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; ++i) {
    if ((fields[i].pointer != NULL) != fields[i].wanted) {
      return sy_fail(SY_ERR_ARGUMENT,
                     "weights.%s is %sNULL, but the layer's shape and dtype %s want it %s",
                     fields[i].name, fields[i].pointer == NULL ? "" : "not ",
                     dtype_name(weights->dtype), fields[i].wanted ? "given" : "left out");
    }
  }
  return SY_OK;
}

static sy_status check_globals(const sy_layer *layer, const sy_expert_weights *weights) {
  const bool gated = layer->env.activation != SY_ACTIVATION_RELU2;
  const struct {
    const char *name;
    float value;
  } fields[] = {{"gate_global", gated ? weights->gate_global : 0.0f},
                {"up_global", weights->up_global},
                {"down_global", weights->down_global}};
  for (size_t i = 0; i < 3 && weights->dtype == SY_DTYPE_NVFP4; ++i) {
    if (!(isfinite(fields[i].value) && fields[i].value >= 0.0f)) {
      return sy_fail(SY_ERR_ARGUMENT, "weights.%s is %g; allowed: finite, 0 or more",
                     fields[i].name, (double)fields[i].value);
    }
  }
  return SY_OK;
}

/* Errors are the thread's (sy_last_error(NULL)): experts may load concurrently. */
sy_status sy_layer_load_expert(sy_layer *layer, int32_t local_expert,
                               const sy_expert_weights *weights) {
  if (layer == NULL || !SY_DESC_OK(weights)) {
    return sy_fail(SY_ERR_ARGUMENT,
                   "layer is NULL, or weights not initialised with SY_EXPERT_WEIGHTS_INIT");
  }
  if (local_expert < 0 || local_expert >= layer->env.local_experts) {
    return sy_fail(SY_ERR_ARGUMENT, "local expert is %d; rank %d owns %d experts",
                   (int)local_expert, (int)layer->env.rank, (int)layer->env.local_experts);
  }
  SY_TRY(check_dtype(layer, weights->dtype));
  SY_TRY(check_pointers(layer, weights));
  SY_TRY(check_globals(layer, weights));
  struct sy_memory_source source;
  sy_memory_source_make(weights, layer->env.hidden, layer->env.intermediate, &source);
  struct sy_bad_weight bad;
  return sy_layer_load_source(layer, local_expert, &source.base, &bad);
}
