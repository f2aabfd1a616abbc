/* The weights of a Qwen3-MoE language model. Every rank holds all dense weights; the experts are
 * shared out by Switchyard. */
#ifndef LM_MODEL_H
#define LM_MODEL_H

#include <stdint.h>
#include <switchyard.h>

#include "config.h"
#include "launch/progress.h"
#include "team.h"
#include "tensor_ops.h"

struct lm_layer {
  float *attention_norm; /* f32 [hidden] */
  struct lm_linear query, key, value, output;
  float *query_norm, *key_norm; /* f32 [head_dim] */
  float *experts_norm;          /* f32 [hidden] */
  struct lm_linear router;      /* hidden -> num_experts */
  sy_layer *experts;
};

struct lm_model {
  struct lm_config config;
  int32_t threads;
  sy_group *group;
  float *embedding; /* f32 [LM_VOCABULARY, hidden] */
  struct lm_layer *layers;
  float *final_norm;       /* f32 [hidden] */
  struct lm_linear head;   /* hidden -> LM_VOCABULARY */
  float *cosines, *sines;  /* f32 [max_positions, head_dim / 2]: rotary embedding */
  struct progress loading; /* hears of the bytes of experts from the group's callback */
};

/* Loads the checkpoint in directory `path`. The group's progress callback must be
 * progress_callback with &model->loading. The model can be destroyed whether this succeeds or
 * not. Collective; already agreed on: no rank goes on loading for long when another has failed. */
enum lm_exit lm_model_load(struct lm_team *team, sy_group *group, const char *path,
                           enum lm_quant quant, struct lm_model *model);
void lm_model_destroy(struct lm_model *model);

#endif
