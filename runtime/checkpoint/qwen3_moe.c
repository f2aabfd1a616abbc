/* Qwen3-MoE: Qwen3-30B-A3B, Qwen3-235B-A22B, and the shipped examples/tiny-moe. */
#include "runtime/checkpoint/family.h"

#define EXPERT "model.layers.{layer}.mlp.experts.{expert}."

const struct sy_family sy_family_qwen3_moe = {
    .name = "qwen3_moe",
    .layers_key = "num_hidden_layers",
    .hidden_key = "hidden_size",
    .intermediate_key = "moe_intermediate_size",
    .experts_key = "num_experts",
    .top_k_key = "num_experts_per_tok",
    .activation_key = "hidden_act",
    .activation_value = "silu",
    .activation = SY_ACTIVATION_SWIGLU,
    .dense_layers_key = "mlp_only_layers",
    .sparse_step_key = "decoder_sparse_step",
    .sparse_offset = 1,
    .projections = {[SY_GATE] = {.stem = EXPERT "gate_proj", .row_step = 1},
                    [SY_UP] = {.stem = EXPERT "up_proj", .row_step = 1},
                    [SY_DOWN] = {.stem = EXPERT "down_proj", .row_step = 1}},
};
