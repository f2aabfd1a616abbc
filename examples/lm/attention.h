/* Grouped-query attention with a cache of keys and values. */
#ifndef LM_ATTENTION_H
#define LM_ATTENTION_H

#include <stdbool.h>
#include <stdint.h>

#include "model.h"

/* What a sequence's earlier tokens leave to the later ones. */
struct lm_sequence {
  int32_t capacity;     /* positions */
  float *keys, *values; /* f32 [num_layers, num_kv_heads, capacity, head_dim] */
};

/* False: out of memory. */
bool lm_sequence_create(struct lm_sequence *sequence, const struct lm_config *config,
                        int32_t capacity);
void lm_sequence_destroy(struct lm_sequence *sequence);

/* A token of a batch. Tokens of one sequence come in ascending position; all positions before the
 * first have been in earlier batches, or are in this one. */
struct lm_token {
  struct lm_sequence *sequence;
  int32_t position;
  uint8_t byte;
};

/* The tensors between one layer's projections, for every token of a batch. */
struct lm_heads {
  float *query;    /* f32 [T, num_heads, head_dim] */
  float *key;      /* f32 [T, num_kv_heads, head_dim] */
  float *value;    /* f32 [T, num_kv_heads, head_dim] */
  float *attended; /* f32 [T, num_heads, head_dim] */
  float *scores;   /* f32 [threads, max_positions] */
};

/* query, key, value -> attended: normalises and rotates queries and keys, keeps keys and values,
 * and lets every token attend to its sequence up to itself. */
void lm_attend(const struct lm_model *model, int32_t layer_idx, const struct lm_token *tokens,
               int64_t num_tokens, const struct lm_heads *heads);

#endif
