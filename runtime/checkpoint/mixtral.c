/* Mixtral: 8x7B, 8x22B. */
#include "runtime/checkpoint/family.h"

#define EXPERT "model.layers.{layer}.block_sparse_moe.experts.{expert}."

const struct sy_family sy_family_mixtral = {
    .name = "mixtral",
    .layers_key = "num_hidden_layers",
    .hidden_key = "hidden_size",
    .intermediate_key = "intermediate_size",
    .experts_key = "num_local_experts",
    .top_k_key = "num_experts_per_tok",
    .activation_key = "hidden_act",
    .activation_value = "silu",
    .activation = SY_ACTIVATION_SWIGLU,
    .projections = {[SY_GATE] = {.stem = EXPERT "w1", .row_step = 1},
                    [SY_UP] = {.stem = EXPERT "w3", .row_step = 1},
                    [SY_DOWN] = {.stem = EXPERT "w2", .row_step = 1}},
};
