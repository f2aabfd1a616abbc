/* forward: the road of a token, one wave at a time; here in host memory, where every stage has ended
 * when it returns. forward_device.c has the same halves on a GPU's stream.
 *
 *   dispatch_start   route, pack, dispatch          dispatch_finish  received rows are here
 *   experts          group, experts, reduce, chunk by chunk
 *   combine_start    return                         combine_finish   combine
 *
 * sy_forward walks it once per wave; the public halves walk one wave. */
#include <string.h>

#include "comm/clock.h"
#include "runtime/gpu.h"
#include "runtime/internal.h"

/* Adds the time since *since to a counter of the stats, and moves *since on. */
static void count_ns(uint64_t *counter_ns, int64_t *since) {
  const int64_t now = sy_clock_ns();
  *counter_ns += (uint64_t)(now - *since);
  *since = now;
}

/* Takes note when a stage wrote past a buffer (debug builds). */
static void check_fences(struct sy_step *step, int64_t stage) {
  const int buffer = sy_scratch_check_fences(&step->plan->dims, step->scratch_base);
  if (buffer >= 0 && step->fault.kind == SY_FAULT_NONE) {
    step->fault = (struct sy_fault){.kind = SY_FAULT_FENCE, .detail = {buffer, stage, 0}};
  }
}

void sy_step_end(sy_group *group) {
  struct sy_step *step = &group->step;
  if (step->scratch_base != NULL && group->device == NULL) {
    sy_scratch_unfence(&step->plan->dims, step->scratch_base);
  }
  memset(step, 0, sizeof *step);
}

static sy_status end_step(sy_group *group, sy_status status) {
  sy_step_end(group);
  return status;
}

static sy_status begin_step(sy_layer *layer, const sy_plan *plan, const sy_io *io, void *scratch,
                            size_t scratch_bytes, void *stream, enum sy_wire_call call) {
  if (layer == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "layer is NULL");
  }
  sy_group *group = layer->group;
  SY_TRY(sy_group_check_alive(group));
  if (group->step.phase != SY_IDLE) {
    return sy_group_fail(group, SY_ERR_STATE, "rank %d: another forward is in flight",
                         (int)group->rank);
  }
  struct sy_step *step = &group->step;
  *step = (struct sy_step){.call = call, .layer = layer, .plan = plan, .num_waves = 1};
  if (group->device != NULL) {
    SY_TRY(sy_gpu_begin(group, io, stream));
  }
  ++group->num_steps;
  const sy_status status = sy_check_call(group, io, scratch, scratch_bytes, stream);
  if (status != SY_OK) {
    return end_step(group, status);
  }
  if (step->fault.kind == SY_FAULT_NONE) {
    size_t bytes;
    sy_scratch_layout(&plan->dims, step->scratch_base, &step->scratch, &bytes);
    if (group->device == NULL) {
      sy_scratch_fence(&plan->dims, step->scratch_base);
    }
  }
  group->transport->ops->beat(group->transport, group->num_steps);
  return SY_OK;
}

/* ---- Dispatch ---- */

void sy_step_begin_wave(struct sy_step *step) {
  const int64_t wave_tokens = step->plan->dims.wave_tokens;
  const int64_t left = step->io.num_tokens - step->wave * wave_tokens;
  step->wave_tokens = left < 0 ? 0 : left < wave_tokens ? left : wave_tokens;
  step->wave_begin = step->wave_tokens == 0 ? 0 : step->wave * wave_tokens;
}

const void *sy_step_wave_row(const struct sy_step *step, const void *tensor, int64_t stride) {
  return tensor == NULL ? NULL : (const char *)tensor + step->wave_begin * stride;
}

struct sy_route_args sy_step_route_args(const struct sy_step *step) {
  const struct sy_scratch *s = &step->scratch;
  return (struct sy_route_args){.num_tokens = step->wave_tokens,
                                .send_offset = s->send_offset,
                                .token_offset = s->token_offset,
                                .token_row = s->token_row,
                                .send_slot_offset = s->send_slot_offset,
                                .send_slots = s->send_slots,
                                .slot_return = s->slot_return,
                                .return_rows = s->return_rows,
                                .cursor = s->route_cursor};
}

struct sy_pack_args sy_step_pack_args(const struct sy_step *step) {
  const struct sy_scratch *s = &step->scratch;
  return (struct sy_pack_args){.num_tokens = step->wave_tokens,
                               .send_offset = s->send_offset,
                               .token_offset = s->token_offset,
                               .token_row = s->token_row,
                               .send_slot_offset = s->send_slot_offset,
                               .send_slots = s->send_slots};
}

static sy_status route(sy_group *group) {
  struct sy_step *step = &group->step;
  const sy_io *io = &step->io;
  sy_step_begin_wave(step);
  struct sy_route_args args = sy_step_route_args(step);
  args.expert_ids = sy_step_wave_row(step, io->expert_ids, io->expert_ids_stride);
  args.expert_ids_stride = io->expert_ids_stride;
  args.expert_weights = sy_step_wave_row(step, io->expert_weights, io->expert_weights_stride);
  args.expert_weights_stride = io->expert_weights_stride;
  return group->kernels->route(&step->env, &args);
}

static sy_status pack(sy_group *group) {
  const struct sy_step *step = &group->step;
  struct sy_pack_args args = sy_step_pack_args(step);
  args.hidden = sy_step_wave_row(step, step->io.hidden, step->io.hidden_stride);
  args.hidden_stride = step->io.hidden_stride;
  args.landing = group->send_landing;
  return group->kernels->pack(&step->env, &args);
}

static sy_status dispatch_start(sy_group *group) {
  struct sy_step *step = &group->step;
  const bool routed = step->fault.kind == SY_FAULT_NONE;
  int64_t since = sy_clock_ns();
  if (routed) {
    SY_TRY(route(group));
    check_fences(step, 1);
    count_ns(&group->stats.route_ns, &since);
  }
  SY_TRY(sy_exchange_open(group, SY_DISPATCH));
  if (step->fault.kind == SY_FAULT_NONE) {
    SY_TRY(pack(group));
    check_fences(step, 2);
    count_ns(&group->stats.pack_ns, &since);
  }
  SY_TRY(sy_exchange_send(group, SY_DISPATCH));
  count_ns(&group->stats.dispatch_ns, &since);
  step->phase = SY_DISPATCHING;
  return SY_OK;
}

int64_t sy_step_count_waves(const sy_group *group) {
  const struct sy_step *step = &group->step;
  if (step->call == SY_WIRE_CALL_HALVES) {
    return 1;
  }
  if (step->plan->dims.fixed) {
    return step->plan->info.max_waves;
  }
  int64_t most = 1;
  for (int32_t p = 0; p < group->world; ++p) {
    most = group->headers[p].tokens > most ? group->headers[p].tokens : most;
  }
  return (most + step->plan->dims.wave_tokens - 1) / step->plan->dims.wave_tokens;
}

static sy_status dispatch_finish(sy_group *group) {
  struct sy_step *step = &group->step;
  int64_t since = sy_clock_ns();
  SY_TRY(sy_exchange_receive(group, SY_DISPATCH));
  count_ns(&group->stats.dispatch_ns, &since);
  if (step->wave == 0) {
    step->num_waves = sy_step_count_waves(group);
  }
  step->phase = SY_DISPATCHED;
  return SY_OK;
}

/* ---- Experts ---- */

struct sy_routed sy_step_routed(const struct sy_step *step) {
  const struct sy_scratch *s = &step->scratch;
  return (struct sy_routed){.received_row = s->received_row,
                            .return_row = s->return_row,
                            .row_slot_offset = s->row_slot_offset,
                            .slot_routed = s->slot_routed,
                            .routed_source = s->routed_source,
                            .routed_weight = s->routed_weight,
                            .expert_offset = s->expert_offset,
                            .active_expert = s->active_expert};
}

static void count_chunk(sy_group *group, const struct sy_routed *routed) {
  sy_layer *layer = group->step.layer;
  for (int32_t i = 0; i < routed->num_active; ++i) {
    unsigned char *active = &layer->active[routed->active_expert[i]];
    group->stats.active_experts += *active == 0 ? 1 : 0;
    *active = 1;
  }
  group->stats.received_rows += (uint64_t)routed->num_received;
  group->stats.routed_rows += (uint64_t)routed->num_routed;
}

/* group -> experts -> reduce of the next chunk. */
static sy_status compute_chunk(sy_group *group, struct sy_receive_cursor *cursor,
                               struct sy_routed *routed) {
  struct sy_step *step = &group->step;
  const struct sy_scratch *s = &step->scratch;
  sy_layer *layer = step->layer;
  int64_t since = sy_clock_ns();
  const struct sy_group_args group_args = {.received = group->received,
                                           .received_rows = group->received_rows,
                                           .landing = group->return_landing,
                                           .return_rows = group->return_rows,
                                           .max_rows = step->plan->dims.chunk_rows,
                                           .cursor = cursor,
                                           .routed = routed,
                                           .load_counts = layer->load_counts};
  SY_TRY(group->kernels->group(&step->env, &group_args));
  check_fences(step, 4);
  count_chunk(group, routed);
  count_ns(&group->stats.group_ns, &since);
  const struct sy_experts_args experts_args = {.routed = routed,
                                               .max_rows = step->plan->dims.chunk_rows,
                                               .weights = layer->weights,
                                               .expert_bytes = layer->expert_bytes,
                                               .intermediate = s->intermediate,
                                               .intermediate_scales = s->intermediate_scales,
                                               .intermediate_global = s->intermediate_global,
                                               .expert_out = s->expert_out};
  SY_TRY(group->kernels->experts(&step->env, &experts_args));
  check_fences(step, 5);
  count_ns(&group->stats.experts_ns, &since);
  const struct sy_reduce_args reduce_args = {
      .routed = routed, .max_rows = step->plan->dims.chunk_rows, .expert_out = s->expert_out};
  SY_TRY(group->kernels->reduce(&step->env, &reduce_args));
  check_fences(step, 6);
  count_ns(&group->stats.reduce_ns, &since);
  return SY_OK;
}

/* A peer's bad row is this rank's fault to report: it travels in the return headers. */
static sy_status experts(sy_group *group) {
  struct sy_step *step = &group->step;
  sy_layer *layer = step->layer;
  SY_TRY(sy_exchange_open(group, SY_RETURN));
  memset(layer->active, 0, (size_t)layer->env.local_experts);
  group->stats.local_experts += (uint64_t)layer->env.local_experts;
  struct sy_receive_cursor cursor = {0};
  struct sy_routed routed = sy_step_routed(step);
  while (cursor.rank < group->world && step->fault.kind == SY_FAULT_NONE) {
    const sy_status status = compute_chunk(group, &cursor, &routed);
    if (status == SY_ERR_MISMATCH) {
      step->fault = (struct sy_fault){.kind = SY_FAULT_RECEIVED_ROW};
    } else if (status != SY_OK) {
      return status;
    }
  }
  step->phase = SY_COMPUTED;
  return SY_OK;
}

/* ---- Combine ---- */

static sy_status combine_start(sy_group *group) {
  int64_t since = sy_clock_ns();
  SY_TRY(sy_exchange_send(group, SY_RETURN));
  count_ns(&group->stats.return_ns, &since);
  group->step.phase = SY_RETURNING;
  return SY_OK;
}

static sy_status combine_finish(sy_group *group) {
  struct sy_step *step = &group->step;
  const struct sy_scratch *s = &step->scratch;
  const sy_io *io = &step->io;
  int64_t since = sy_clock_ns();
  SY_TRY(sy_exchange_receive(group, SY_RETURN));
  count_ns(&group->stats.return_ns, &since);
  const struct sy_combine_args args = {.num_tokens = step->wave_tokens,
                                       .token_offset = s->token_offset,
                                       .token_row = s->token_row,
                                       .slot_return = s->slot_return,
                                       .returned = group->returned,
                                       .output = (char *)io->output +
                                                 step->wave_begin * io->output_stride,
                                       .output_stride = io->output_stride,
                                       .output_dtype = io->output_dtype,
                                       .accumulate = io->accumulate != 0};
  SY_TRY(group->kernels->combine(&step->env, &args));
  count_ns(&group->stats.combine_ns, &since);
  ++group->stats.waves;
  group->stats.tokens += (uint64_t)step->wave_tokens;
  return SY_OK;
}

const struct sy_road sy_road_host = {.from = {[SY_IDLE] = dispatch_start,
                                              [SY_DISPATCHING] = dispatch_finish,
                                              [SY_DISPATCHED] = experts,
                                              [SY_COMPUTED] = combine_start,
                                              [SY_RETURNING] = combine_finish}};

/* ---- Public ---- */

static sy_status walk_wave(sy_group *group) {
  for (int phase = SY_IDLE; phase < SY_NUM_PHASES; ++phase) {
    SY_TRY(group->road->from[phase](group));
  }
  return SY_OK;
}

sy_status sy_forward(sy_layer *layer, const sy_plan *plan, const sy_io *io, void *scratch,
                     size_t scratch_bytes, void *stream) {
  SY_TRY(begin_step(layer, plan, io, scratch, scratch_bytes, stream, SY_WIRE_CALL_FORWARD));
  sy_group *group = layer->group;
  struct sy_step *step = &group->step;
  sy_status status = SY_OK;
  while (status == SY_OK && step->wave < step->num_waves) {
    status = walk_wave(group);
    ++step->wave;
  }
  group->stats.forwards += status == SY_OK ? 1 : 0;
  return end_step(group, status);
}

/* Runs the half that begins in a phase, if the step stands there; an error ends the step. */
static sy_status run_half(sy_group *group, enum sy_phase phase) {
  SY_TRY(sy_group_check_alive(group));
  if (group->step.phase != phase) {
    return sy_group_fail(group, SY_ERR_STATE,
                         "rank %d: this half of forward is out of order (see sy_dispatch_start)",
                         (int)group->rank);
  }
  const sy_status status = group->road->from[phase](group);
  return status == SY_OK ? SY_OK : end_step(group, status);
}

sy_status sy_dispatch_start(sy_layer *layer, const sy_plan *plan, const sy_io *io, void *scratch,
                            size_t scratch_bytes, void *stream) {
  SY_TRY(begin_step(layer, plan, io, scratch, scratch_bytes, stream, SY_WIRE_CALL_HALVES));
  return run_half(layer->group, SY_IDLE);
}

sy_status sy_dispatch_finish(sy_group *group) { return run_half(group, SY_DISPATCHING); }

sy_status sy_experts(sy_group *group) { return run_half(group, SY_DISPATCHED); }

sy_status sy_combine_start(sy_group *group) { return run_half(group, SY_COMPUTED); }

sy_status sy_combine_finish(sy_group *group) {
  SY_TRY(run_half(group, SY_RETURNING));
  ++group->stats.forwards;
  return end_step(group, SY_OK);
}
