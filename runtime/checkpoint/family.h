/* Model families: how config.json and the tensors of each are named. A family is one table in one
 * file, its declaration below, and its place in the list of family.c. */
#ifndef SY_RUNTIME_CHECKPOINT_FAMILY_H
#define SY_RUNTIME_CHECKPOINT_FAMILY_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "runtime/switchyard_checkpoint.h"

enum sy_projection { SY_GATE = 0, SY_UP = 1, SY_DOWN = 2, SY_NUM_PROJECTIONS = 3 };

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

  /* A layer is dense when it is listed, or when step does not divide its number counted from 1.
   * Both keys may be left out of a config: no list, step 1. */
  const char *dense_layers_key;
  const char *sparse_step_key;

  /* Names of an expert's tensors, with {layer} and {expert} for the numbers. */
  const char *weights[SY_NUM_PROJECTIONS];
};

extern const struct sy_family sy_family_qwen3_moe;

/* What config.json says about the MoE layers. */
struct sy_checkpoint_model {
  const struct sy_family *family;
  sy_model_info info;
  int64_t sparse_step;
  const json_t *dense_layers; /* inside the config, or NULL */
};

/* Reads and range-checks the config; path is its file, for error texts. */
sy_status sy_checkpoint_model_read(const char *path, const json_t *config,
                                   struct sy_checkpoint_model *model_out);

/* 0 <= layer_idx < num_layers. */
bool sy_checkpoint_layer_is_dense(const struct sy_checkpoint_model *model, int32_t layer_idx);

/* Writes the name of an expert's tensor; a name that does not fit is cut, and then not found. */
void sy_family_tensor_name(const char *pattern, int32_t layer_idx, int32_t global_expert,
                           char *name, size_t name_bytes);

#endif
