#include "kernels/cuda/architecture.h"

#include <stdio.h>
#include <stdlib.h>

/* The best entry of the list: the largest minor version that the GPU has; -1: none. */
static int32_t best_minor(const char *compiled, int32_t major, int32_t minor) {
  int32_t best = -1;
  const char *at = compiled;
  while (*at != '\0') {
    char *end;
    const int32_t number = (int32_t)strtol(at, &end, 10);
    if (end == at) {
      return best;
    }
    if (number / 10 == major && number % 10 <= minor && number % 10 > best) {
      best = number % 10;
    }
    at = end;
    while (*at != '\0' && *at != ',') {
      ++at; /* the family letter */
    }
    at += *at == ',' ? 1 : 0;
  }
  return best;
}

bool sy_cuda_choose_architecture(const char *compiled, int32_t major, int32_t minor, char *text_out,
                                 size_t text_bytes) {
  const int32_t best = best_minor(compiled, major, minor);
  if (best < 0) {
    snprintf(text_out, text_bytes, "none: compiled for sm_%s, and this is sm_%d%d", compiled,
             (int)major, (int)minor);
    return false;
  }
  snprintf(text_out, text_bytes, "sm_%d%d%s", (int)major, (int)best,
           sy_cuda_has_block_scaling(major)
               ? "f: FP4 by block-scaled matrix instructions"
               : ": FP4 dequantised to BF16, as only sm_12x multiplies it");
  return true;
}
