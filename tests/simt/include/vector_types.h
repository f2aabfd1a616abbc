/* Stands in for the CUDA toolkit's header of this name: the vector types that this project uses. */
#ifndef SY_TESTS_SIMT_VECTOR_TYPES_H
#define SY_TESTS_SIMT_VECTOR_TYPES_H

typedef struct __attribute__((aligned(8))) uint2 {
  unsigned x, y;
} uint2;

typedef struct uint3 {
  unsigned x, y, z;
} uint3;

typedef struct __attribute__((aligned(16))) uint4 {
  unsigned x, y, z, w;
} uint4;

typedef struct __attribute__((aligned(8))) int2 {
  int x, y;
} int2;

typedef struct __attribute__((aligned(16))) int4 {
  int x, y, z, w;
} int4;

typedef struct __attribute__((aligned(8))) float2 {
  float x, y;
} float2;

typedef struct __attribute__((aligned(16))) float4 {
  float x, y, z, w;
} float4;

typedef struct dim3 {
  unsigned x, y, z;
#ifdef __cplusplus
  constexpr dim3(unsigned nx = 1, unsigned ny = 1, unsigned nz = 1) : x(nx), y(ny), z(nz) {}
#endif
} dim3;

#endif
