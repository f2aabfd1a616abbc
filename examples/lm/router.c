#include "router.h"

#include "tensor_ops.h"

/* A chosen expert's probability gives way to this: smaller than any. */
#define CHOSEN (-1.0f)

static int32_t most_probable(const float *probabilities, int32_t n) {
  int32_t best = 0;
  for (int32_t i = 1; i < n; ++i) {
    if (probabilities[i] > probabilities[best]) {
      best = i;
    }
  }
  return best;
}

void lm_route(const struct lm_config *config, float *logits, int32_t *ids, float *weights) {
  lm_softmax(logits, config->num_experts);
  float sum = 0.0f;
  for (int32_t k = 0; k < config->top_k; ++k) {
    ids[k] = most_probable(logits, config->num_experts);
    weights[k] = logits[ids[k]];
    logits[ids[k]] = CHOSEN;
    sum += weights[k];
  }
  for (int32_t k = 0; k < config->top_k && config->norm_topk_prob; ++k) {
    weights[k] /= sum;
  }
}
