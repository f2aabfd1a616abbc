/* The block-scaled matrix instructions on given operands: a warp per case. */
#include "kernels/cuda/cuda.cuh"
#include "kernels/cuda/ptx.cuh"

SY_KERNEL void self_test(const struct sy_self_test_operands *operands,
                         struct sy_self_test_results *results) {
  const struct sy_self_test_operands &in = operands[blockIdx.x];
  const uint32_t lane = sy_lane();
  const uint32_t a[4] = {in.a[lane][0], in.a[lane][1], in.a[lane][2], in.a[lane][3]};
  const uint32_t b[2] = {in.b[lane][0], in.b[lane][1]};
  float d[4] = {0.0f, 0.0f, 0.0f, 0.0f};
  if (in.format == SY_FORMAT_MXFP4) {
    sy_mma_mxfp4<0, 0, 0, 0>(d, a, b, in.scale_a[lane], in.scale_b[lane]);
  } else {
    sy_mma_nvfp4<0, 0>(d, a, b, in.scale_a[lane], in.scale_b[lane]);
  }
  for (int i = 0; i < 4; ++i) {
    results[blockIdx.x].d[lane][i] = d[i];
  }
}

sy_status sy_cuda_multiply_self_test(const struct sy_self_test_operands *operands,
                                     struct sy_self_test_results *results) {
  SY_CUDA_TRY(SY_LAUNCH(self_test, SY_SELF_TEST_CASES, SY_WARP, 0, nullptr, operands, results));
  return SY_OK;
}
