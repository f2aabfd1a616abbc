/* BF16 is the upper half of an f32. */
#ifndef LM_BF16_H
#define LM_BF16_H

#include <stdint.h>
#include <string.h>

static inline float lm_bf16_to_f32(uint16_t x) {
  const uint32_t bits = (uint32_t)x << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return value;
}

/* Rounds to nearest, ties to even; a NaN stays one. */
static inline uint16_t lm_f32_to_bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  if (x != x) {
    return (uint16_t)((bits >> 16) | 0x0040u);
  }
  return (uint16_t)((bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16);
}

#endif
