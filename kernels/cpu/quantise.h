/* The quantiser of fp4.h, block after block, in scalar code or by an instruction set: the same bits.
 * n values (whole blocks, all finite) -> n / 2 bytes of codes and a scale per block. */
#ifndef SY_KERNELS_CPU_QUANTISE_H
#define SY_KERNELS_CPU_QUANTISE_H

#include <stdint.h>

struct sy_quantiser {
  void (*nvfp4)(const float *x, int64_t n, float global, uint8_t *codes, uint8_t *scales);
  void (*mxfp4)(const float *x, int64_t n, uint8_t *codes, uint8_t *scales);
  /* sy_amax of n values, a multiple of 16: NaN and infinity have the largest magnitude of all. */
  float (*amax)(const float *x, int64_t n);
  /* 16 rows of n bytes each -> n columns of 16: the lanes of a tile come together. */
  void (*interleave)(const uint8_t *rows, int64_t n, uint8_t *columns);
};

extern const struct sy_quantiser sy_quantiser_generic;
extern const struct sy_quantiser sy_quantiser_avx512;

#endif
