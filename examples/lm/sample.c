#include "sample.h"

#include <math.h>
#include <stdlib.h>

#include "config.h"

struct candidate {
  double weight; /* probability, times a common factor */
  int byte;
};

/* Descending weight, ascending byte. */
static int compare(const void *left, const void *right) {
  const struct candidate *a = left, *b = right;
  if (a->weight != b->weight) {
    return a->weight > b->weight ? -1 : 1;
  }
  return a->byte - b->byte;
}

/* SplitMix64's finaliser: every bit of the result depends on every bit of x. */
static uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15u;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
  return x ^ (x >> 31);
}

/* Uniform in [0, 1), in steps of 2^-53. */
static double uniform(uint64_t seed, int32_t prompt_idx, int32_t position) {
  const uint64_t draw = mix(mix(mix(seed) ^ (uint64_t)prompt_idx) ^ (uint64_t)position);
  return (double)(draw >> 11) * 0x1p-53;
}

static uint8_t likeliest(const float *logits) {
  int best = 0;
  for (int i = 1; i < LM_VOCABULARY; ++i) {
    if (logits[i] > logits[best]) {
      best = i;
    }
  }
  return (uint8_t)best;
}

uint8_t lm_sample(const struct lm_options *options, const float *logits, int32_t prompt_idx,
                  int32_t position) {
  const uint8_t first = likeliest(logits);
  if (options->temperature == 0.0) {
    return first;
  }
  struct candidate candidates[LM_VOCABULARY];
  double total = 0.0;
  for (int i = 0; i < LM_VOCABULARY; ++i) {
    const double below = (double)logits[first] - (double)logits[i];
    candidates[i] = (struct candidate){exp(-below / options->temperature), i};
    total += candidates[i].weight;
  }
  qsort(candidates, LM_VOCABULARY, sizeof candidates[0], compare);
  /* The fewest of the likeliest that together reach top_p. */
  double kept = 0.0;
  int count = 0;
  while (count < LM_VOCABULARY && (count == 0 || kept < options->top_p * total)) {
    kept += candidates[count++].weight;
  }
  double left = uniform(options->seed, prompt_idx, position) * kept;
  int drawn = 0;
  while (drawn < count - 1 && left >= candidates[drawn].weight) {
    left -= candidates[drawn++].weight;
  }
  return (uint8_t)candidates[drawn].byte;
}
