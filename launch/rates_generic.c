/* f32 multiply-adds as the compiler makes them for the baseline. */
#include <math.h>

#include "launch/rates.h"

static bool always(void) { return true; }

static uint64_t run_f32(void) {
  enum { CHAINS = 64, STEPS = 1 << 14 };
  float sums[CHAINS];
  for (int i = 0; i < CHAINS; ++i) {
    sums[i] = (float)i;
  }
  for (int step = 0; step < STEPS; ++step) {
    for (int i = 0; i < CHAINS; ++i) {
      sums[i] = sums[i] * 0.5f + 1.0f;
    }
  }
  volatile float sink = 0.0f;
  for (int i = 0; i < CHAINS; ++i) {
    sink = sink + sums[i];
  }
  return (uint64_t)CHAINS * STEPS * 2;
}

const struct rates rates_generic = {always, {[RATE_F32] = run_f32}};
