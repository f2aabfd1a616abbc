/* The CUDA library's entries, for C. All of the stages are ordered on env->stream and leave the host
 * alone. */
#ifndef SY_KERNELS_CUDA_CUDA_H
#define SY_KERNELS_CUDA_CUDA_H

#include "kernels/device.h"
#include "kernels/kernels.h"
#include "runtime/switchyard_nccl.h"

#ifdef __cplusplus
extern "C" {
#endif

const struct sy_kernels *sy_kernels_cuda(void);
const struct sy_kernels *sy_kernels_cuda_by_bf16(void); /* without block-scaled instructions */
const struct sy_device *sy_device_cuda(void);

/* DEVICE when CUDA refuses: sy_device_cuda()->error_text() says why. Ordinals must be in range. */
sy_status sy_cuda_count_gpus(int32_t *count_out);
sy_status sy_cuda_current_gpu(int32_t *device_out);
sy_status sy_cuda_query_gpu(int32_t device, sy_gpu_info *info_out);
sy_status sy_cuda_can_access_peer(int32_t device, int32_t peer, int32_t *can_out);

/* Runs the block-scaled matrix instructions of the current GPU on data whose results are known
 * exactly. UNSUPPORTED, and in text_out the first that differs; DEVICE; MEMORY. */
sy_status sy_cuda_self_test(char *text_out, size_t text_bytes);

/* The kernel behind it: d of every lane, for SY_SELF_TEST_CASES sets of operands. */
#define SY_SELF_TEST_CASES 6
struct sy_self_test_operands {
  sy_format format;
  uint32_t a[32][4], b[32][2], scale_a[32], scale_b[32];
};
struct sy_self_test_results {
  float d[32][4];
};
sy_status sy_cuda_multiply_self_test(const struct sy_self_test_operands *operands,
                                     struct sy_self_test_results *results);

sy_status sy_cuda_route(const struct sy_stage_env *env, const struct sy_route_args *args);
sy_status sy_cuda_pack(const struct sy_stage_env *env, const struct sy_pack_args *args);
sy_status sy_cuda_group(const struct sy_stage_env *env, const struct sy_group_args *args);
sy_status sy_cuda_experts(const struct sy_stage_env *env, const struct sy_experts_args *args);
sy_status sy_cuda_reduce(const struct sy_stage_env *env, const struct sy_reduce_args *args);
sy_status sy_cuda_combine(const struct sy_stage_env *env, const struct sy_combine_args *args);

sy_status sy_cuda_note_ids(const struct sy_stage_env *env, const struct sy_note_ids_args *args);
sy_status sy_cuda_write_headers(const struct sy_stage_env *env,
                                const struct sy_write_headers_args *args);
sy_status sy_cuda_read_headers(const struct sy_stage_env *env,
                               const struct sy_read_headers_args *args);
sy_status sy_cuda_count_chunk(const struct sy_stage_env *env,
                              const struct sy_count_chunk_args *args);

#ifdef __cplusplus
}
#endif

#endif
