/* Everything that can be wrong with a call, found before anything is sent. A rank that finds
 * something still takes part: the fault travels in its headers, and all ranks fail the same call
 * alike. */
#include "runtime/exchange_device.h"
#include "runtime/gpu.h"
#include "runtime/internal.h"

static struct sy_fault fault(enum sy_fault_kind kind, int64_t a, int64_t b, int64_t c) {
  return (struct sy_fault){.kind = kind, .detail = {a, b, c}};
}

static struct sy_fault no_fault(void) { return fault(SY_FAULT_NONE, 0, 0, 0); }

/* One tensor of io: pointer and stride; a stride of 0 becomes that of packed rows. */
static struct sy_fault check_tensor(enum sy_io_field field, const void *pointer, int64_t *stride,
                                    int64_t row_bytes, int64_t element_bytes) {
  if (pointer == NULL) {
    return fault(SY_FAULT_IO_NULL, field, 0, 0);
  }
  if ((uintptr_t)pointer % (uintptr_t)element_bytes != 0) {
    return fault(SY_FAULT_IO_ALIGNMENT, field, element_bytes, 0);
  }
  if (*stride == 0) {
    *stride = row_bytes;
  }
  if (*stride < row_bytes || *stride % element_bytes != 0) {
    return fault(SY_FAULT_IO_STRIDE, field, *stride, element_bytes);
  }
  return no_fault();
}

/* Device tensors: CUDA knows which pointers its kernels can use. */
static struct sy_fault check_places(const sy_group *group, const sy_io *io) {
  const void *const tensors[] = {io->hidden, io->expert_ids, io->expert_weights, io->output};
  for (int field = SY_IO_HIDDEN; field <= SY_IO_OUTPUT && io->num_tokens > 0; ++field) {
    if (!group->device->reaches(tensors[field])) {
      return fault(SY_FAULT_IO_PLACE, field, 0, 0);
    }
  }
  return no_fault();
}

/* Host tensors on a GPU. */
static struct sy_fault check_staging(const sy_group *group, const struct sy_step *step) {
  const size_t needed = sy_gpu_staging_bytes(&step->plan->dims);
  const size_t reserved = group->gpu->staging_bytes;
  return reserved >= needed ? no_fault()
                            : fault(SY_FAULT_NO_STAGING, (int64_t)needed, (int64_t)reserved, 0);
}

static struct sy_fault check_memory(const sy_group *group, const struct sy_step *step) {
  const sy_io *io = &step->io;
  if (group->device == NULL) {
    return no_fault(); /* check_io has refused all but host memory */
  }
  return io->memory == SY_MEMORY_HOST ? check_staging(group, step) : check_places(group, io);
}

static struct sy_fault check_tensors(struct sy_step *step) {
  sy_io *io = &step->io;
  const int64_t hidden = step->env.hidden;
  const int64_t slots = step->env.top_k;
  if (io->output_dtype != SY_DTYPE_BF16 && io->output_dtype != SY_DTYPE_F32) {
    return fault(SY_FAULT_IO_DTYPE, (int64_t)io->output_dtype, 0, 0);
  }
  if (io->num_tokens == 0) {
    return no_fault();
  }
  const int64_t output_bytes = io->output_dtype == SY_DTYPE_F32 ? 4 : 2;
  struct sy_fault found = check_tensor(SY_IO_HIDDEN, io->hidden, &io->hidden_stride, 2 * hidden, 2);
  if (found.kind == SY_FAULT_NONE) {
    found = check_tensor(SY_IO_EXPERT_IDS, io->expert_ids, &io->expert_ids_stride, 4 * slots, 4);
  }
  if (found.kind == SY_FAULT_NONE) {
    found = check_tensor(SY_IO_EXPERT_WEIGHTS, io->expert_weights, &io->expert_weights_stride,
                         4 * slots, 4);
  }
  if (found.kind == SY_FAULT_NONE) {
    found = check_tensor(SY_IO_OUTPUT, io->output, &io->output_stride, output_bytes * hidden,
                         output_bytes);
  }
  return found;
}

static struct sy_fault check_io(const sy_group *group, struct sy_step *step, const sy_io *io) {
  if (io == NULL) {
    return fault(SY_FAULT_NO_IO, 0, 0, 0);
  }
  if (io->struct_size < sizeof *io) {
    return fault(SY_FAULT_IO_VERSION, (int64_t)io->struct_size, (int64_t)sizeof *io, 0);
  }
  const int64_t memory = (int64_t)io->memory;
  const int64_t last = group->device != NULL ? SY_MEMORY_DEVICE : SY_MEMORY_HOST;
  if (memory < SY_MEMORY_HOST || memory > last) {
    return fault(SY_FAULT_IO_MEMORY, memory, last, 0);
  }
  const int64_t max_tokens = step->plan->desc.max_tokens;
  if (io->num_tokens < 0 || io->num_tokens > max_tokens) {
    return fault(SY_FAULT_NUM_TOKENS, io->num_tokens, max_tokens, 0);
  }
  const int64_t wave_tokens = step->plan->dims.wave_tokens;
  if (step->call == SY_WIRE_CALL_HALVES && io->num_tokens > wave_tokens) {
    return fault(SY_FAULT_WAVE_TOKENS, io->num_tokens, wave_tokens, 0);
  }
  return check_tensors(step);
}

static struct sy_fault check_plan(const sy_group *group, const struct sy_step *step) {
  const sy_plan *plan = step->plan;
  if (plan == NULL) {
    return fault(SY_FAULT_NO_PLAN, 0, 0, 0);
  }
  if (plan->desc.rank != group->rank || plan->desc.world != group->world) {
    return fault(SY_FAULT_PLAN_WORLD, plan->desc.rank, plan->desc.world, 0);
  }
  if (plan->model.hash != step->layer->model.hash) {
    return fault(SY_FAULT_PLAN_SHAPE, 0, 0, 0);
  }
  for (int d = 0; d < SY_NUM_DIRECTIONS; ++d) {
    if (plan->arenas.in[d] > group->arenas.in[d]) {
      return fault(SY_FAULT_NOT_RESERVED, (int64_t)plan->arenas.in[d], (int64_t)group->arenas.in[d],
                   0);
    }
    if (plan->arenas.out[d] > group->arenas.out[d]) {
      return fault(SY_FAULT_NOT_RESERVED, (int64_t)plan->arenas.out[d],
                   (int64_t)group->arenas.out[d], 0);
    }
  }
  return no_fault();
}

static struct sy_fault check_scratch(sy_group *group, void *scratch, size_t scratch_bytes) {
  struct sy_step *step = &group->step;
  const size_t needed = step->plan->info.scratch_bytes;
  void *base = scratch == NULL ? group->scratch : scratch;
  const size_t bytes = scratch == NULL ? group->scratch_bytes : scratch_bytes;
  if (bytes < needed) {
    return fault(SY_FAULT_SCRATCH_SMALL, (int64_t)bytes, (int64_t)needed, 0);
  }
  if ((uintptr_t)base % SY_SCRATCH_ALIGN != 0) {
    return fault(SY_FAULT_SCRATCH_ALIGNMENT, SY_SCRATCH_ALIGN, 0, 0);
  }
  if (group->device != NULL && !group->device->reaches(base)) {
    return fault(SY_FAULT_SCRATCH_PLACE, 0, 0, 0);
  }
  step->scratch_base = base;
  return no_fault();
}

static struct sy_fault check_loaded(const sy_layer *layer) {
  for (int32_t e = 0; e < layer->env.local_experts; ++e) {
    if (!layer->loaded[e]) {
      return fault(SY_FAULT_NOT_LOADED, e, layer->global_expert[e], 0);
    }
  }
  return no_fault();
}

static struct sy_fault check_ids(const sy_group *group, const struct sy_step *step) {
  if (step->io.memory == SY_MEMORY_DEVICE) {
    return no_fault(); /* the device looks at them */
  }
  struct sy_bad_id bad;
  const struct sy_route_args args = {.num_tokens = step->io.num_tokens,
                                     .expert_ids = step->io.expert_ids,
                                     .expert_ids_stride = step->io.expert_ids_stride,
                                     .expert_weights = step->io.expert_weights,
                                     .expert_weights_stride = step->io.expert_weights_stride};
  if (group->kernels->check_ids(&step->env, &args, &bad) != SY_OK) {
    return fault(SY_FAULT_EXPERT_ID, bad.token, bad.slot, bad.id);
  }
  return no_fault();
}

/* The layer's constants, and what the plan adds to them. */
static struct sy_stage_env make_env(const struct sy_step *step) {
  const sy_plan *plan = step->plan;
  const struct sy_dims *d = &plan->dims;
  struct sy_stage_env env = step->layer->env;
  env.per_slot = d->per_slot;
  env.gather = d->gather;
  env.fastest = plan->desc.numerics == SY_NUMERICS_FASTEST;
  env.padded_slots = !d->exact;
  env.slots_per_row = plan->info.slots_per_row;
  env.return_slots = (int32_t)(d->top_k < d->max_local_experts ? d->top_k : d->max_local_experts);
  env.return_dtype = plan->desc.return_dtype;
  env.wire_row = sy_wire_row_make(env.mode, env.format, env.hidden, env.slots_per_row);
  env.return_row_bytes = d->return_row_bytes;
  env.stream = step->env.stream;
  return env;
}

sy_status sy_check_call(sy_group *group, const sy_io *io, void *scratch, size_t scratch_bytes,
                        void *stream) {
  struct sy_step *step = &group->step;
  if (SY_DESC_OK(io)) {
    step->io = *io;
  }
  step->fault = check_plan(group, step);
  if (step->fault.kind != SY_FAULT_NONE && group->device != NULL &&
      !sy_device_headers_first(step)) { /* messages have sizes that this rank does not know */
    char text[SY_ERROR_TEXT_BYTES];
    sy_fault_text(&step->fault, text, sizeof text);
    return sy_group_fail(group, sy_fault_status(&step->fault),
                         "rank %d cannot take part in the call: %s", (int)group->rank, text);
  }
  if (step->fault.kind == SY_FAULT_NONE) {
    step->env = make_env(step);
    step->fault = check_io(group, step, io);
  }
  if (step->fault.kind == SY_FAULT_NONE) {
    step->fault = check_memory(group, step);
  }
  if (step->fault.kind == SY_FAULT_NONE && stream != NULL && group->device == NULL) {
    step->fault = fault(SY_FAULT_STREAM, 0, 0, 0);
  }
  if (step->fault.kind == SY_FAULT_NONE) {
    step->fault = check_scratch(group, scratch, scratch_bytes);
  }
  if (step->fault.kind == SY_FAULT_NONE) {
    step->fault = check_loaded(step->layer);
  }
  if (step->fault.kind == SY_FAULT_NONE) {
    step->fault = check_ids(group, step);
  }
  return SY_OK;
}
