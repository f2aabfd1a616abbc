/* Stands in for the CUDA toolkit's header of this name: the types that a launch needs. */
#ifndef SY_TESTS_SIMT_DRIVER_TYPES_H
#define SY_TESTS_SIMT_DRIVER_TYPES_H

typedef struct CUstream_st *cudaStream_t;

typedef enum cudaError {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorIllegalAddress = 700,
  cudaErrorMisalignedAddress = 716,
  cudaErrorLaunchFailure = 719,
  cudaErrorCooperativeLaunchTooLarge = 720
} cudaError_t;

#endif
