#include "decoder.h"

#include <stdlib.h>
#include <string.h>

#include "bf16.h"
#include "router.h"
#include "tensor_ops.h"

bool lm_decoder_create(struct lm_decoder *decoder, const struct lm_model *model,
                       int64_t max_tokens) {
  const struct lm_config *c = &model->config;
  const size_t rows = max_tokens < 1 ? 1 : (size_t)max_tokens;
  const size_t hidden = (size_t)c->hidden * sizeof(float);
  const size_t head = (size_t)c->head_dim * sizeof(float);
  const size_t heads = (size_t)c->num_heads * head, kv_heads = (size_t)c->num_kv_heads * head;
  const size_t top_k = (size_t)c->top_k;
  *decoder = (struct lm_decoder){
      .model = model,
      .max_tokens = max_tokens,
      .residual = calloc(rows, hidden),
      .normalised = calloc(rows, hidden),
      .projected = calloc(rows, hidden),
      .heads = {.query = calloc(rows, heads),
                .key = calloc(rows, kv_heads),
                .value = calloc(rows, kv_heads),
                .attended = calloc(rows, heads),
                .scores = calloc((size_t)model->threads * (size_t)c->max_positions, sizeof(float))},
      .hidden = calloc(rows, (size_t)c->hidden * sizeof(uint16_t)),
      .router_logits = calloc(rows, (size_t)c->num_experts * sizeof(float)),
      .expert_ids = calloc(rows, top_k * sizeof(int32_t)),
      .expert_weights = calloc(rows, top_k * sizeof(float))};
  return decoder->residual != NULL && decoder->normalised != NULL && decoder->projected != NULL &&
         decoder->heads.query != NULL && decoder->heads.key != NULL &&
         decoder->heads.value != NULL && decoder->heads.attended != NULL &&
         decoder->heads.scores != NULL && decoder->hidden != NULL &&
         decoder->router_logits != NULL && decoder->expert_ids != NULL &&
         decoder->expert_weights != NULL;
}

void lm_decoder_destroy(struct lm_decoder *decoder) {
  free(decoder->residual);
  free(decoder->normalised);
  free(decoder->projected);
  free(decoder->heads.query);
  free(decoder->heads.key);
  free(decoder->heads.value);
  free(decoder->heads.attended);
  free(decoder->heads.scores);
  free(decoder->hidden);
  free(decoder->router_logits);
  free(decoder->expert_ids);
  free(decoder->expert_weights);
}

static void embed(struct lm_decoder *d, const struct lm_token *tokens, int64_t num_tokens) {
  const int64_t hidden = d->model->config.hidden;
  for (int64_t t = 0; t < num_tokens; ++t) {
    memcpy(d->residual + t * hidden, d->model->embedding + tokens[t].byte * hidden,
           (size_t)hidden * sizeof(float));
  }
}

/* residual -> normalised */
static void normalise(struct lm_decoder *d, const float *weight, int64_t first, int64_t count) {
  const struct lm_config *c = &d->model->config;
#pragma omp parallel for num_threads(d->model->threads) schedule(static)
  for (int64_t t = first; t < first + count; ++t) {
    lm_rms_norm(d->residual + t * c->hidden, weight, c->hidden, c->rms_norm_eps,
                d->normalised + t * c->hidden);
  }
}

static void attention_block(struct lm_decoder *d, int32_t layer_idx, const struct lm_token *tokens,
                            int64_t num_tokens) {
  const struct lm_layer *layer = &d->model->layers[layer_idx];
  const int32_t threads = d->model->threads;
  normalise(d, layer->attention_norm, 0, num_tokens);
  lm_linear_apply(&layer->query, d->normalised, num_tokens, d->heads.query, threads);
  lm_linear_apply(&layer->key, d->normalised, num_tokens, d->heads.key, threads);
  lm_linear_apply(&layer->value, d->normalised, num_tokens, d->heads.value, threads);
  lm_attend(d->model, layer_idx, tokens, num_tokens, &d->heads);
  lm_linear_apply(&layer->output, d->heads.attended, num_tokens, d->projected, threads);
  const int64_t count = num_tokens * d->model->config.hidden;
  for (int64_t i = 0; i < count; ++i) {
    d->residual[i] += d->projected[i];
  }
}

/* The layer's experts add to the residual stream. */
static sy_status experts_block(struct lm_decoder *d, int32_t layer_idx, const sy_plan *plan,
                               int64_t num_tokens) {
  const struct lm_config *c = &d->model->config;
  const struct lm_layer *layer = &d->model->layers[layer_idx];
  normalise(d, layer->experts_norm, 0, num_tokens);
  lm_linear_apply(&layer->router, d->normalised, num_tokens, d->router_logits, d->model->threads);
#pragma omp parallel for num_threads(d->model->threads) schedule(static)
  for (int64_t t = 0; t < num_tokens; ++t) {
    lm_route(c, d->router_logits + t * c->num_experts, d->expert_ids + t * c->top_k,
             d->expert_weights + t * c->top_k);
    for (int64_t i = t * c->hidden; i < (t + 1) * c->hidden; ++i) {
      d->hidden[i] = lm_f32_to_bf16(d->normalised[i]);
    }
  }
  sy_io io = SY_IO_INIT;
  io.num_tokens = num_tokens;
  io.memory = SY_MEMORY_HOST;
  io.hidden = d->hidden;
  io.expert_ids = d->expert_ids;
  io.expert_weights = d->expert_weights;
  io.output = d->residual;
  io.output_dtype = SY_DTYPE_F32;
  io.accumulate = 1;
  return sy_forward(layer->experts, plan, &io, NULL, 0, NULL);
}

sy_status lm_decoder_run(struct lm_decoder *decoder, const sy_plan *plan,
                         const struct lm_token *tokens, int64_t num_tokens) {
  embed(decoder, tokens, num_tokens);
  for (int32_t i = 0; i < decoder->model->config.num_layers; ++i) {
    attention_block(decoder, i, tokens, num_tokens);
    const sy_status status = experts_block(decoder, i, plan, num_tokens);
    if (status != SY_OK) {
      return status;
    }
  }
  return SY_OK;
}

void lm_decoder_logits(struct lm_decoder *decoder, int64_t first, int64_t count, float *logits) {
  const struct lm_model *model = decoder->model;
  normalise(decoder, model->final_norm, first, count);
  lm_linear_apply(&model->head, decoder->normalised + first * model->config.hidden, count, logits,
                  model->threads);
}
