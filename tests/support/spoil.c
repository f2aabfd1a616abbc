#include "tests/support/spoil.h"

#include "tests/support/harness.h"

sy_shape spoil_shape(void) {
  return small_shape(SY_MODE_W4A4, SPOIL_HIDDEN, 48, SPOIL_EXPERTS, SPOIL_TOP_K);
}

struct call_options spoil_options(void) {
  return (struct call_options){.own_scratch = true, .max_tokens = 9, .wave_tokens = 9};
}

/* ---- Routing ---- */

/* All tokens name expert 0, but for one slot. */
static void name_expert(struct layer_call *call, int32_t id) {
  static int32_t ids[64 * SPOIL_TOP_K];
  memset(ids, 0, sizeof ids);
  ids[1 * SPOIL_TOP_K + 2] = id;
  call->io.expert_ids = ids;
}

static void id_too_large(struct layer_call *call) { name_expert(call, SPOIL_EXPERTS); }
static void id_below_masked(struct layer_call *call) { name_expert(call, -2); }
static void id_far_off(struct layer_call *call) { name_expert(call, INT32_MIN); }

/* ---- io ---- */

static void too_many_tokens(struct layer_call *call) { call->io.num_tokens = 10; }
static void negative_tokens(struct layer_call *call) { call->io.num_tokens = -1; }
static void no_hidden(struct layer_call *call) { call->io.hidden = NULL; }
static void no_ids(struct layer_call *call) { call->io.expert_ids = NULL; }
static void no_weights(struct layer_call *call) { call->io.expert_weights = NULL; }
static void no_output(struct layer_call *call) { call->io.output = NULL; }
static void short_stride(struct layer_call *call) { call->io.hidden_stride = 2 * SPOIL_HIDDEN - 2; }
static void odd_stride(struct layer_call *call) {
  call->io.expert_ids_stride = 4 * SPOIL_TOP_K + 1;
}
static void negative_stride(struct layer_call *call) { call->io.output_stride = -64; }
static void shifted_weights(struct layer_call *call) {
  call->io.expert_weights =
      (const float *)(const void *)((const char *)call->io.expert_weights + 2);
}
static void shifted_output(struct layer_call *call) {
  call->io.output = (char *)call->io.output + 1;
}
static void strange_memory(struct layer_call *call) {
  const bool has_device = sy_group_memory(call->rank->group) == SY_MEMORY_DEVICE;
  call->io.memory = has_device ? (sy_memory)2 : SY_MEMORY_DEVICE;
}
static void strange_dtype(struct layer_call *call) { call->io.output_dtype = (sy_dtype)7; }
static void old_io(struct layer_call *call) { call->io.struct_size = 8; }

/* ---- Plan and scratch ---- */

static void small_scratch(struct layer_call *call) { call->scratch_bytes -= 1; }
static void shifted_scratch(struct layer_call *call) { call->scratch = (char *)call->scratch + 32; }
static void no_plan(struct layer_call *call) { call->plan = NULL; }

static void other_plan(struct layer_call *call, const sy_shape *shape, int32_t world,
                       int64_t max_tokens) {
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = shape;
  desc.world = world;
  desc.rank = sy_group_rank(call->rank->group);
  desc.max_tokens = max_tokens;
  call->plan = NULL;
  CHECK_OK(sy_plan_create(&desc, &call->plan));
}

static void plan_not_reserved(struct layer_call *call) {
  other_plan(call, &call->rank->c->shape, sy_group_world(call->rank->group), 100000);
}

static void plan_of_another_world(struct layer_call *call) {
  other_plan(call, &call->rank->c->shape, sy_group_world(call->rank->group) + 1, 1);
}

static void plan_of_another_shape(struct layer_call *call) {
  sy_shape shape = call->rank->c->shape;
  shape.intermediate += 16;
  other_plan(call, &shape, sy_group_world(call->rank->group), 1);
}

/* ---- The list ---- */

static const struct spoil list[] = {
    {"an id too large",
     SY_ERR_ROUTING,
     {"token 1, top-k slot 2", "expert id 8", "num_experts"},
     id_too_large},
    {"an id of -2",
     SY_ERR_ROUTING,
     {"token 1, top-k slot 2", "expert id -2", "-1 (masked)"},
     id_below_masked},
    {"an id far off", SY_ERR_ROUTING, {"expert id -2147483648"}, id_far_off},
    {"too many tokens", SY_ERR_ARGUMENT, {"io.num_tokens is 10", "0..9"}, too_many_tokens},
    {"negative tokens", SY_ERR_ARGUMENT, {"io.num_tokens is -1", "0..9"}, negative_tokens},
    {"no hidden", SY_ERR_ARGUMENT, {"io.hidden is NULL"}, no_hidden},
    {"no ids", SY_ERR_ARGUMENT, {"io.expert_ids is NULL"}, no_ids},
    {"no weights", SY_ERR_ARGUMENT, {"io.expert_weights is NULL"}, no_weights},
    {"no output", SY_ERR_ARGUMENT, {"io.output is NULL"}, no_output},
    {"a stride below a row", SY_ERR_ARGUMENT, {"io.hidden", "stride of 62 bytes"}, short_stride},
    {"an odd stride",
     SY_ERR_ARGUMENT,
     {"io.expert_ids", "stride of 13", "multiple of 4"},
     odd_stride},
    {"a negative stride", SY_ERR_ARGUMENT, {"io.output", "stride of -64"}, negative_stride},
    {"shifted weights",
     SY_ERR_ARGUMENT,
     {"io.expert_weights is not aligned to 4"},
     shifted_weights},
    {"a shifted output", SY_ERR_ARGUMENT, {"io.output is not aligned to 2"}, shifted_output},
    {"memory of another kind", SY_ERR_UNSUPPORTED, {"io.memory is "}, strange_memory},
    {"a strange dtype",
     SY_ERR_ARGUMENT,
     {"io.output_dtype is 7", "0 (bf16), 1 (f32)"},
     strange_dtype},
    {"an old io", SY_ERR_ARGUMENT, {"io.struct_size is 8"}, old_io},
    {"a scratch one byte short",
     SY_ERR_TOO_SMALL,
     {"scratch has ", "the plan needs "},
     small_scratch},
    {"a shifted scratch", SY_ERR_ARGUMENT, {"scratch is not aligned to 64"}, shifted_scratch},
    {"no plan", SY_ERR_ARGUMENT, {"plan is NULL"}, no_plan},
    {"a plan not reserved", SY_ERR_STATE, {"reserved", "sy_group_reserve"}, plan_not_reserved},
    {"a plan of another world", SY_ERR_ARGUMENT, {"the plan is for rank"}, plan_of_another_world},
    {"a plan of another shape", SY_ERR_ARGUMENT, {"different shapes"}, plan_of_another_shape},
};

const struct spoil *spoils(size_t *count_out) {
  *count_out = sizeof list / sizeof list[0];
  return list;
}

struct spoilt spoil_apply(const struct spoil *spoil, struct layer_call *call) {
  const struct spoilt spoilt = {.before = *call};
  spoil->apply(call);
  return spoilt;
}

void spoil_undo(const struct spoilt *spoilt, struct layer_call *call) {
  if (call->plan != spoilt->before.plan) {
    sy_plan_destroy(call->plan);
  }
  *call = spoilt->before;
}
