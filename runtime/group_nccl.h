/* What the creators of groups on GPUs share, across their libraries. */
#ifndef SY_RUNTIME_GROUP_NCCL_H
#define SY_RUNTIME_GROUP_NCCL_H

#include "comm/side.h"
#include "runtime/internal.h"

/* Makes the GPU that desc asks for the thread's current one, if there are kernels for it that work;
 * desc->device becomes its number. */
sy_status sy_gpu_choose(const char *call, sy_group_desc *desc,
                        const struct sy_kernels **kernels_out);

/* Defaults for desc NULL; ARGUMENT. */
SY_API sy_status sy_gpu_check_arguments(const sy_group_desc *desc, sy_group **group_out,
                                        sy_group_desc *desc_out);

/* A group of the ranks of a side channel, one GPU each. Owns the side channel, also when it fails.
 * own: what this rank's arguments are worth; all ranks hear of it. */
SY_API sy_status sy_group_create_over_side(const char *call, const sy_group_desc *desc,
                                           sy_status own, struct sy_side *side,
                                           sy_group **group_out);

#endif
