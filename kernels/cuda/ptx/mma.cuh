/* Matrix instructions: a warp multiplies A (16 rows) by B (8 columns) and adds to D, in f32.
 *
 * Lane l, g = l / 4, p = l % 4. D is f32 [16][8]: d[0], d[1] are row g, columns 2p and 2p + 1; d[2],
 * d[3] the same of row g + 8. Fragments are bytes in the order of k, whatever the format:
 *   A   a[0], a[1]: rows g, g + 8, first half of k;   a[2], a[3]: the same rows, second half
 *   B   b[0], b[1]: column g, first and second half of k
 * and within a half lane p holds its p-th four bytes. FP4: k = 64, element n of a register is its
 * bits 4n .. 4n + 3. BF16: k = 16, two elements in a register. So byte j of each FP4 register is
 * register of BF16 multiplication j, for j = 0 .. 3: the emulation needs no shuffle of data. */
#ifndef SY_KERNELS_CUDA_PTX_MMA_CUH
#define SY_KERNELS_CUDA_PTX_MMA_CUH

#include "kernels/cuda/ptx/arch.cuh"
#include "kernels/fp4.h"

#if SY_PTX_HOST
#include "tests/simt/tensor_core.hpp"
#endif

/* ---- BF16 ---- */

SY_DEVICE void sy_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2] SY_SITE) {
#if SY_PTX_HOST
  simt::mma_bf16(d, a, b, site);
#else
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#endif
}

/* Two BF16 products, each rounded to nearest even; subnormals are kept. */
SY_DEVICE uint32_t sy_mul_bf16x2(uint32_t x, uint32_t y) {
#if SY_PTX_HOST
  const auto multiply = [](uint32_t u, uint32_t v) -> uint32_t {
    return sy_f32_to_bf16(sy_f32_of_bits(u << 16) * sy_f32_of_bits(v << 16));
  };
  return multiply(x & 0xFFFFu, y & 0xFFFFu) | multiply(x >> 16, y >> 16) << 16;
#else
  uint32_t product;
  const uint32_t minus_zero = 0x80008000u; /* a product of zero keeps its sign */
  asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(product) : "r"(x), "r"(y), "r"(minus_zero));
  return product;
#endif
}

/* ---- FP4, by way of BF16 ---- */

/* Codes and scales are put where BF16 has them, then multiplied by the power of two between the
 * exponents' biases: that is exact, and gives the subnormal codes their value. */

/* A byte of two E2M1 codes. */
SY_DEVICE uint32_t sy_bf16x2_from_e2m1x2(uint32_t codes) {
  const uint32_t bits =
      (codes & 0x08u) << 12 | (codes & 0x07u) << 6 | (codes & 0x80u) << 24 | (codes & 0x70u) << 18;
  return sy_mul_bf16x2(bits, 0x7E807E80u); /* 2^126 */
}

/* A scale, twice. The sign bit of UE4M3 is ignored; 0x7F is NaN. */
SY_DEVICE uint32_t sy_bf16x2_from_ue4m3(uint32_t scale) {
  const uint32_t magnitude = scale & 0x7Fu;
  if (magnitude == 0x7Fu) {
    return 0x7FC07FC0u;
  }
  return sy_mul_bf16x2(magnitude << 4 | magnitude << 20, 0x7B807B80u); /* 2^120 */
}

/* 0xFF is NaN; 0 is 2^-127, a subnormal. */
SY_DEVICE uint32_t sy_bf16x2_from_ue8m0(uint32_t scale) {
  const uint32_t exponent = scale & 0xFFu;
  const uint32_t bits = exponent == 0u ? 0x0040u : exponent == 0xFFu ? 0x7FC0u : exponent << 7;
  return bits | bits << 16;
}

/* scale_a[h][r]: of row g + 8 r in half h of k; scale_b[h]: of column g. Each is a pair. */
SY_DEVICE void sy_mma_fp4_scaled(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                 const uint32_t (&scale_a)[2][2],
                                 const uint32_t (&scale_b)[2] SY_SITE) {
  SY_UNROLL
  for (int j = 0; j < 4; ++j) {
    uint32_t a16[4];
    uint32_t b16[2];
    SY_UNROLL
    for (int i = 0; i < 4; ++i) {
      a16[i] = sy_mul_bf16x2(sy_bf16x2_from_e2m1x2(a[i] >> (8 * j)), scale_a[i / 2][i % 2]);
    }
    SY_UNROLL
    for (int i = 0; i < 2; ++i) {
      b16[i] = sy_mul_bf16x2(sy_bf16x2_from_e2m1x2(b[i] >> (8 * j)), scale_b[i]);
    }
    sy_mma_bf16(d, a16, b16 SY_AT_SITE);
  }
}

/* The words of rows g and g + 8 and of column g, from the lanes of this group of four that provide
 * them. */
template <int THREAD_A, int THREAD_B>
SY_DEVICE void sy_fetch_scales(uint32_t scale_a, uint32_t scale_b, uint32_t (&of_a)[2],
                               uint32_t &of_b SY_SITE) {
  of_a[0] = __shfl_sync(0xFFFFFFFFu, scale_a, 2 * THREAD_A, 4 SY_AT_SITE);
  of_a[1] = __shfl_sync(0xFFFFFFFFu, scale_a, 2 * THREAD_A + 1, 4 SY_AT_SITE);
  of_b = __shfl_sync(0xFFFFFFFFu, scale_b, THREAD_B, 4 SY_AT_SITE);
}

/* sy_mma_nvfp4 by dequantising. Exact, but for scale 0x7F (NaN either way). */
template <int THREAD_A, int THREAD_B>
SY_DEVICE void sy_mma_nvfp4_by_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    uint32_t scale_a, uint32_t scale_b SY_SITE) {
  uint32_t of_a[2];
  uint32_t of_b;
  sy_fetch_scales<THREAD_A, THREAD_B>(scale_a, scale_b, of_a, of_b SY_AT_SITE);
  uint32_t pair_a[2][2];
  uint32_t pair_b[2];
  SY_UNROLL
  for (int h = 0; h < 2; ++h) { /* of this lane's k, half h lies in block 2 h + p / 2 */
    const uint32_t shift = 8u * (sy_lane() % 4u / 2u) + 16u * static_cast<uint32_t>(h);
    pair_a[h][0] = sy_bf16x2_from_ue4m3(of_a[0] >> shift);
    pair_a[h][1] = sy_bf16x2_from_ue4m3(of_a[1] >> shift);
    pair_b[h] = sy_bf16x2_from_ue4m3(of_b >> shift);
  }
  sy_mma_fp4_scaled(d, a, b, pair_a, pair_b SY_AT_SITE);
}

/* sy_mma_mxfp4 by dequantising. Exact while |code * scale| < 2^128 on both sides. */
template <int BYTE_A, int THREAD_A, int BYTE_B, int THREAD_B>
SY_DEVICE void sy_mma_mxfp4_by_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                    uint32_t scale_a, uint32_t scale_b SY_SITE) {
  uint32_t of_a[2];
  uint32_t of_b;
  sy_fetch_scales<THREAD_A, THREAD_B>(scale_a, scale_b, of_a, of_b SY_AT_SITE);
  uint32_t pair_a[2][2];
  uint32_t pair_b[2];
  SY_UNROLL
  for (int h = 0; h < 2; ++h) {
    pair_a[h][0] = sy_bf16x2_from_ue8m0(of_a[0] >> (8 * (BYTE_A + h)));
    pair_a[h][1] = sy_bf16x2_from_ue8m0(of_a[1] >> (8 * (BYTE_A + h)));
    pair_b[h] = sy_bf16x2_from_ue8m0(of_b >> (8 * (BYTE_B + h)));
  }
  sy_mma_fp4_scaled(d, a, b, pair_a, pair_b SY_AT_SITE);
}

/* ---- FP4 ---- */

/* E2M1 with a UE4M3 scale per 16 of k. A scale word holds the four scales of a row or column, byte
 * j for k = 16 j .. 16 j + 15. Row r's word is lane 4 (r % 8) + 2 THREAD_A + r / 8's, column c's is
 * lane 4 c + THREAD_B's; the other lanes' words are ignored, but must hold no NaN. */
template <int THREAD_A, int THREAD_B>
SY_DEVICE void sy_mma_nvfp4(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                            uint32_t scale_a, uint32_t scale_b SY_SITE) {
  static_assert(THREAD_A == 0 || THREAD_A == 1, "A's scales come from lane pair 0 or 1");
  static_assert(THREAD_B >= 0 && THREAD_B < 4, "B's scales come from lane 0 to 3 of four");
#if SY_PTX_HOST
  simt::mma_nvfp4(d, a, b, scale_a, scale_b, {0, THREAD_A, 0, THREAD_B}, site);
#elif SY_PTX_SM12X
  asm volatile("mma.sync.aligned.m16n8k64.row.col.kind::mxf4nvf4.block_scale.scale_vec::4X"
               ".f32.e2m1.e2m1.f32.ue4m3 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, "
               "%10, {0, %12}, %11, {0, %13};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(scale_a),
                 "r"(scale_b), "n"(THREAD_A), "n"(THREAD_B));
#else
  sy_mma_nvfp4_by_bf16<THREAD_A, THREAD_B>(d, a, b, scale_a, scale_b);
#endif
}

/* E2M1 with a UE8M0 scale per 32 of k. Bytes BYTE and BYTE + 1 of a word are the scales of k < 32
 * and k >= 32, so that one word serves two steps of k. Lanes as above. */
template <int BYTE_A, int THREAD_A, int BYTE_B, int THREAD_B>
SY_DEVICE void sy_mma_mxfp4(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                            uint32_t scale_a, uint32_t scale_b SY_SITE) {
  static_assert(THREAD_A == 0 || THREAD_A == 1, "A's scales come from lane pair 0 or 1");
  static_assert(THREAD_B >= 0 && THREAD_B < 4, "B's scales come from lane 0 to 3 of four");
  static_assert(BYTE_A == 0 || BYTE_A == 2, "A's scales are the low or the high half of a word");
  static_assert(BYTE_B == 0 || BYTE_B == 2, "B's scales are the low or the high half of a word");
#if SY_PTX_HOST
  simt::mma_mxfp4(d, a, b, scale_a, scale_b, {BYTE_A, THREAD_A, BYTE_B, THREAD_B}, site);
#elif SY_PTX_SM12X
  asm volatile("mma.sync.aligned.m16n8k64.row.col.kind::mxf4.block_scale.scale_vec::2X"
               ".f32.e2m1.e2m1.f32.ue8m0 "
               "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3}, "
               "%10, {%12, %13}, %11, {%14, %15};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]), "r"(scale_a),
                 "r"(scale_b), "n"(BYTE_A), "n"(THREAD_A), "n"(BYTE_B), "n"(THREAD_B));
#else
  sy_mma_mxfp4_by_bf16<BYTE_A, THREAD_A, BYTE_B, THREAD_B>(d, a, b, scale_a, scale_b);
#endif
}

/* ---- Fragments from shared memory ---- */

/* Four matrices of eight rows of 16 bytes: lane l names row l % 8 of matrix l / 8, and gets bytes
 * 4 p .. 4 p + 3 of row g of matrix i in r[i]. */
SY_DEVICE void sy_ldmatrix_x4(uint32_t (&r)[4], const void *row SY_SITE) {
#if SY_PTX_HOST
  simt::ldmatrix(r, 4, row, site);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(sy_shared_address(row))
               : "memory");
#endif
}

/* Two matrices, named by lanes 0 to 15. */
SY_DEVICE void sy_ldmatrix_x2(uint32_t (&r)[2], const void *row SY_SITE) {
#if SY_PTX_HOST
  simt::ldmatrix(r, 2, row, site);
#else
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(sy_shared_address(row))
               : "memory");
#endif
}

#endif
