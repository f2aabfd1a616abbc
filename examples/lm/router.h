/* Chooses each token's experts. */
#ifndef LM_ROUTER_H
#define LM_ROUTER_H

#include <stdint.h>

#include "config.h"

/* One token: logits f32 [num_experts] (overwritten by their softmax) -> the top_k most probable
 * experts, in descending probability, ties to the lower expert; their weights are the
 * probabilities, made to add up to 1 where the model says norm_topk_prob. */
void lm_route(const struct lm_config *config, float *logits, int32_t *ids, float *weights);

#endif
