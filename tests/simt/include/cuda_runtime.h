/* Stands in for the CUDA toolkit's header of this name. */
#ifndef SY_TESTS_SIMT_CUDA_RUNTIME_H
#define SY_TESTS_SIMT_CUDA_RUNTIME_H

#include <cuda_runtime_api.h>

#endif
