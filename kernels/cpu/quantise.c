#include "kernels/cpu/quantise.h"

#include "kernels/fp4.h"
#include "kernels/wire.h"

static void nvfp4(const float *x, int64_t n, float global, uint8_t *codes, uint8_t *scales) {
  for (int64_t i = 0; i < n; i += SY_NVFP4_BLOCK) {
    sy_nvfp4_quantise_block(x + i, global, codes + i / 2, scales + i / SY_NVFP4_BLOCK);
  }
}

static void mxfp4(const float *x, int64_t n, uint8_t *codes, uint8_t *scales) {
  for (int64_t i = 0; i < n; i += SY_MXFP4_BLOCK) {
    sy_mxfp4_quantise_block(x + i, codes + i / 2, scales + i / SY_MXFP4_BLOCK);
  }
}

static float amax(const float *x, int64_t n) { return sy_amax(x, n); }

static void interleave(const uint8_t *rows, int64_t n, uint8_t *columns) {
  for (int64_t row = 0; row < 16; ++row) {
    for (int64_t i = 0; i < n; ++i) {
      columns[i * 16 + row] = rows[row * n + i];
    }
  }
}

const struct sy_quantiser sy_quantiser_generic = {nvfp4, mxfp4, amax, interleave};
