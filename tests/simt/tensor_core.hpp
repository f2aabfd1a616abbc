/* What the matrix instructions compute, from the fragments of the warp's 32 lanes.
 *
 * Arithmetic: as the RTX Blackwell tensor core is reported to do it (MMA-Sim). Terms (for FP4 the
 * exact sum of 16 products times the scales' significands; for BF16 a product) and the addend are
 * aligned to the largest exponent, cut behind a number of fraction bits, added exactly, and the sum
 * is rounded toward zero. On data whose sums fit in f32 that is the exact result. */
#ifndef SY_TESTS_SIMT_TENSOR_CORE_HPP
#define SY_TESTS_SIMT_TENSOR_CORE_HPP

#include <cstdint>

#include "tests/simt/site.hpp"

namespace simt {

/* Which byte of which lane's word holds scales: ptx/mma.cuh. */
struct ScaleSelector {
  uint32_t byte_a, thread_a, byte_b, thread_b;
};

void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], Site site);

/* A GPU whose block-scaled instruction takes B's scales from the wrong half of their word. */
extern bool swaps_scales;

void mma_nvfp4(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], uint32_t scale_a,
               uint32_t scale_b, ScaleSelector selector, Site site);

void mma_mxfp4(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], uint32_t scale_a,
               uint32_t scale_b, ScaleSelector selector, Site site);

/* num_matrices words into r. */
void ldmatrix(uint32_t *r, uint32_t num_matrices, const void *row, Site site);

} // namespace simt

#endif
