/* For tests/support/alloc_free.h: CUDA's and NCCL's allocations count, too. A program that uses this is
 * linked with --wrap for each of them. */
#include <cuda_runtime_api.h>
#include <nccl.h>

#include "tests/support/alloc_free.h"

cudaError_t __real_cudaMalloc(void **memory, size_t bytes);
cudaError_t __wrap_cudaMalloc(void **memory, size_t bytes);
cudaError_t __real_cudaFree(void *memory);
cudaError_t __wrap_cudaFree(void *memory);
cudaError_t __real_cudaHostAlloc(void **memory, size_t bytes, unsigned flags);
cudaError_t __wrap_cudaHostAlloc(void **memory, size_t bytes, unsigned flags);
cudaError_t __real_cudaFreeHost(void *memory);
cudaError_t __wrap_cudaFreeHost(void *memory);
ncclResult_t __real_ncclMemAlloc(void **memory, size_t bytes);
ncclResult_t __wrap_ncclMemAlloc(void **memory, size_t bytes);
ncclResult_t __real_ncclMemFree(void *memory);
ncclResult_t __wrap_ncclMemFree(void *memory);

cudaError_t __wrap_cudaMalloc(void **memory, size_t bytes) {
  alloc_note();
  return __real_cudaMalloc(memory, bytes);
}

cudaError_t __wrap_cudaFree(void *memory) {
  alloc_note();
  return __real_cudaFree(memory);
}

cudaError_t __wrap_cudaHostAlloc(void **memory, size_t bytes, unsigned flags) {
  alloc_note();
  return __real_cudaHostAlloc(memory, bytes, flags);
}

cudaError_t __wrap_cudaFreeHost(void *memory) {
  alloc_note();
  return __real_cudaFreeHost(memory);
}

ncclResult_t __wrap_ncclMemAlloc(void **memory, size_t bytes) {
  alloc_note();
  return __real_ncclMemAlloc(memory, bytes);
}

ncclResult_t __wrap_ncclMemFree(void *memory) {
  alloc_note();
  return __real_ncclMemFree(memory);
}
