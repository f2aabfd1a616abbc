/* Chooses the next byte. */
#ifndef LM_SAMPLE_H
#define LM_SAMPLE_H

#include <stdint.h>

#include "options.h"

/* logits f32 [LM_VOCABULARY] -> a byte. Temperature 0: the likeliest, ties to the lower byte.
 * Otherwise drawn; the draw depends on the seed, the prompt's index and the position alone, not on
 * the rank or on other draws. */
uint8_t lm_sample(const struct lm_options *options, const float *logits, int32_t prompt_idx,
                  int32_t position);

#endif
