/* DeepSeek-V3, DeepSeek-R1, and what has their layout. The first layers are dense; the shared experts
 * are the caller's. The layers of multi-token prediction lie beyond num_hidden_layers. */
#include "runtime/checkpoint/family.h"

#define EXPERT "model.layers.{layer}.mlp.experts.{expert}."

const struct sy_family sy_family_deepseek_v3 = {
    .name = "deepseek_v3",
    .layers_key = "num_hidden_layers",
    .hidden_key = "hidden_size",
    .intermediate_key = "moe_intermediate_size",
    .experts_key = "n_routed_experts",
    .top_k_key = "num_experts_per_tok",
    .activation_key = "hidden_act",
    .activation_value = "silu",
    .activation = SY_ACTIVATION_SWIGLU,
    .first_sparse_key = "first_k_dense_replace",
    .sparse_step_key = "moe_layer_freq",
    .projections = {[SY_GATE] = {.stem = EXPERT "gate_proj", .row_step = 1},
                    [SY_UP] = {.stem = EXPERT "up_proj", .row_step = 1},
                    [SY_DOWN] = {.stem = EXPERT "down_proj", .row_step = 1}},
};
