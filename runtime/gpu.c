#include "runtime/gpu.h"

#include <sched.h>
#include <string.h>

#include "comm/clock.h"
#include "runtime/exchange_device.h"
#include "runtime/memory.h"

#define DRAIN_NS 1000000000

/* Sizes a block and, with base, carves it. */
#define CARVE(field, type, entries)                          \
  into->field = base == NULL ? NULL : (type *)(base + used); \
  used += sy_align_up((size_t)(entries) * sizeof(type), SY_ALLOC_ALIGN);

static size_t carve_tables(struct sy_gpu *into, size_t W, unsigned char *base) {
  size_t used = 0;
  SY_GPU_TABLES(CARVE)
  return used;
}

static size_t carve_pinned(struct sy_gpu *into, size_t W, unsigned char *base) {
  size_t used = 0;
  SY_GPU_PINNED(CARVE)
  return used;
}

/* Below 2^31 tokens of 2^20 values of 4 bytes: nothing can overflow. */
static size_t carve_staging(struct sy_staging *into, const struct sy_dims *dims,
                            unsigned char *base) {
  const size_t C = (size_t)dims->wave_tokens;
  const size_t H = (size_t)dims->hidden;
  const size_t K = (size_t)dims->top_k;
  size_t used = 0;
  SY_STAGING(CARVE)
  return used;
}

/* ---- Life ---- */

static sy_status no_memory(const sy_group *group, size_t bytes, const char *what) {
  return sy_fail(SY_ERR_MEMORY, "rank %d: %zu bytes of %s cannot be allocated on GPU %d",
                 (int)group->rank, bytes, what, (int)group->desc.device);
}

static sy_status allocate(sy_group *group) {
  struct sy_gpu *gpu = group->gpu;
  const struct sy_device *device = group->device;
  const size_t world = (size_t)group->world;
  const size_t table_bytes = carve_tables(gpu, world, NULL);
  const size_t pinned_bytes = carve_pinned(gpu, world, NULL);
  gpu->tables = device->alloc(table_bytes);
  gpu->pinned = device->alloc_pinned(pinned_bytes);
  if (gpu->tables == NULL || gpu->pinned == NULL) {
    return no_memory(group, table_bytes + pinned_bytes, "tables");
  }
  carve_tables(gpu, world, gpu->tables);
  carve_pinned(gpu, world, gpu->pinned);
  memset(gpu->pinned, 0, pinned_bytes);
  gpu->fault->rank = -1;
  if (device->stream_create(&gpu->stream) != SY_OK ||
      device->clear(gpu->tables, table_bytes, gpu->stream) != SY_OK) {
    return sy_fail(SY_ERR_DEVICE, "rank %d, GPU %d: %s", (int)group->rank, (int)group->desc.device,
                   device->error_text());
  }
  gpu->last_stream = gpu->stream;
  return SY_OK;
}

sy_status sy_gpu_create(sy_group *group) {
  group->gpu = sy_alloc(sizeof *group->gpu);
  if (group->gpu == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%zu bytes for a GPU's tables cannot be allocated",
                   sizeof *group->gpu);
  }
  memset(group->gpu, 0, sizeof *group->gpu);
  const sy_status status = allocate(group);
  if (status != SY_OK) {
    sy_gpu_destroy(group);
  }
  return status;
}

/* On a dead group the device may still be at work: what it reaches stays. */
void sy_gpu_destroy(sy_group *group) {
  struct sy_gpu *gpu = group->gpu;
  if (gpu != NULL && !group->dead) {
    const struct sy_device *device = group->device;
    device->free(gpu->staging_device);
    device->free_pinned(gpu->staging_pinned);
    device->free(gpu->tables);
    device->free_pinned(gpu->pinned);
    if (gpu->stream != NULL) {
      device->stream_destroy(gpu->stream);
    }
  }
  sy_free(gpu);
  group->gpu = NULL;
}

/* ---- Reserving ---- */

size_t sy_gpu_staging_bytes(const struct sy_dims *dims) {
  struct sy_staging unused;
  return carve_staging(&unused, dims, NULL);
}

static sy_status reserve_staging(sy_group *group, const sy_plan *plan) {
  struct sy_gpu *gpu = group->gpu;
  const struct sy_device *device = group->device;
  const size_t bytes = sy_gpu_staging_bytes(&plan->dims);
  if (bytes <= gpu->staging_bytes) {
    return SY_OK;
  }
  void *on_device = device->alloc(bytes);
  void *pinned = device->alloc_pinned(bytes);
  if (on_device == NULL || pinned == NULL) {
    device->free(on_device);
    device->free_pinned(pinned);
    return no_memory(group, bytes, "staging for host tensors");
  }
  device->free(gpu->staging_device);
  device->free_pinned(gpu->staging_pinned);
  gpu->staging_device = on_device;
  gpu->staging_pinned = pinned;
  gpu->staging_bytes = bytes;
  return SY_OK;
}

static sy_status reserve_scratch(sy_group *group, const sy_plan *plan) {
  const size_t bytes = plan->info.scratch_bytes;
  if (bytes <= group->scratch_bytes) {
    return SY_OK;
  }
  void *scratch = group->device->alloc(bytes);
  if (scratch == NULL) {
    return no_memory(group, bytes, "scratch");
  }
  group->device->free(group->scratch);
  group->scratch = scratch;
  group->scratch_bytes = bytes;
  return SY_OK;
}

sy_status sy_gpu_reserve(sy_group *group, const sy_plan *plan, bool with_scratch) {
  SY_TRY(sy_gpu_check(group, group->device->use(group->desc.device), "sy_group_reserve"));
  SY_TRY(sy_gpu_await(group, group->gpu->last_stream, group->desc.load_timeout_ms,
                      "sy_group_reserve")); /* it may use what is freed here */
  SY_TRY(reserve_staging(group, plan));
  return with_scratch ? reserve_scratch(group, plan) : SY_OK;
}

struct sy_staging sy_gpu_staging(const sy_group *group, const struct sy_dims *dims,
                                 sy_memory kind) {
  struct sy_staging staging;
  carve_staging(&staging, dims,
                kind == SY_MEMORY_DEVICE ? group->gpu->staging_device : group->gpu->staging_pinned);
  return staging;
}

/* ---- Waiting ---- */

sy_status sy_gpu_check(sy_group *group, sy_status status, const char *what) {
  return status == SY_OK ? SY_OK : sy_group_lost(group, status, what);
}

sy_status sy_gpu_begin(sy_group *group, const sy_io *io, void *stream) {
  struct sy_step *step = &group->step;
  step->env.stream = stream != NULL ? stream : group->gpu->stream;
  if (SY_DESC_OK(io)) {
    step->io.memory = io->memory;
  }
  SY_TRY(sy_gpu_check(group, group->device->use(group->desc.device), "begin"));
  if (sy_device_headers_first(step) && group->device->is_capturing(step->env.stream)) {
    return sy_group_fail(group, SY_ERR_STATE,
                         "rank %d: the stream is being captured in a CUDA graph, which takes calls "
                         "with device tensors and strategy fixed or gather",
                         (int)group->rank);
  }
  group->gpu->last_stream = step->env.stream;
  return SY_OK;
}

sy_status sy_gpu_await(sy_group *group, void *stream, int64_t timeout_ms, const char *what) {
  struct sy_transport *t = group->transport;
  const int64_t deadline_ns = sy_clock_ns() + timeout_ms * 1000000;
  for (;;) {
    bool done = false;
    SY_TRY(sy_gpu_check(group, group->device->query(stream, &done), what));
    if (done) {
      return SY_OK;
    }
    SY_TRY(sy_gpu_check(group, t->ops->check(t), what));
    if (sy_clock_ns() >= deadline_ns) {
      t->ops->expired(t);
      return sy_group_lost(group, SY_ERR_PEER, what);
    }
    sched_yield();
  }
}

void sy_gpu_settle(sy_group *group) {
  if (group->gpu != NULL && !group->dead &&
      sy_gpu_check(group, group->device->use(group->desc.device), "destroy") == SY_OK) {
    (void)sy_gpu_await(group, group->gpu->last_stream, group->desc.timeout_ms, "destroy");
  }
}

void sy_gpu_drain(const sy_group *group) {
  const int64_t deadline_ns = sy_clock_ns() + DRAIN_NS;
  bool done = group->gpu == NULL;
  while (!done && sy_clock_ns() < deadline_ns &&
         group->device->query(group->gpu->last_stream, &done) == SY_OK) {
    sched_yield();
  }
}

/* A mismatch is the reader's own finding: no sentence travelled. */
sy_status sy_gpu_report(sy_group *group) {
  const struct sy_device_fault noted = *group->gpu->fault;
  if (noted.rank < 0) {
    return SY_OK;
  }
  group->gpu->fault->rank = -1;
  const unsigned long long step = noted.step;
  if (noted.fault == SY_FAULT_NONE) {
    return sy_group_fail(group, (sy_status)noted.status,
                         "step %llu: rank %d and rank %d disagree about the call, the plan or the "
                         "sizes of messages",
                         step, (int)group->rank, (int)noted.rank);
  }
  struct sy_fault fault = {.kind = (enum sy_fault_kind)noted.fault};
  char text[SY_ERROR_TEXT_BYTES];
  memcpy(fault.detail, noted.detail, sizeof fault.detail);
  sy_fault_text(&fault, text, sizeof text);
  return sy_group_fail(group, (sy_status)noted.status, "step %llu: rank %d: %s", step,
                       (int)noted.rank, text);
}

/* Afterwards the stream may go: counters are read on the group's own. */
sy_status sy_gpu_wait(sy_group *group, void *stream, int32_t timeout_ms) {
  struct sy_gpu *gpu = group->gpu;
  stream = stream != NULL ? stream : gpu->stream;
  SY_TRY(sy_gpu_check(group, group->device->use(group->desc.device), "sy_group_wait"));
  SY_TRY(sy_gpu_await(group, stream, timeout_ms, "sy_group_wait"));
  if (gpu->last_stream == stream) {
    gpu->last_stream = gpu->stream;
  }
  return sy_gpu_report(group);
}

/* ---- Counters ---- */

sy_status sy_gpu_read_counts(sy_group *group, bool reset, void *from, size_t bytes, void *to) {
  static const char what[] = "counters";
  const struct sy_device *device = group->device;
  struct sy_gpu *gpu = group->gpu;
  SY_TRY(sy_group_check_alive(group));
  SY_TRY(sy_gpu_check(group, device->use(group->desc.device), what));
  SY_TRY(sy_gpu_await(group, gpu->last_stream, group->desc.timeout_ms, what));
  SY_TRY(sy_gpu_check(group, device->download(to, from, bytes), what));
  return reset ? sy_gpu_check(group, device->clear(from, bytes, gpu->last_stream), what) : SY_OK;
}

sy_status sy_gpu_stats(sy_group *group, bool reset, sy_stats *stats) {
  struct sy_device_counts counts;
  SY_TRY(sy_gpu_read_counts(group, reset, group->gpu->counts, sizeof counts, &counts));
  stats->received_rows += counts.received_rows;
  stats->routed_rows += counts.routed_rows;
  stats->active_experts += counts.active_experts;
  return SY_OK;
}
