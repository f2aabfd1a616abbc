/* Pinned host memory for the tests' arrays: posix_memalign and free are wrapped at link time
 * (--wrap), so that tests which know nothing of GPUs allocate what a GPU can read. */
#ifndef SY_TESTS_GPU_PINNED_H
#define SY_TESTS_GPU_PINNED_H

#include <stddef.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Never freed. */
void *pinned_alloc_forever(size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
