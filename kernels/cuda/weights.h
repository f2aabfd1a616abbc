#ifndef SY_KERNELS_CUDA_WEIGHTS_H
#define SY_KERNELS_CUDA_WEIGHTS_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* From the CPU backend's prepacked expert (kernels/cpu/expert_layout.h) to the GPU's, both in host
 * memory: sy_cuda_expert_layout_make(env).bytes are written. */
void sy_cuda_repack_expert(const struct sy_stage_env *env, const unsigned char *cpu_expert,
                           unsigned char *expert);

#ifdef __cplusplus
}
#endif

#endif
