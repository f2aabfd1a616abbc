/* The model at work: a batch of tokens, of any sequences, through every layer.
 *
 * A token's result depends on its sequence alone. The batch, the rank and the number of threads
 * change nothing, to the last bit; with per_slot nor does the number of ranks. */
#ifndef LM_DECODER_H
#define LM_DECODER_H

#include <stdbool.h>
#include <stdint.h>
#include <switchyard.h>

#include "attention.h"
#include "model.h"

/* The tensors of one batch of at most max_tokens tokens. */
struct lm_decoder {
  const struct lm_model *model;
  int64_t max_tokens;
  float *residual;   /* f32 [T, hidden]: what layers add to */
  float *normalised; /* f32 [T, hidden]: what layers read */
  float *projected;  /* f32 [T, hidden] */
  struct lm_heads heads;
  uint16_t *hidden;      /* bf16 [T, hidden]: normalised, as the experts take it */
  float *router_logits;  /* f32 [T, num_experts] */
  int32_t *expert_ids;   /* i32 [T, top_k] */
  float *expert_weights; /* f32 [T, top_k] */
};

/* False: out of memory. The decoder can be destroyed whether this succeeds or not. */
bool lm_decoder_create(struct lm_decoder *decoder, const struct lm_model *model,
                       int64_t max_tokens);
void lm_decoder_destroy(struct lm_decoder *decoder);

/* Runs T <= max_tokens tokens. Collective: every rank calls it, with T = 0 when it has no work.
 * Failures are those of sy_forward. */
sy_status lm_decoder_run(struct lm_decoder *decoder, const sy_plan *plan,
                         const struct lm_token *tokens, int64_t num_tokens);

/* What follows tokens first .. first + count - 1 of the last batch: logits f32
 * [count, LM_VOCABULARY]. Local. */
void lm_decoder_logits(struct lm_decoder *decoder, int64_t first, int64_t count, float *logits);

#endif
