# The CUDA library's sources, for nvcc and for the emulator of tests/simt.
set(cuda_kernel_sources combine.cu experts.cu group.cu headers.cu pack.cu reduce.cu route.cu
  self_test.cu)
set(cuda_host_sources architecture.c device.c self_test.c weights.c)
list(TRANSFORM cuda_kernel_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
list(TRANSFORM cuda_host_sources PREPEND ${CMAKE_CURRENT_LIST_DIR}/)
list(APPEND cuda_host_sources ${PROJECT_SOURCE_DIR}/runtime/group_nccl.c)
list(JOIN SWITCHYARD_CUDA_ARCHITECTURES "," cuda_architecture_list)
set(cuda_definitions SY_CUDA_ARCHITECTURES="${cuda_architecture_list}")

# What of it goes over NCCL: groups of several ranks.
set(nccl_host_sources ${PROJECT_SOURCE_DIR}/comm/nccl.c
  ${PROJECT_SOURCE_DIR}/runtime/group_nccl_ranks.c)
