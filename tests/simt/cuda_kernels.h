#ifndef SY_TESTS_SIMT_CUDA_KERNELS_H
#define SY_TESTS_SIMT_CUDA_KERNELS_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The CUDA backend's stages as tables that tests can drive: under the emulator, and on a GPU. */
const struct sy_kernels *sy_kernels_cuda_emulated(void);
const struct sy_kernels *sy_kernels_cuda_on_gpu(void);

#ifdef __cplusplus
}
#endif

#endif
