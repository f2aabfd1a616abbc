/* Which of the compiled kernels a GPU runs, as a pure function: no GPU is needed to ask. */
#ifndef SY_KERNELS_CUDA_ARCHITECTURE_H
#define SY_KERNELS_CUDA_ARCHITECTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* `compiled` lists architectures as SWITCHYARD_CUDA_ARCHITECTURES does, with commas: "80,90,120f". A
 * plain number runs on GPUs of its major version from its minor one on; one with "f" besides has the
 * block-scaled matrix instructions. text_out: which kernels and why, or why none. False: none. */
bool sy_cuda_choose_architecture(const char *compiled, int32_t major, int32_t minor, char *text_out,
                                 size_t text_bytes);

/* Whether a GPU has block-scaled matrix instructions. */
static inline bool sy_cuda_has_block_scaling(int32_t major) { return major == 12; }

#ifdef __cplusplus
}
#endif

#endif
