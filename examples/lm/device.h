/* What a run's MoE layers work on. device_cuda.c is linked where the GPU library was built, and
 * device_none.c elsewhere. */
#ifndef LM_DEVICE_H
#define LM_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <switchyard.h>

#include "team.h"

enum lm_device {
  LM_DEVICE_AUTO = 0, /* GPUs, if every rank has one for itself; otherwise the CPUs */
  LM_DEVICE_CPU = 1,
  LM_DEVICE_CUDA = 2
};

/* Whether this program was built for GPUs. */
bool lm_gpu_is_built(void);

/* The GPU of the rank that is the local_rank-th of its host's; *device: on the way in what the
 * topology suggests, or -1. may_share: ranks may have one together. False: there is none, and why. */
bool lm_gpu_find(int32_t local_rank, bool may_share, int32_t *device, char *why, size_t bytes);

/* A group of all ranks, each on the GPU that desc names. Collective. */
sy_status lm_gpu_group(const struct lm_team *team, const sy_group_desc *desc, sy_group **group_out);

#endif
