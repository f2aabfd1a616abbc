/* The MoE layers of well-known models, from each one's published config.json. */
#ifndef LAUNCH_MODELS_H
#define LAUNCH_MODELS_H

#include "runtime/switchyard.h"

/* deepseek-v3-ep8 is what one of 8 ranks sees when every rank has T tokens: 8 T routed rows on 32
 * experts.
 * X(identifier, name, hidden, intermediate, experts, top_k, activation, bias) */
#define MODELS(X)                                                                   \
  X(QWEN3_30B, "qwen3-30b", 2048, 768, 128, 8, SY_ACTIVATION_SWIGLU, 0)             \
  X(GPT_OSS_20B, "gpt-oss-20b", 2880, 2880, 32, 4, SY_ACTIVATION_SWIGLU_CLAMPED, 1) \
  X(DEEPSEEK_V3, "deepseek-v3", 7168, 2048, 256, 8, SY_ACTIVATION_SWIGLU, 0)        \
  X(DEEPSEEK_V3_EP8, "deepseek-v3-ep8", 7168, 2048, 32, 8, SY_ACTIVATION_SWIGLU, 0) \
  X(MIXTRAL, "mixtral", 4096, 14336, 8, 2, SY_ACTIVATION_SWIGLU, 0)                 \
  X(TINY_MOE, "tiny-moe", 256, 128, 32, 4, SY_ACTIVATION_SWIGLU, 0)

#endif
