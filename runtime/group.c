/* A group: the ranks that work together, their exchange memory, and what became of them. */
#include <inttypes.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/clock.h"
#include "runtime/gpu.h"
#include "runtime/internal.h"
#include "runtime/memory.h"

/* ---- Creation ---- */

sy_status sy_group_check_desc(const sy_group_desc *desc) {
  if (!SY_DESC_OK(desc)) {
    return sy_fail(SY_ERR_ARGUMENT, "group desc is not initialised with SY_GROUP_DESC_INIT");
  }
  if (desc->timeout_ms <= 0 || desc->load_timeout_ms <= 0) {
    return sy_fail(SY_ERR_ARGUMENT, "timeout_ms is %d and load_timeout_ms %d; allowed: above 0",
                   (int)desc->timeout_ms, (int)desc->load_timeout_ms);
  }
  if (desc->num_threads < 0 || desc->num_threads > 4096) {
    return sy_fail(SY_ERR_ARGUMENT, "num_threads is %d; allowed: 0 to 4096",
                   (int)desc->num_threads);
  }
  return SY_OK;
}

/* SWITCHYARD_CPU_LEVEL names an instruction level to use instead of the best. */
static sy_status choose_kernels(const struct sy_kernels **kernels_out) {
  const char *wanted = getenv("SWITCHYARD_CPU_LEVEL");
  size_t count;
  const struct sy_kernels *levels = sy_kernels_cpu_levels(&count);
  if (wanted == NULL) {
    *kernels_out = sy_kernels_cpu();
    return SY_OK;
  }
  char known[128] = "";
  for (size_t i = 0; i < count; ++i) {
    if (!levels[i].is_available()) {
      continue;
    }
    if (strcmp(wanted, levels[i].name) == 0) {
      *kernels_out = &levels[i];
      return SY_OK;
    }
    const size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, "%s%s", used > 0 ? ", " : "", levels[i].name);
  }
  return sy_fail(SY_ERR_ARGUMENT, "SWITCHYARD_CPU_LEVEL is '%s'; this machine allows: %s", wanted,
                 known);
}

sy_status sy_group_check_host(const sy_group_desc *desc, sy_group *const *group_out) {
  const struct sy_kernels *kernels;
  if (group_out == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "group_out is NULL");
  }
  SY_TRY(desc == NULL ? SY_OK : sy_group_check_desc(desc));
  return choose_kernels(&kernels);
}

const char *sy_backend(void) {
  static _Thread_local char text[SY_ERROR_TEXT_BYTES];
  const struct sy_kernels *kernels;
  if (choose_kernels(&kernels) != SY_OK) {
    return sy_last_error(NULL);
  }
  snprintf(text, sizeof text, "%s (%s), %s", kernels->name, kernels->description,
           getenv("SWITCHYARD_CPU_LEVEL") != NULL ? "because SWITCHYARD_CPU_LEVEL says so"
                                                  : "the best level that this CPU has");
  return text;
}

/* The tables with one entry per rank, and room for an exchange of headers alone: with it a rank
 * whose plan is not reserved can still tell its peers so. */
static sy_status allocate(sy_group *group) {
  const size_t world = (size_t)group->world;
  group->messages = sy_alloc(world * sizeof *group->messages);
  group->send_landing = sy_alloc(world * sizeof *group->send_landing);
  group->return_landing = sy_alloc(world * sizeof *group->return_landing);
  group->received = sy_alloc(world * sizeof *group->received);
  group->received_rows = sy_alloc(world * sizeof *group->received_rows);
  group->return_rows = sy_alloc(world * sizeof *group->return_rows);
  group->returned = sy_alloc(world * sizeof *group->returned);
  group->headers = sy_alloc(world * sizeof *group->headers);
  if (group->messages == NULL || group->send_landing == NULL || group->return_landing == NULL ||
      group->received == NULL || group->received_rows == NULL || group->return_rows == NULL ||
      group->returned == NULL || group->headers == NULL) {
    return sy_fail(SY_ERR_MEMORY, "the tables of a group of %d ranks cannot be allocated",
                   (int)group->world);
  }
  const size_t headers = world * sizeof(struct sy_wire_header);
  const struct sy_arena_bytes bytes = {.out = {headers, headers}, .in = {headers, headers}};
  const int64_t deadline_ns = sy_clock_ns() + (int64_t)group->desc.load_timeout_ms * 1000000;
  const sy_status status = group->transport->ops->reserve(group->transport, &bytes, deadline_ns);
  if (status != SY_OK) {
    return sy_fail(status, "exchange memory for the headers of %d ranks: %s", (int)group->world,
                   sy_status_text(status));
  }
  group->arenas = bytes;
  return SY_OK;
}

static void release(sy_group *group) {
  sy_free(group->messages);
  sy_free(group->send_landing);
  sy_free(group->return_landing);
  sy_free(group->received);
  sy_free(group->received_rows);
  sy_free(group->return_rows);
  sy_free(group->returned);
  sy_free(group->headers);
  if (group->device == NULL) {
    sy_free(group->scratch);
  } else if (!group->dead) {
    group->device->free(group->scratch);
  }
  sy_gpu_destroy(group);
  sy_free(group);
}

sy_status sy_group_create_transport(const sy_group_desc *desc, const struct sy_backend *backend,
                                    struct sy_transport *transport, sy_group **group_out) {
  const sy_group_desc defaults = SY_GROUP_DESC_INIT;
  desc = desc == NULL ? &defaults : desc;
  SY_TRY(sy_group_check_desc(desc));
  struct sy_backend host = {NULL, NULL};
  if (backend == NULL) {
    SY_TRY(choose_kernels(&host.kernels));
    backend = &host;
  }
  sy_group *group = sy_alloc(sizeof *group);
  if (group == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%zu bytes for a group cannot be allocated", sizeof *group);
  }
  memset(group, 0, sizeof *group);
  group->transport = transport;
  group->kernels = backend->kernels;
  group->device = backend->device;
  group->road = group->device != NULL ? &sy_road_device : &sy_road_host;
  group->desc = *desc;
  group->desc.num_threads = desc->num_threads > 0 ? desc->num_threads : omp_get_max_threads();
  group->rank = transport->rank;
  group->world = transport->world;
  group->stats.struct_size = sizeof group->stats;
  sy_status status = allocate(group);
  if (status == SY_OK && group->device != NULL) {
    status = sy_gpu_create(group);
  }
  if (status != SY_OK) {
    release(group);
    return status;
  }
  *group_out = group;
  return SY_OK;
}

sy_status sy_group_create_local(const sy_group_desc *desc, sy_group **group_out) {
  struct sy_transport *transport;
  SY_TRY(sy_group_check_host(desc, group_out));
  SY_TRY(sy_transport_create_local(&sy_arena_host, &transport));
  const sy_status status = sy_group_create_transport(desc, NULL, transport, group_out);
  if (status != SY_OK) {
    transport->ops->destroy(transport);
  }
  return status;
}

void sy_group_destroy(sy_group *group) {
  if (group != NULL) {
    sy_step_end(group);
    sy_gpu_settle(group);
    group->transport->ops->destroy(group->transport);
    release(group);
  }
}

int32_t sy_group_rank(const sy_group *group) { return group->rank; }

int32_t sy_group_world(const sy_group *group) { return group->world; }

/* ---- Losing ranks ---- */

size_t sy_group_name_ranks(const sy_group *group, bool (*is_named)(const sy_group *, int32_t),
                           char *text, size_t bytes) {
  size_t used = 0;
  size_t count = 0;
  for (int32_t p = 0; p < group->world; ++p) {
    if (is_named(group, p) && used + 24 < bytes) {
      used +=
          (size_t)snprintf(text + used, bytes - used, "%s%d", count > 0 ? ", " : "rank ", (int)p);
      ++count;
    }
  }
  return count;
}

static bool is_missing(const sy_group *group, int32_t rank) {
  return group->transport->ops->missing(group->transport, rank);
}

sy_status sy_group_lost(sy_group *group, sy_status status, const char *what) {
  const char *reason = group->transport->ops->error_text(group->transport);
  if (status == SY_ERR_PEER) {
    char ranks[256] = "no rank in particular";
    if (sy_group_name_ranks(group, is_missing, ranks, sizeof ranks) == 0 && reason[0] != '\0') {
      snprintf(ranks, sizeof ranks, "some rank (%s)", reason);
    }
    sy_group_fail(group, status, "rank %d, %s: nothing heard in time from %s; the group is dead",
                  (int)group->rank, what, ranks);
  } else { /* what the native library said, or the call that refused */
    const bool of_device = status == SY_ERR_DEVICE && group->device != NULL;
    reason = of_device ? group->device->error_text() : reason;
    sy_group_fail(group, status, "rank %d, %s: %s; the group is dead", (int)group->rank, what,
                  reason[0] != '\0' ? reason : sy_last_error(NULL));
  }
  group->dead = true;
  group->step.phase = SY_IDLE;
  group->transport->ops->abort(group->transport);
  sy_gpu_drain(group);
  return status;
}

void sy_group_abort(sy_group *group) {
  if (group != NULL && !group->dead) {
    group->dead = true;
    sy_step_end(group);
    sy_group_fail(group, SY_ERR_PEER, "rank %d: the group is dead: sy_group_abort was called",
                  (int)group->rank);
    group->transport->ops->abort(group->transport);
    sy_gpu_drain(group);
  }
}

sy_memory sy_group_memory(const sy_group *group) {
  return group->device != NULL ? SY_MEMORY_DEVICE : SY_MEMORY_HOST;
}

sy_status sy_group_poll(sy_group *group) {
  SY_TRY(sy_group_check_alive(group));
  if (group->device == NULL) {
    return SY_OK;
  }
  SY_TRY(sy_gpu_check(group, group->transport->ops->check(group->transport), "poll"));
  return sy_gpu_report(group);
}

sy_status sy_group_wait(sy_group *group, void *stream, int32_t timeout_ms) {
  SY_TRY(sy_group_check_alive(group));
  if ((stream != NULL && group->device == NULL) || timeout_ms < 0) {
    return sy_group_fail(group, SY_ERR_ARGUMENT,
                         "stream must be NULL on the CPU backend, and timeout_ms (%d) at least 0",
                         (int)timeout_ms);
  }
  return group->device == NULL ? SY_OK : sy_gpu_wait(group, stream, timeout_ms);
}

/* ---- Reserving memory ---- */

/* What each rank tells the others before exchange memory is allocated. */
struct reserve_note {
  uint64_t plan_hash;
  int32_t status;
  int32_t unused;
};

/* Hands this rank's note to all; fails on all ranks alike if one has failed, or if plans differ. */
static sy_status agree(sy_group *group, uint64_t plan_hash, sy_status mine, const char *what,
                       int64_t deadline_ns) {
  struct reserve_note note = {.plan_hash = plan_hash, .status = (int32_t)mine};
  struct reserve_note *notes = sy_alloc((size_t)group->world * sizeof *notes);
  if (notes == NULL) {
    sy_group_abort(group);
    return sy_group_fail(group, SY_ERR_MEMORY, "rank %d cannot tell its peers what is wrong",
                         (int)group->rank);
  }
  const struct sy_transport_ops *ops = group->transport->ops;
  sy_status status = ops->allgather(group->transport, &note, sizeof note, notes, deadline_ns);
  if (status != SY_OK) {
    sy_free(notes);
    return sy_group_lost(group, status, what);
  }
  char differing[200] = "";
  size_t used = 0;
  for (int32_t p = 0; p < group->world && status == SY_OK; ++p) {
    if (notes[p].status != SY_OK) {
      status = (sy_status)notes[p].status;
      if (p != group->rank) {
        sy_group_fail(group, status, "rank %d, %s: %s", (int)p, what, sy_status_text(status));
      }
    } else if (notes[p].plan_hash != plan_hash && used + 16 < sizeof differing) {
      used += (size_t)snprintf(differing + used, sizeof differing - used, "%s%d",
                               used > 0 ? ", " : "", (int)p);
    }
  }
  sy_free(notes);
  if (status == SY_OK && used > 0) {
    return sy_group_fail(group, SY_ERR_MISMATCH,
                         "%s: the plan of rank %d differs from that of rank %s", what,
                         (int)group->rank, differing);
  }
  return status;
}

static sy_status check_plan(sy_group *group, const sy_plan *plan) {
  if (plan == NULL) {
    return sy_group_fail(group, SY_ERR_ARGUMENT, "rank %d: plan is NULL", (int)group->rank);
  }
  if (plan->desc.world != group->world || plan->desc.rank != group->rank) {
    return sy_group_fail(group, SY_ERR_ARGUMENT, "rank %d of %d: the plan is for rank %d of %d",
                         (int)group->rank, (int)group->world, (int)plan->desc.rank,
                         (int)plan->desc.world);
  }
  return SY_OK;
}

static sy_status reserve_scratch(sy_group *group, const sy_plan *plan) {
  const size_t bytes = plan->info.scratch_bytes;
  if (bytes <= group->scratch_bytes) {
    return SY_OK;
  }
  void *scratch = sy_alloc(bytes);
  if (scratch == NULL) {
    return sy_group_fail(group, SY_ERR_MEMORY, "rank %d: %zu bytes of scratch cannot be allocated",
                         (int)group->rank, bytes);
  }
  sy_free(group->scratch);
  group->scratch = scratch;
  group->scratch_bytes = bytes;
  return SY_OK;
}

static void grow(struct sy_arena_bytes *arenas, const struct sy_arena_bytes *need) {
  for (int d = 0; d < SY_NUM_DIRECTIONS; ++d) {
    arenas->out[d] = need->out[d] > arenas->out[d] ? need->out[d] : arenas->out[d];
    arenas->in[d] = need->in[d] > arenas->in[d] ? need->in[d] : arenas->in[d];
  }
}

sy_status sy_group_reserve(sy_group *group, const sy_plan *plan, int32_t with_scratch) {
  static const char what[] = "sy_group_reserve";
  SY_TRY(sy_group_check_alive(group));
  if (group->step.phase != SY_IDLE) {
    return sy_group_fail(group, SY_ERR_STATE, "%s: a forward is in flight", what);
  }
  const int64_t deadline_ns = sy_clock_ns() + (int64_t)group->desc.load_timeout_ms * 1000000;
  sy_status status = check_plan(group, plan);
  if (status == SY_OK && group->device != NULL) {
    status = sy_gpu_reserve(group, plan, with_scratch != 0);
  } else if (status == SY_OK && with_scratch != 0) {
    status = reserve_scratch(group, plan);
  }
  SY_TRY(sy_group_check_alive(group));
  SY_TRY(agree(group, status == SY_OK ? plan->info.hash : 0, status, what, deadline_ns));
  struct sy_arena_bytes bytes = group->arenas;
  grow(&bytes, &plan->arenas);
  status = group->transport->ops->reserve(group->transport, &bytes, deadline_ns);
  if (status == SY_ERR_MEMORY) {
    return sy_group_fail(group, status,
                         "%s: %zu bytes of exchange memory cannot be allocated on every rank", what,
                         plan->info.exchange_bytes);
  }
  if (status != SY_OK) {
    return sy_group_lost(group, status, what);
  }
  group->arenas = bytes;
  return SY_OK;
}

sy_status sy_group_check_alive(sy_group *group) {
  if (group == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "group is NULL");
  }
  return group->dead ? SY_ERR_PEER : SY_OK;
}

sy_status sy_group_stats(sy_group *group, int32_t reset, sy_stats *stats_out) {
  if (group == NULL || !SY_DESC_OK(stats_out)) {
    return sy_fail(SY_ERR_ARGUMENT, "group is NULL, or stats not initialised with SY_STATS_INIT");
  }
  sy_stats stats = group->stats;
  if (group->device != NULL) {
    SY_TRY(sy_gpu_stats(group, reset != 0, &stats));
  }
  *stats_out = stats;
  if (reset != 0) {
    group->stats = (sy_stats)SY_STATS_INIT;
  }
  return SY_OK;
}
