/* Conversions between f32 and the formats of kernels/fp4.h, two at a time, `low` in the low bits.
 *
 * Each gives the bits of fp4.h's own conversion, which is the specification; the instruction, where
 * there is one, is its fast form. */
#ifndef SY_KERNELS_CUDA_PTX_CONVERT_CUH
#define SY_KERNELS_CUDA_PTX_CONVERT_CUH

#include "kernels/cuda/ptx/arch.cuh"
#include "kernels/fp4.h"

/* Finite values to two codes; to nearest, ties to even, saturating at 6. */
SY_DEVICE uint32_t sy_e2m1x2_from_f32(float low, float high) {
#if SY_PTX_SM12X
  uint32_t codes;
  asm("{ .reg .b8 c; cvt.rn.satfinite.e2m1x2.f32 c, %2, %1; cvt.u32.u8 %0, c; }"
      : "=r"(codes)
      : "f"(low), "f"(high));
  return codes;
#else
  return static_cast<uint32_t>(sy_e2m1_from_f32(low)) |
         static_cast<uint32_t>(sy_e2m1_from_f32(high)) << 4;
#endif
}

SY_DEVICE float2 sy_f32x2_from_e2m1x2(uint32_t codes) {
#if SY_PTX_SM12X
  float2 v;
  asm("{ .reg .b8 c; .reg .b32 h; .reg .b16 l, u; cvt.u8.u32 c, %2; "
      "cvt.rn.f16x2.e2m1x2 h, c; mov.b32 {l, u}, h; cvt.f32.f16 %0, l; cvt.f32.f16 %1, u; }"
      : "=f"(v.x), "=f"(v.y)
      : "r"(codes));
  return v;
#else
  return make_float2(sy_e2m1_to_f32(codes & 15u), sy_e2m1_to_f32(codes >> 4 & 15u));
#endif
}

/* Finite values >= 0 to two scales; to nearest, ties to even, saturating at 448. */
SY_DEVICE uint32_t sy_ue4m3x2_from_f32(float low, float high) {
#if SY_PTX_ARCH >= 890
  uint32_t scales;
  asm("{ .reg .b16 s; cvt.rn.satfinite.e4m3x2.f32 s, %2, %1; cvt.u32.u16 %0, s; }"
      : "=r"(scales)
      : "f"(low), "f"(high));
  return scales;
#else
  return static_cast<uint32_t>(sy_e4m3_from_f32(low)) |
         static_cast<uint32_t>(sy_e4m3_from_f32(high)) << 8;
#endif
}

/* The sign bits are ignored; 0x7F is NaN. */
SY_DEVICE float2 sy_f32x2_from_ue4m3x2(uint32_t scales) {
#if SY_PTX_ARCH >= 890
  float2 v;
  asm("{ .reg .b16 s, l, u; .reg .b32 h; cvt.u16.u32 s, %2; "
      "cvt.rn.f16x2.e4m3x2 h, s; mov.b32 {l, u}, h; cvt.f32.f16 %0, l; cvt.f32.f16 %1, u; }"
      : "=f"(v.x), "=f"(v.y)
      : "r"(scales & 0x7F7Fu));
  return v;
#else
  return make_float2(sy_e4m3_to_f32(static_cast<uint8_t>(scales & 0xFFu)),
                     sy_e4m3_to_f32(static_cast<uint8_t>(scales >> 8 & 0xFFu)));
#endif
}

/* The smallest power of two >= x, for finite x > 0, as a biased exponent: 0 is 2^-127, and also what
 * smaller values give; values above 2^127 give 254. */
SY_DEVICE uint32_t sy_ue8m0_of_f32(float x) {
  const uint32_t bits = sy_bits_of_f32(x);
  const uint32_t exponent = bits >> 23;
  const uint32_t mantissa = bits & 0x7FFFFFu;
  const bool is_above = exponent == 0u ? mantissa > 0x400000u : mantissa != 0u;
  const uint32_t code = exponent + (is_above ? 1u : 0u);
  return code > 254u ? 254u : code;
}

SY_DEVICE uint32_t sy_ue8m0x2_from_f32(float low, float high) {
#if SY_PTX_SM12X
  uint32_t scales;
  asm("{ .reg .b16 s; cvt.rp.satfinite.ue8m0x2.f32 s, %2, %1; cvt.u32.u16 %0, s; }"
      : "=r"(scales)
      : "f"(low), "f"(high));
  return scales;
#else
  return sy_ue8m0_of_f32(low) | sy_ue8m0_of_f32(high) << 8;
#endif
}

/* 0xFF is NaN. */
SY_DEVICE float sy_f32_of_ue8m0(uint32_t scale) {
  return sy_f32_of_bits(scale == 0u ? 0x00400000u : scale == 0xFFu ? 0x7FC00000u : scale << 23);
}

SY_DEVICE float2 sy_f32x2_from_ue8m0x2(uint32_t scales) {
#if SY_PTX_SM12X
  uint32_t bf16;
  asm("{ .reg .b16 s; cvt.u16.u32 s, %1; cvt.rn.bf16x2.ue8m0x2 %0, s; }"
      : "=r"(bf16)
      : "r"(scales));
  return make_float2(sy_f32_of_bits(bf16 << 16), sy_f32_of_bits(bf16 & 0xFFFF0000u));
#else
  return make_float2(sy_f32_of_ue8m0(scales & 0xFFu), sy_f32_of_ue8m0(scales >> 8 & 0xFFu));
#endif
}

#endif
