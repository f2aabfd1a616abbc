/* The sizes of a Qwen3-MoE model, from its config.json. */
#ifndef LM_CONFIG_H
#define LM_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <switchyard_checkpoint.h>

#include "team.h"

#define LM_VOCABULARY 256 /* tokens are bytes */

/* What is sized by these numbers alone, and not by tensors of the checkpoint, stays below 512 MiB. */
#define LM_MAX_POSITIONS (1 << 18)
#define LM_MAX_HEAD_DIM 256

/* The experts' weights and activations, as --quant names them. */
enum lm_quant {
  LM_QUANT_W4A4,
  LM_QUANT_W4A16,
  LM_QUANT_BF16,
  LM_QUANT_W4A4_MXFP4,
  LM_QUANT_W4A16_MXFP4,
};

struct lm_config {
  int32_t hidden;
  int32_t num_layers;
  int32_t num_heads;
  int32_t num_kv_heads; /* divides num_heads: so many heads share a key and value head */
  int32_t head_dim;
  int32_t num_experts;
  int32_t top_k;
  int32_t max_positions;
  float rms_norm_eps;
  double rope_theta;
  bool norm_topk_prob;
  bool tie_word_embeddings;
  sy_shape shape;        /* of the MoE layers, in the mode and format asked for */
  uint64_t expert_bytes; /* of one expert, in the files; lm_model_load finds out */
};

enum lm_exit lm_config_read(struct lm_team *team, const sy_checkpoint *checkpoint,
                            enum lm_quant quant, struct lm_config *config_out);

#endif
