/* A plan: every size that a shape and its limits imply. Local and pure. */
#include <string.h>

#include "kernels/wire.h"
#include "runtime/internal.h"
#include "runtime/memory.h"
#include "runtime/predict.h"

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

static sy_status check_desc(const sy_plan_desc *desc) {
  if (!SY_DESC_OK(desc)) {
    return sy_fail(SY_ERR_ARGUMENT, "plan desc is NULL, or not initialised with SY_PLAN_DESC_INIT");
  }
  SY_TRY(sy_check_range("max_tokens", desc->max_tokens, 1, INT32_MAX));
  SY_TRY(sy_check_range("wave_tokens", desc->wave_tokens, 0, INT32_MAX));
  SY_TRY(sy_check_range("chunk_rows", desc->chunk_rows, 0, INT64_MAX));
  SY_TRY(sy_check_range("strategy", (int64_t)desc->strategy, SY_STRATEGY_AUTO, SY_STRATEGY_GATHER));
  SY_TRY(
      sy_check_range("combine", (int64_t)desc->combine, SY_COMBINE_PER_RANK, SY_COMBINE_PER_SLOT));
  SY_TRY(sy_check_range("return_dtype", (int64_t)desc->return_dtype, SY_DTYPE_BF16, SY_DTYPE_F32));
  SY_TRY(sy_check_range("numerics", (int64_t)desc->numerics, SY_NUMERICS_INVARIANT,
                        SY_NUMERICS_FASTEST));
  return sy_check_link(&desc->link);
}

/* What each strategy means for the sizes. */
static void set_strategy(struct sy_plan *plan, sy_strategy strategy) {
  struct sy_dims *d = &plan->dims;
  const int64_t back = min_i64(d->top_k, d->max_local_experts);
  plan->desc.strategy = strategy;
  d->exact = strategy == SY_STRATEGY_EXACT;
  d->fixed = strategy == SY_STRATEGY_FIXED;
  d->gather = strategy == SY_STRATEGY_GATHER;
  plan->info.slots_per_row = (int32_t)(d->gather ? d->top_k : back);
  d->row_bytes = sy_wire_row_make(d->mode, d->format, d->hidden, plan->info.slots_per_row).bytes;
}

static void set_dims(struct sy_plan *plan) {
  const sy_shape *shape = &plan->model.shape;
  plan->dims = (struct sy_dims){
      .world = plan->model.world,
      .top_k = shape->top_k,
      .hidden = shape->hidden,
      .intermediate = shape->intermediate,
      .local_experts = plan->model.rank_experts[plan->desc.rank],
      .max_local_experts = plan->model.max_local_experts,
      .wave_tokens = plan->desc.wave_tokens,
      .chunk_rows = plan->desc.chunk_rows,
      .mode = shape->mode,
      .format = shape->format,
      .per_slot = plan->desc.combine == SY_COMBINE_PER_SLOT,
      .return_row_bytes = sy_wire_return_row_bytes(plan->desc.return_dtype, shape->hidden)};
}

/* ---- Choosing a strategy ---- */

/* AUTO takes dispatch (exact) unless gather is predicted to be faster: on all ranks alike. */
static void choose_strategy(struct sy_plan *plan) {
  const int64_t all = plan->desc.max_tokens;
  plan->info.auto_dispatch_us = sy_predict(plan, SY_STRATEGY_EXACT, all).us;
  plan->info.auto_gather_us = sy_predict(plan, SY_STRATEGY_GATHER, all).us;
  const bool gather = plan->info.auto_gather_us < plan->info.auto_dispatch_us;
  set_strategy(plan, plan->desc.strategy != SY_STRATEGY_AUTO ? plan->desc.strategy
                     : gather                                ? SY_STRATEGY_GATHER
                                                             : SY_STRATEGY_EXACT);
}

/* ---- Waves and chunks from the budgets ---- */

static sy_status exchange_bytes(const struct sy_plan *plan, int64_t wave_tokens,
                                size_t *bytes_out) {
  struct sy_dims dims = plan->dims;
  struct sy_arena_bytes arenas;
  dims.wave_tokens = wave_tokens;
  return sy_exchange_layout(&dims, &arenas, bytes_out);
}

static sy_status scratch_bytes(const struct sy_plan *plan, int64_t chunk_rows, size_t *bytes_out) {
  struct sy_dims dims = plan->dims;
  dims.chunk_rows = chunk_rows;
  return sy_scratch_layout(&dims, NULL, NULL, bytes_out);
}

typedef sy_status (*bytes_fn)(const struct sy_plan *plan, int64_t count, size_t *bytes_out);

static bool fits(const struct sy_plan *plan, bytes_fn bytes_of, int64_t count, size_t budget) {
  size_t bytes;
  return bytes_of(plan, count, &bytes) == SY_OK && bytes <= budget;
}

/* The largest count in [1, limit] within the budget; bytes_of is monotone in it. */
static sy_status largest_within(const struct sy_plan *plan, bytes_fn bytes_of, const char *what,
                                const char *budget_name, int64_t limit, size_t budget,
                                int64_t *count_out) {
  if (!fits(plan, bytes_of, 1, budget)) {
    size_t needed;
    SY_TRY(bytes_of(plan, 1, &needed));
    return sy_fail(SY_ERR_TOO_SMALL, "%s is %zu bytes; one %s needs %zu", budget_name, budget, what,
                   needed);
  }
  int64_t low = 1;
  int64_t high = limit;
  while (low < high) {
    const int64_t middle = low + (high - low + 1) / 2;
    if (fits(plan, bytes_of, middle, budget)) {
      low = middle;
    } else {
      high = middle - 1;
    }
  }
  *count_out = low;
  return SY_OK;
}

/* C: C * K must stay below 2^31, because slots are counted in int32. */
static sy_status choose_wave(struct sy_plan *plan) {
  const int64_t most = min_i64(plan->desc.max_tokens, INT32_MAX / plan->dims.top_k);
  if (plan->desc.wave_tokens > 0) {
    plan->dims.wave_tokens = min_i64(plan->desc.wave_tokens, most);
    return SY_OK;
  }
  return largest_within(plan, exchange_bytes, "token of a wave", "exchange_budget_bytes", most,
                        plan->desc.exchange_budget_bytes, &plan->dims.wave_tokens);
}

/* M: routed rows of a chunk must stay below 2^31. A rank without experts still receives gather
 * rows. */
static sy_status choose_chunk(struct sy_plan *plan) {
  const struct sy_dims *d = &plan->dims;
  const int64_t per_row = min_i64(d->top_k, d->local_experts);
  const int64_t most = min_i64(d->world * d->wave_tokens, INT32_MAX / (per_row > 0 ? per_row : 1));
  if (plan->desc.chunk_rows > 0) {
    plan->dims.chunk_rows = min_i64(plan->desc.chunk_rows, most);
    return SY_OK;
  }
  return largest_within(plan, scratch_bytes, "received row of a chunk", "scratch_budget_bytes",
                        most, plan->desc.scratch_budget_bytes, &plan->dims.chunk_rows);
}

/* Ranks work together when everything that shapes a message or its bits is equal; M and budgets need
 * not be. */
static uint64_t hash_plan(const struct sy_plan *plan) {
  const int64_t numbers[] = {
      plan->desc.max_tokens,       plan->dims.wave_tokens,           (int64_t)plan->desc.strategy,
      (int64_t)plan->desc.combine, (int64_t)plan->desc.return_dtype, (int64_t)plan->desc.numerics};
  return sy_hash(plan->model.hash, numbers, sizeof numbers);
}

static struct sy_stage_env weight_env(const struct sy_plan *plan) {
  const sy_shape *shape = &plan->model.shape;
  return (struct sy_stage_env){.hidden = shape->hidden,
                               .intermediate = shape->intermediate,
                               .mode = shape->mode,
                               .format = shape->format,
                               .activation = shape->activation,
                               .has_bias = shape->has_bias != 0};
}

static sy_status set_info(struct sy_plan *plan) {
  const struct sy_dims *d = &plan->dims;
  const struct sy_stage_env env = weight_env(plan);
  sy_plan_info *info = &plan->info;
  SY_TRY(sy_exchange_layout(d, &plan->arenas, &info->exchange_bytes));
  SY_TRY(sy_scratch_layout(d, NULL, NULL, &info->scratch_bytes));
  info->struct_size = sizeof *info;
  info->wave_tokens = d->wave_tokens;
  info->chunk_rows = d->chunk_rows;
  info->max_waves = (plan->desc.max_tokens + d->wave_tokens - 1) / d->wave_tokens;
  info->max_chunks = (d->world * d->wave_tokens + d->chunk_rows - 1) / d->chunk_rows;
  info->local_experts = (int32_t)d->local_experts;
  info->max_local_experts = (int32_t)d->max_local_experts;
  info->strategy = plan->desc.strategy;
  info->row_bytes = d->row_bytes;
  info->return_row_bytes = d->return_row_bytes;
  info->weight_bytes = (size_t)d->local_experts * sy_kernels_cpu()->expert_bytes(&env);
  info->hash = hash_plan(plan);
  const struct sy_prediction prediction = sy_predict(plan, info->strategy, d->wave_tokens);
  info->exchange_us = prediction.us;
  info->exchange_traffic_bytes = prediction.rank_bytes;
  return SY_OK;
}

static sy_status build(struct sy_plan *plan) {
  SY_TRY(sy_check_range("rank", plan->desc.rank, 0, plan->desc.world - 1));
  set_dims(plan);
  choose_strategy(plan);
  SY_TRY(choose_wave(plan));
  SY_TRY(choose_chunk(plan));
  const sy_status status = set_info(plan);
  return status == SY_ERR_OVERFLOW ? sy_fail(status, "the plan's buffers exceed SIZE_MAX bytes")
                                   : status;
}

sy_status sy_plan_create(const sy_plan_desc *desc, sy_plan **plan_out) {
  if (plan_out == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "plan_out is NULL");
  }
  SY_TRY(check_desc(desc));
  struct sy_plan *plan = sy_alloc(sizeof *plan);
  if (plan == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%zu bytes for a plan cannot be allocated", sizeof *plan);
  }
  memset(plan, 0, sizeof *plan);
  plan->desc = *desc;
  sy_status status = sy_model_resolve(desc->shape, desc->world, &plan->model);
  plan->desc.shape = &plan->model.shape;
  if (status == SY_OK) {
    status = build(plan);
  }
  if (status != SY_OK) {
    sy_plan_destroy(plan);
    return status;
  }
  *plan_out = plan;
  return SY_OK;
}

void sy_plan_destroy(sy_plan *plan) {
  if (plan != NULL) {
    sy_model_release(&plan->model);
    sy_free(plan);
  }
}

sy_status sy_plan_query(const sy_plan *plan, sy_plan_info *info_out) {
  if (plan == NULL || !SY_DESC_OK(info_out)) {
    return sy_fail(SY_ERR_ARGUMENT, "plan is NULL, or info not initialised with SY_PLAN_INFO_INIT");
  }
  *info_out = plan->info;
  return SY_OK;
}

size_t sy_plan_scratch_bytes(const sy_plan *plan) {
  return plan == NULL ? 0 : plan->info.scratch_bytes;
}

sy_status sy_plan_describe(const sy_plan *plan, sy_buffer_info *buffers_out, size_t capacity,
                           size_t *count_out) {
  if (plan == NULL || count_out == NULL || (buffers_out == NULL && capacity > 0)) {
    return sy_fail(SY_ERR_ARGUMENT, "plan, buffers_out or count_out is NULL");
  }
  *count_out = sy_layout_describe(&plan->dims, NULL, 0);
  if (capacity < *count_out) {
    return sy_fail(SY_ERR_TOO_SMALL, "capacity is %zu; the plan has %zu buffers", capacity,
                   *count_out);
  }
  sy_layout_describe(&plan->dims, buffers_out, capacity);
  return SY_OK;
}
