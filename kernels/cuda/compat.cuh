/* One source, three executions: CUDA under nvcc for SM12x and for sm_80 to sm_90, and the emulator
 * of tests/simt under a host compiler (SY_SIMT).
 *
 * A kernel source includes this first, and keeps to what all three have: launches by SY_LAUNCH, all
 * shared memory from sy_shared(), no float atomics, PTX only through ptx.cuh. The rest is spelled
 * as CUDA spells it: threadIdx, __syncthreads, __shfl_sync, atomicAdd.
 *
 *   SY_KERNEL void scale_rows(float *rows, int64_t count) { ... }
 *   const cudaError_t error = SY_LAUNCH(scale_rows, grid, block, shared_bytes, stream, rows, 8); */
#ifndef SY_KERNELS_CUDA_COMPAT_CUH
#define SY_KERNELS_CUDA_COMPAT_CUH

#include <stddef.h>
#include <stdint.h>

#if defined(SY_SIMT)

#include "tests/simt/device.hpp"

#define SY_KERNEL static
#define SY_DEVICE static inline
#define SY_UNROLL

/* Last parameter of what the emulator reports on: where the caller stands. SY_AT_SITE hands it on.
 */
#define SY_SITE , ::simt::Site site = ::simt::Site::here()
#define SY_AT_SITE , site

/* A kernel has at least one argument. One with several template arguments goes in parentheses. */
#define SY_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::simt::launch(#kernel, false, grid, block, shared_bytes, stream, kernel, __VA_ARGS__)

/* All blocks run at once, or the launch fails: blocks may wait for each other. */
#define SY_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream, ...) \
  ::simt::launch(#kernel, true, grid, block, shared_bytes, stream, kernel, __VA_ARGS__)

/* The block's shared memory, as many bytes as the launch gave; aligned to 1024. */
SY_DEVICE unsigned char *sy_shared() {
  return reinterpret_cast<unsigned char *>(simt::this_thread->block->shared.data());
}

#else

#include <cuda_runtime.h>

#define SY_KERNEL static __global__
#define SY_DEVICE static __device__ __forceinline__
#define SY_UNROLL _Pragma("unroll")
#define SY_SITE
#define SY_AT_SITE

#define SY_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  sy_launch(false, grid, block, shared_bytes, stream, kernel, __VA_ARGS__)
#define SY_LAUNCH_COOPERATIVE(kernel, grid, block, shared_bytes, stream, ...) \
  sy_launch(true, grid, block, shared_bytes, stream, kernel, __VA_ARGS__)

SY_DEVICE unsigned char *sy_shared() {
  extern __shared__ __align__(1024) unsigned char sy_shared_base[];
  return sy_shared_base;
}

/* What a block gets without asking for more. */
#define SY_DEFAULT_SHARED_BYTES (48 * 1024)

template <class... Parameters, class... Arguments>
inline cudaError_t sy_launch(bool cooperative, dim3 grid, dim3 block, size_t shared_bytes,
                             cudaStream_t stream, void (*kernel)(Parameters...),
                             Arguments... arguments) {
  if (shared_bytes > SY_DEFAULT_SHARED_BYTES) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    if (error != cudaSuccess) {
      return error;
    }
  }
  cudaLaunchAttribute attribute = {};
  attribute.id = cudaLaunchAttributeCooperative;
  attribute.val.cooperative = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = stream;
  config.attrs = &attribute;
  config.numAttrs = cooperative ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
}

#endif

#endif
