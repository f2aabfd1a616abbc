#include "kernels/cpu/avx512_quantise.h"

#include "kernels/cpu/cpu.h"

static void nvfp4(const float *x, int64_t n, float global, uint8_t *codes, uint8_t *scales) {
  sy_avx512_nvfp4(x, n, global, codes, scales);
}

static void mxfp4(const float *x, int64_t n, uint8_t *codes, uint8_t *scales) {
  sy_avx512_mxfp4(x, n, codes, scales);
}

const struct sy_quantiser sy_quantiser_avx512 = {nvfp4, mxfp4};

sy_status sy_cpu_pack_avx512(const struct sy_stage_env *env, const struct sy_pack_args *args) {
  return sy_cpu_pack_by(&sy_quantiser_avx512, env, args);
}
