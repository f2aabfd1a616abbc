#include "attention.h"

#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "tensor_ops.h"

bool lm_sequence_create(struct lm_sequence *sequence, const struct lm_config *config,
                        int32_t capacity) {
  const size_t rows = (size_t)config->num_layers * (size_t)config->num_kv_heads * (size_t)capacity;
  const size_t row_bytes = (size_t)config->head_dim * sizeof(float);
  *sequence = (struct lm_sequence){
      .capacity = capacity, .keys = calloc(rows, row_bytes), .values = calloc(rows, row_bytes)};
  return sequence->keys != NULL && sequence->values != NULL;
}

void lm_sequence_destroy(struct lm_sequence *sequence) {
  free(sequence->keys);
  free(sequence->values);
}

/* Where the keys (and values) of one head of a sequence begin. */
static int64_t head_offset(const struct lm_config *config, const struct lm_sequence *sequence,
                           int32_t layer_idx, int32_t kv_head) {
  return ((int64_t)layer_idx * config->num_kv_heads + kv_head) * sequence->capacity *
         config->head_dim;
}

/* Normalises and rotates one token's queries and keys; keeps its keys and values. */
static void place_token(const struct lm_model *model, int32_t layer_idx,
                        const struct lm_token *token, float *query, float *key,
                        const float *value) {
  const struct lm_config *c = &model->config;
  const struct lm_layer *layer = &model->layers[layer_idx];
  const int32_t dim = c->head_dim;
  const float *cosines = model->cosines + (int64_t)token->position * (dim / 2);
  const float *sines = model->sines + (int64_t)token->position * (dim / 2);
  for (int32_t h = 0; h < c->num_heads; ++h) {
    float *q = query + (int64_t)h * dim;
    lm_rms_norm(q, layer->query_norm, dim, c->rms_norm_eps, q);
    lm_rotate(q, cosines, sines, dim);
  }
  for (int32_t h = 0; h < c->num_kv_heads; ++h) {
    float *k = key + (int64_t)h * dim;
    lm_rms_norm(k, layer->key_norm, dim, c->rms_norm_eps, k);
    lm_rotate(k, cosines, sines, dim);
    const int64_t kept =
        head_offset(c, token->sequence, layer_idx, h) + (int64_t)token->position * dim;
    memcpy(token->sequence->keys + kept, k, (size_t)dim * sizeof(float));
    memcpy(token->sequence->values + kept, value + (int64_t)h * dim, (size_t)dim * sizeof(float));
  }
}

/* One query over `count` positions. */
static void attend(const float *query, const float *keys, const float *values, int32_t count,
                   int32_t dim, float *scores, float *attended) {
  lm_scores(query, keys, count, dim, 1.0f / sqrtf((float)dim), scores);
  lm_softmax(scores, count);
  lm_weighted_sum(scores, values, count, dim, attended);
}

void lm_attend(const struct lm_model *model, int32_t layer_idx, const struct lm_token *tokens,
               int64_t num_tokens, const struct lm_heads *heads) {
  const struct lm_config *c = &model->config;
  const int64_t dim = c->head_dim;
  const int32_t group = c->num_heads / c->num_kv_heads;
#pragma omp parallel for num_threads(model->threads) schedule(static)
  for (int64_t t = 0; t < num_tokens; ++t) {
    place_token(model, layer_idx, &tokens[t], heads->query + t * c->num_heads * dim,
                heads->key + t * c->num_kv_heads * dim, heads->value + t * c->num_kv_heads * dim);
  }
#pragma omp parallel for collapse(2) num_threads(model->threads) schedule(dynamic, 16)
  for (int64_t t = 0; t < num_tokens; ++t) {
    for (int32_t h = 0; h < c->num_heads; ++h) {
      const struct lm_sequence *sequence = tokens[t].sequence;
      const int64_t kept = head_offset(c, sequence, layer_idx, h / group);
      const int64_t row = (t * c->num_heads + h) * dim;
      attend(heads->query + row, sequence->keys + kept, sequence->values + kept,
             tokens[t].position + 1, c->head_dim,
             heads->scores + (int64_t)omp_get_thread_num() * c->max_positions,
             heads->attended + row);
    }
  }
}
