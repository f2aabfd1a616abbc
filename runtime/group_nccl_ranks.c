/* Groups of several ranks, one GPU each. With a side channel the ranks agree before any of them enters
 * NCCL, so that one without a GPU fails the call on all; without one they agree over NCCL, afterwards. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "comm/clock.h"
#include "comm/nccl_transport.h"
#include "kernels/cuda/cuda.h"
#include "runtime/agree.h"
#include "runtime/group_nccl.h"
#include "runtime/memory.h"
#include "runtime/switchyard_nccl.h"

static int64_t deadline_of(const sy_group_desc *desc) {
  return sy_clock_ns() + (int64_t)desc->load_timeout_ms * 1000000;
}

/* The transport becomes the group's, or is ended. */
static sy_status create_over(const sy_group_desc *desc, const struct sy_kernels *kernels,
                             struct sy_transport *t, sy_group **group_out) {
  const struct sy_backend backend = {.kernels = kernels, .device = sy_device_cuda()};
  const sy_status status = sy_group_create_transport(desc, &backend, t, group_out);
  if (status == SY_ERR_PEER || status == SY_ERR_TRANSPORT) {
    t->ops->abort(t);
  }
  if (status != SY_OK) {
    t->ops->destroy(t);
  }
  return status;
}

/* ---- With a side channel ---- */

struct host_note {
  char host[64];
};

/* How many ranks below this one are on its host. */
static sy_status find_local_rank(const struct sy_agreement *a, int32_t *local_rank_out) {
  struct host_note mine = {""};
  struct host_note *all = sy_alloc((size_t)a->world * sizeof *all);
  if (all == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory to hear from %d ranks", a->call, (int)a->world);
  }
  gethostname(mine.host, sizeof mine.host - 1);
  const sy_status status = sy_agree_gather(a, &mine, sizeof mine, all);
  int32_t local_rank = 0;
  for (int32_t peer = 0; peer < a->rank && status == SY_OK; ++peer) {
    local_rank += memcmp(&all[peer], &mine, sizeof mine) == 0;
  }
  sy_free(all);
  *local_rank_out = local_rank;
  return status;
}

/* desc.device -1: the ranks of a host take its GPUs in turn. */
static sy_status choose_gpu(const char *call, sy_group_desc *desc, int32_t local_rank,
                            const struct sy_kernels **kernels_out) {
  if (desc->device == -1) {
    int32_t count = 0;
    SY_TRY(sy_gpu_count(&count));
    desc->device = count > 0 ? local_rank % count : 0;
  }
  return sy_gpu_choose(call, desc, kernels_out);
}

static sy_status agree(const struct sy_agreement *a, sy_group_desc *desc, sy_status own,
                       const struct sy_kernels **kernels_out) {
  int32_t local_rank = 0;
  SY_TRY(sy_agree_on_version(a));
  SY_TRY(find_local_rank(a, &local_rank));
  if (own == SY_OK) {
    own = choose_gpu(a->call, desc, local_rank, kernels_out);
  }
  return sy_agree_on_status(a, own);
}

sy_status sy_group_create_over_side(const char *call, const sy_group_desc *desc, sy_status own,
                                    struct sy_side *side, sy_group **group_out) {
  sy_group_desc chosen = *desc;
  const struct sy_kernels *kernels = NULL;
  const int64_t deadline_ns = deadline_of(desc);
  const struct sy_agreement agreement = {.call = call,
                                         .rank = side->rank,
                                         .world = side->world,
                                         .side = side,
                                         .deadline_ns = deadline_ns};
  const struct sy_nccl_desc over = {.rank = side->rank, .world = side->world, .side = side};
  struct sy_transport *t = NULL;
  sy_status status = agree(&agreement, &chosen, own, &kernels);
  if (status == SY_OK) {
    status = sy_transport_create_nccl(&over, deadline_ns, &t);
  }
  if (status != SY_OK) {
    side->ops->destroy(side);
    return status;
  }
  return create_over(&chosen, kernels, t, group_out);
}

sy_status sy_group_create_nccl_tcp(const char *address, int32_t rank, int32_t world,
                                   const sy_group_desc *desc, sy_group **group_out) {
  static const char call[] = "sy_group_create_nccl_tcp";
  sy_group_desc checked;
  struct sy_side *side = NULL;
  const sy_status own = sy_gpu_check_arguments(desc, group_out, &checked);
  SY_TRY(sy_side_create_tcp(address, rank, world, deadline_of(&checked), &side));
  return sy_group_create_over_side(call, &checked, own, side, group_out);
}

/* ---- Without ---- */

static sy_status create_without_side(const char *call, const sy_group_desc *desc,
                                     const struct sy_nccl_desc *over, sy_group **group_out) {
  sy_group_desc chosen;
  const struct sy_kernels *kernels = NULL;
  struct sy_transport *t = NULL;
  SY_TRY(sy_gpu_check_arguments(desc, group_out, &chosen));
  SY_TRY(sy_gpu_choose(call, &chosen, &kernels));
  const int64_t deadline_ns = deadline_of(&chosen);
  SY_TRY(sy_transport_create_nccl(over, deadline_ns, &t));
  const struct sy_agreement agreement = {
      .call = call, .rank = t->rank, .world = t->world, .transport = t, .deadline_ns = deadline_ns};
  const sy_status status = sy_agree_on_version(&agreement);
  if (status != SY_OK) {
    if (status != SY_ERR_MISMATCH) {
      t->ops->abort(t);
    }
    t->ops->destroy(t);
    return status;
  }
  return create_over(&chosen, kernels, t, group_out);
}

sy_status sy_group_create_nccl(struct ncclComm *comm, const sy_group_desc *desc,
                               sy_group **group_out) {
  static const char call[] = "sy_group_create_nccl";
  if (comm == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "%s: comm is NULL", call);
  }
  const struct sy_nccl_desc over = {.comm = comm};
  return create_without_side(call, desc, &over, group_out);
}

sy_status sy_group_create_nccl_id(const void *unique_id, int32_t rank, int32_t world,
                                  const sy_group_desc *desc, sy_group **group_out) {
  static const char call[] = "sy_group_create_nccl_id";
  if (unique_id == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "%s: unique_id is NULL", call);
  }
  const struct sy_nccl_desc over = {.unique_id = unique_id, .rank = rank, .world = world};
  return create_without_side(call, desc, &over, group_out);
}
