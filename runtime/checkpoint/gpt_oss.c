/* gpt-oss-20b and -120b: all experts of a layer in one tensor, whose rows are gate and up in turn. */
#include "runtime/checkpoint/family.h"

#define EXPERTS "model.layers.{layer}.mlp.experts."

const struct sy_family sy_family_gpt_oss = {
    .name = "gpt_oss",
    .layers_key = "num_hidden_layers",
    .hidden_key = "hidden_size",
    .intermediate_key = "intermediate_size",
    .experts_key = "num_local_experts",
    .top_k_key = "num_experts_per_tok",
    .activation_key = "hidden_act",
    .activation_value = "silu",
    .activation = SY_ACTIVATION_SWIGLU_CLAMPED,
    .limit_key = "swiglu_limit",
    .stacked = true,
    .bias = "_bias",
    .projections = {[SY_GATE] = {.stem = EXPERTS "gate_up_proj", .first_row = 0, .row_step = 2},
                    [SY_UP] = {.stem = EXPERTS "gate_up_proj", .first_row = 1, .row_step = 2},
                    [SY_DOWN] = {.stem = EXPERTS "down_proj", .row_step = 1}},
};
