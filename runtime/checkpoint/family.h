/* Model families: how config.json and the tensors of each are named. A family is one table in one
 * file, its declaration below, and its place in the list of family.c. */
#ifndef SY_RUNTIME_CHECKPOINT_FAMILY_H
#define SY_RUNTIME_CHECKPOINT_FAMILY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "kernels/source.h"
#include "runtime/switchyard_checkpoint.h"

/* Where a projection's rows are: row r of an expert is row first_row + r * row_step of the tensors
 * whose names begin with stem, which has {layer} and {expert} for the numbers. */
struct sy_family_projection {
  const char *stem;
  int32_t first_row, row_step;
};

struct sy_family {
  const char *name; /* model_type */

  /* Keys of config.json. */
  const char *layers_key;
  const char *hidden_key;
  const char *intermediate_key; /* of one expert */
  const char *experts_key;
  const char *top_k_key;
  const char *activation_key;

  const char *activation_value; /* the only one that the family has, */
  sy_activation activation;     /* and what it means */
  const char *limit_key;        /* of SWIGLU_CLAMPED; its alpha is SY_SHAPE_INIT's */

  /* A layer is dense when it is listed, when it is below the first sparse one, or when step does not
   * divide layer + offset. The keys may be NULL, or left out of a config: no list, 0, step 1. */
  const char *dense_layers_key;
  const char *first_sparse_key;
  const char *sparse_step_key;
  int32_t sparse_offset;

  bool stacked;     /* a tensor has all experts of a layer: [experts, rows, ...] */
  const char *bias; /* suffix of the biases' names; NULL: there are none */
  struct sy_family_projection projections[SY_NUM_PROJECTIONS];
};

extern const struct sy_family sy_family_deepseek_v3;
extern const struct sy_family sy_family_gpt_oss;
extern const struct sy_family sy_family_mixtral;
extern const struct sy_family sy_family_qwen3_moe;

/* What config.json says about the MoE layers. */
struct sy_checkpoint_model {
  const struct sy_family *family;
  sy_model_info info;
  int64_t first_sparse;
  int64_t sparse_step;
  const json_t *dense_layers; /* inside the config, or NULL */
};

/* Reads and range-checks the config; path is its file, for error texts. */
sy_status sy_checkpoint_model_read(const char *path, const json_t *config,
                                   struct sy_checkpoint_model *model_out);

/* 0 <= layer_idx < num_layers. */
bool sy_checkpoint_layer_is_dense(const struct sy_checkpoint_model *model, int32_t layer_idx);

/* "'mlp_only_layers' or 'decoder_sparse_step'": the keys that make layers dense. */
const char *sy_family_dense_keys(const struct sy_family *family, char *text, size_t text_bytes);

/* Writes the stem of a projection's names; a name that does not fit is cut, and then not found. */
void sy_family_tensor_name(const char *pattern, int32_t layer_idx, int32_t global_expert,
                           char *name, size_t name_bytes);

#endif
