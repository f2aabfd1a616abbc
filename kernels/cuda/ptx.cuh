/* Every inline PTX statement of the project, each in a wrapper with a name.
 *
 * A wrapper has up to three bodies: PTX; what gives the same on architectures without the
 * instruction (sm_80 to sm_90 for the FP4 formats, sm_80 for bulk copies and mbarriers); and the
 * emulator's (tests/simt). tests/simt/test_ptx_*.cu check each body against plain arithmetic. */
#ifndef SY_KERNELS_CUDA_PTX_CUH
#define SY_KERNELS_CUDA_PTX_CUH

#include "kernels/cuda/ptx/barrier.cuh"
#include "kernels/cuda/ptx/convert.cuh"
#include "kernels/cuda/ptx/copy.cuh"
#include "kernels/cuda/ptx/memory.cuh"
#include "kernels/cuda/ptx/mma.cuh"

#endif
