/* forward on a GPU: the halves of forward.c, enqueued on the caller's stream. With device tensors,
 * fixed and gather never wait: a fault is noted on the device and told by sy_group_wait, waves and
 * chunks are as many as the plan allows, and a CUDA graph can keep the whole call. exact waits once
 * per wave, for the sizes; with host tensors the call waits for the output as well. */
#include <string.h>

#include "runtime/exchange_device.h"
#include "runtime/gpu.h"

static bool has_fault(const struct sy_step *step) { return step->fault.kind != SY_FAULT_NONE; }

static bool on_host(const struct sy_step *step) { return step->io.memory == SY_MEMORY_HOST; }

/* ---- Tensors ---- */

/* A tensor of this wave, where the device reads it. */
struct tensor {
  const void *data;
  int64_t stride;
};

static struct tensor wave_tensor(const struct sy_step *step, const void *caller, int64_t stride,
                                 const void *staged, int64_t row_bytes) {
  return on_host(step) ? (struct tensor){staged, row_bytes}
                       : (struct tensor){sy_step_wave_row(step, caller, stride), stride};
}

static void copy_rows(void *to, int64_t to_stride, const void *from, int64_t from_stride,
                      int64_t row_bytes, int64_t rows) {
  for (int64_t r = 0; r < rows; ++r) {
    memcpy((char *)to + r * to_stride, (const char *)from + r * from_stride, (size_t)row_bytes);
  }
}

/* One host tensor of this wave, through pinned memory. */
static sy_status stage_tensor(sy_group *group, void *on_device, void *pinned, const void *caller,
                              int64_t stride, int64_t row_bytes) {
  const struct sy_step *step = &group->step;
  copy_rows(pinned, row_bytes, sy_step_wave_row(step, caller, stride), stride, row_bytes,
            step->wave_tokens);
  return group->device->copy(on_device, pinned, (size_t)(step->wave_tokens * row_bytes),
                             step->env.stream);
}

static int64_t output_row_bytes(const struct sy_step *step) {
  return step->env.hidden * (step->io.output_dtype == SY_DTYPE_F32 ? 4 : 2);
}

/* Pinned memory is free: the call has waited for the wave before. */
static sy_status stage_in(sy_group *group) {
  const struct sy_step *step = &group->step;
  const sy_io *io = &step->io;
  if (step->wave_tokens == 0) {
    return SY_OK;
  }
  const struct sy_staging device = sy_gpu_staging(group, &step->plan->dims, SY_MEMORY_DEVICE);
  const struct sy_staging pinned = sy_gpu_staging(group, &step->plan->dims, SY_MEMORY_HOST);
  SY_TRY(stage_tensor(group, device.hidden, pinned.hidden, io->hidden, io->hidden_stride,
                      2 * step->env.hidden));
  SY_TRY(stage_tensor(group, device.expert_ids, pinned.expert_ids, io->expert_ids,
                      io->expert_ids_stride, 4 * (int64_t)step->env.top_k));
  SY_TRY(stage_tensor(group, device.expert_weights, pinned.expert_weights, io->expert_weights,
                      io->expert_weights_stride, 4 * (int64_t)step->env.top_k));
  return io->accumulate == 0 ? SY_OK
                             : stage_tensor(group, device.output, pinned.output, io->output,
                                            io->output_stride, output_row_bytes(step));
}

/* Waits; outputs stay untouched when something was noted on the device. */
static sy_status stage_out(sy_group *group) {
  const struct sy_step *step = &group->step;
  const sy_io *io = &step->io;
  const struct sy_staging device = sy_gpu_staging(group, &step->plan->dims, SY_MEMORY_DEVICE);
  const struct sy_staging pinned = sy_gpu_staging(group, &step->plan->dims, SY_MEMORY_HOST);
  const int64_t row_bytes = output_row_bytes(step);
  if (step->wave_tokens > 0) {
    SY_TRY(
        sy_gpu_check(group,
                     group->device->copy(pinned.output, device.output,
                                         (size_t)(step->wave_tokens * row_bytes), step->env.stream),
                     "combine"));
  }
  SY_TRY(sy_gpu_await(group, step->env.stream, group->desc.timeout_ms, "combine"));
  SY_TRY(sy_gpu_report(group));
  if (step->wave_tokens > 0) {
    copy_rows((char *)io->output + step->wave_begin * io->output_stride, io->output_stride,
              pinned.output, row_bytes, row_bytes, step->wave_tokens);
  }
  return SY_OK;
}

/* ---- Dispatch ---- */

static sy_status route(sy_group *group, const struct sy_staging *staged) {
  const struct sy_step *step = &group->step;
  const sy_io *io = &step->io;
  const int64_t row_bytes = 4 * (int64_t)step->env.top_k;
  const struct tensor ids =
      wave_tensor(step, io->expert_ids, io->expert_ids_stride, staged->expert_ids, row_bytes);
  const struct tensor weights = wave_tensor(step, io->expert_weights, io->expert_weights_stride,
                                            staged->expert_weights, row_bytes);
  struct sy_route_args args = sy_step_route_args(step);
  args.expert_ids = ids.data;
  args.expert_ids_stride = ids.stride;
  args.expert_weights = weights.data;
  args.expert_weights_stride = weights.stride;
  if (!on_host(step)) { /* those were looked at on the host */
    const struct sy_note_ids_args note = {.route = args,
                                          .first_token = step->wave_begin,
                                          .fault = SY_FAULT_EXPERT_ID,
                                          .step = group->num_steps,
                                          .noted = group->gpu->fault};
    SY_TRY(group->device->note_ids(&step->env, &note));
  }
  return group->kernels->route(&step->env, &args);
}

static sy_status pack(sy_group *group, const struct sy_staging *staged) {
  const struct sy_step *step = &group->step;
  const struct tensor hidden = wave_tensor(step, step->io.hidden, step->io.hidden_stride,
                                           staged->hidden, 2 * step->env.hidden);
  struct sy_pack_args args = sy_step_pack_args(step);
  args.hidden = hidden.data;
  args.hidden_stride = hidden.stride;
  args.landing = group->gpu->send_landing;
  return group->kernels->pack(&step->env, &args);
}

static sy_status dispatch_start(sy_group *group) {
  struct sy_step *step = &group->step;
  const bool headers_first = sy_device_headers_first(step);
  struct sy_staging staged = {0};
  if (!has_fault(step)) {
    sy_step_begin_wave(step);
    if (on_host(step)) {
      staged = sy_gpu_staging(group, &step->plan->dims, SY_MEMORY_DEVICE);
      SY_TRY(sy_gpu_check(group, stage_in(group), "route"));
    }
    SY_TRY(sy_gpu_check(group, route(group, &staged), "route"));
  }
  if (headers_first) {
    SY_TRY(sy_device_exchange_headers(group)); /* from here on nobody has a fault */
  }
  if (step->wave == 0 && headers_first) {
    step->num_waves = sy_step_count_waves(group);
  } else if (step->wave == 0 && step->call == SY_WIRE_CALL_FORWARD) {
    step->num_waves = step->plan->info.max_waves;
  }
  SY_TRY(sy_device_open(group, SY_DISPATCH));
  if (!has_fault(step)) {
    SY_TRY(sy_gpu_check(group, pack(group, &staged), "pack"));
  }
  SY_TRY(sy_device_send(group, SY_DISPATCH));
  step->phase = SY_DISPATCHING;
  return SY_OK;
}

static sy_status dispatch_finish(sy_group *group) {
  SY_TRY(sy_device_receive(group, SY_DISPATCH));
  group->step.phase = SY_DISPATCHED;
  return SY_OK;
}

/* ---- Experts ---- */

static sy_status compute_chunk(sy_group *group, bool first) {
  struct sy_step *step = &group->step;
  const struct sy_scratch *s = &step->scratch;
  struct sy_gpu *gpu = group->gpu;
  const sy_layer *layer = step->layer;
  const int64_t max_rows = step->plan->dims.chunk_rows;
  const struct sy_group_args group_args = {.received = gpu->received,
                                           .received_rows = gpu->received_rows,
                                           .landing = gpu->return_landing,
                                           .max_rows = max_rows,
                                           .cursor = gpu->cursor,
                                           .routed = gpu->routed,
                                           .load_counts = layer->load_counts};
  SY_TRY(group->kernels->group(&step->env, &group_args));
  const struct sy_count_chunk_args count_args = {
      .routed = gpu->routed, .active = layer->active, .first = first, .counts = gpu->counts};
  SY_TRY(group->device->count_chunk(&step->env, &count_args));
  const struct sy_experts_args experts_args = {.routed = gpu->routed,
                                               .max_rows = max_rows,
                                               .weights = layer->weights,
                                               .expert_bytes = layer->expert_bytes,
                                               .intermediate = s->intermediate,
                                               .intermediate_scales = s->intermediate_scales,
                                               .intermediate_global = s->intermediate_global,
                                               .expert_out = s->expert_out};
  SY_TRY(group->kernels->experts(&step->env, &experts_args));
  const struct sy_reduce_args reduce_args = {
      .routed = gpu->routed, .max_rows = max_rows, .expert_out = s->expert_out};
  return group->kernels->reduce(&step->env, &reduce_args);
}

/* Chunks that hold all received rows: those there are, or those there can be. */
static int64_t count_chunks(const sy_group *group) {
  const struct sy_step *step = &group->step;
  if (!sy_device_headers_first(step)) {
    return step->plan->info.max_chunks;
  }
  int64_t rows = 0;
  for (int32_t p = 0; p < group->world; ++p) {
    rows += group->headers[p].rows;
  }
  return (rows + step->plan->dims.chunk_rows - 1) / step->plan->dims.chunk_rows;
}

static sy_status experts(sy_group *group) {
  struct sy_step *step = &group->step;
  SY_TRY(sy_device_open(group, SY_RETURN));
  group->stats.local_experts += (uint64_t)step->layer->env.local_experts;
  const int64_t num_chunks = has_fault(step) ? 0 : count_chunks(group);
  for (int64_t chunk = 0; chunk < num_chunks; ++chunk) {
    SY_TRY(sy_gpu_check(group, compute_chunk(group, chunk == 0), "experts"));
  }
  step->phase = SY_COMPUTED;
  return SY_OK;
}

/* ---- Combine ---- */

static sy_status combine_start(sy_group *group) {
  SY_TRY(sy_device_send(group, SY_RETURN));
  group->step.phase = SY_RETURNING;
  return SY_OK;
}

static sy_status combine(sy_group *group) {
  const struct sy_step *step = &group->step;
  const struct sy_scratch *s = &step->scratch;
  const sy_io *io = &step->io;
  struct sy_combine_args args = {.num_tokens = step->wave_tokens,
                                 .token_offset = s->token_offset,
                                 .token_row = s->token_row,
                                 .slot_return = s->slot_return,
                                 .returned = group->gpu->returned,
                                 .output =
                                     (char *)io->output + step->wave_begin * io->output_stride,
                                 .output_stride = io->output_stride,
                                 .output_dtype = io->output_dtype,
                                 .accumulate = io->accumulate != 0};
  if (on_host(step)) {
    args.output = sy_gpu_staging(group, &step->plan->dims, SY_MEMORY_DEVICE).output;
    args.output_stride = output_row_bytes(step);
  }
  return group->kernels->combine(&step->env, &args);
}

/* This rank's own fault: its peers have read it in the headers. */
static sy_status report_own(sy_group *group) {
  const struct sy_fault *fault = &group->step.fault;
  char text[SY_ERROR_TEXT_BYTES];
  sy_fault_text(fault, text, sizeof text);
  return sy_group_fail(group, sy_fault_status(fault), "rank %d: %s", (int)group->rank, text);
}

static sy_status combine_finish(sy_group *group) {
  struct sy_step *step = &group->step;
  SY_TRY(sy_device_receive(group, SY_RETURN));
  if (has_fault(step)) {
    return step->wave + 1 == step->num_waves ? report_own(group) : SY_OK;
  }
  SY_TRY(sy_gpu_check(group, combine(group), "combine"));
  if (on_host(step)) {
    SY_TRY(stage_out(group));
  }
  ++group->stats.waves;
  group->stats.tokens += (uint64_t)step->wave_tokens;
  return SY_OK;
}

const struct sy_road sy_road_device = {.from = {[SY_IDLE] = dispatch_start,
                                                [SY_DISPATCHING] = dispatch_finish,
                                                [SY_DISPATCHED] = experts,
                                                [SY_COMPUTED] = combine_start,
                                                [SY_RETURNING] = combine_finish}};
