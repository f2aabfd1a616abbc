#include "model.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bf16.h"

#define BF16_BYTES 2

/* Where tensors come from: those of one layer, or of the whole model where layer is -1. */
struct source {
  struct lm_team *team;
  const sy_checkpoint *checkpoint;
  struct progress *loading;
  int32_t layer;
};

static enum lm_exit fail_memory(struct lm_team *team, const char *what) {
  return lm_fail(team, LM_OTHER, "loading the model: out of memory for %s", what);
}

static void write_shape(const int64_t *shape, int32_t num_dims, char *text, size_t bytes) {
  size_t used = (size_t)snprintf(text, bytes, "[");
  for (int32_t i = 0; i < num_dims && used < bytes; ++i) {
    used += (size_t)snprintf(text + used, bytes - used, "%s%lld", i == 0 ? "" : ", ",
                             (long long)shape[i]);
  }
  if (used < bytes) {
    snprintf(text + used, bytes - used, "]");
  }
}

/* Reads a BF16 tensor of this shape; to be freed. */
static enum lm_exit read_tensor(const struct source *source, const char *name, const int64_t *shape,
                                int32_t num_dims, uint16_t **data_out) {
  char full[128];
  if (source->layer < 0) {
    snprintf(full, sizeof full, "%s.weight", name);
  } else {
    snprintf(full, sizeof full, "model.layers.%d.%s.weight", source->layer, name);
  }
  sy_tensor tensor = SY_TENSOR_INIT;
  sy_status status = sy_checkpoint_tensor(source->checkpoint, full, &tensor);
  if (status != SY_OK) {
    return lm_fail_status(source->team, status, LM_INPUT, "loading the model");
  }
  if (tensor.dtype != SY_TENSOR_BF16 || tensor.num_dims != num_dims ||
      memcmp(tensor.shape, shape, (size_t)num_dims * sizeof *shape) != 0) {
    char found[128], expected[64];
    write_shape(tensor.shape, tensor.num_dims, found, sizeof found);
    write_shape(shape, num_dims, expected, sizeof expected);
    return lm_fail(
        source->team, LM_INPUT, "loading the model: tensor %s is %s %s; expected BF16 %s", full,
        tensor.dtype == SY_TENSOR_BF16 ? "BF16" : "not BF16, but of shape", found, expected);
  }
  uint16_t *data = malloc(tensor.bytes);
  if (data == NULL) {
    return fail_memory(source->team, full);
  }
  status = sy_checkpoint_read(source->checkpoint, full, 0, data, tensor.bytes);
  if (status != SY_OK) {
    free(data);
    return lm_fail_status(source->team, status, LM_INPUT, "loading the model");
  }
  *data_out = data;
  return LM_OK;
}

static enum lm_exit load_linear(const struct source *source, const char *name, int32_t out,
                                int32_t in, struct lm_linear *linear) {
  const int64_t shape[2] = {out, in};
  uint16_t *data = NULL;
  const enum lm_exit code = read_tensor(source, name, shape, 2, &data);
  if (data == NULL) {
    return code;
  }
  const bool created = lm_linear_create(linear, data, out, in);
  free(data);
  if (!created) {
    return fail_memory(source->team, name);
  }
  progress_add(source->loading, (uint64_t)out * (uint64_t)in * BF16_BYTES);
  return LM_OK;
}

/* A tensor [rows, columns], or [columns] where rows == 1, as f32. */
static enum lm_exit load_rows(const struct source *source, const char *name, int32_t rows,
                              int32_t columns, float **values_out) {
  const int64_t shape[2] = {rows, columns};
  uint16_t *data = NULL;
  const enum lm_exit code = rows == 1 ? read_tensor(source, name, shape + 1, 1, &data)
                                      : read_tensor(source, name, shape, 2, &data);
  if (data == NULL) {
    return code;
  }
  const int64_t count = (int64_t)rows * columns;
  float *values = malloc((size_t)count * sizeof *values);
  for (int64_t i = 0; values != NULL && i < count; ++i) {
    values[i] = lm_bf16_to_f32(data[i]);
  }
  free(data);
  if (values == NULL) {
    return fail_memory(source->team, name);
  }
  *values_out = values;
  progress_add(source->loading, (uint64_t)count * BF16_BYTES);
  return LM_OK;
}

static enum lm_exit load_layer(const struct source *source, const struct lm_config *config,
                               struct lm_layer *layer) {
  const int32_t hidden = config->hidden, head = config->head_dim;
  const int32_t queries = config->num_heads * head, keys = config->num_kv_heads * head;
  const struct {
    const char *name;
    int32_t out, in;
    struct lm_linear *linear;
  } linears[] = {{"self_attn.q_proj", queries, hidden, &layer->query},
                 {"self_attn.k_proj", keys, hidden, &layer->key},
                 {"self_attn.v_proj", keys, hidden, &layer->value},
                 {"self_attn.o_proj", hidden, queries, &layer->output},
                 {"mlp.gate", config->num_experts, hidden, &layer->router}};
  const struct {
    const char *name;
    int32_t columns;
    float **values;
  } norms[] = {{"input_layernorm", hidden, &layer->attention_norm},
               {"post_attention_layernorm", hidden, &layer->experts_norm},
               {"self_attn.q_norm", head, &layer->query_norm},
               {"self_attn.k_norm", head, &layer->key_norm}};
  enum lm_exit code = LM_OK;
  for (size_t i = 0; i < sizeof linears / sizeof linears[0] && code == LM_OK; ++i) {
    code = load_linear(source, linears[i].name, linears[i].out, linears[i].in, linears[i].linear);
  }
  for (size_t i = 0; i < sizeof norms / sizeof norms[0] && code == LM_OK; ++i) {
    code = load_rows(source, norms[i].name, 1, norms[i].columns, norms[i].values);
  }
  return code;
}

static uint64_t expert_bytes(const struct lm_model *model, const struct lm_layer *layer) {
  return (uint64_t)sy_layer_num_local_experts(layer->experts) * model->config.expert_bytes;
}

static enum lm_exit load_experts(const struct source *source, struct lm_model *model) {
  struct lm_layer *layer = &model->layers[source->layer];
  const sy_status status =
      sy_layer_load_checkpoint(layer->experts, source->checkpoint, source->layer);
  if (status != SY_OK) {
    return lm_fail_status(source->team, status, LM_INPUT, "loading the experts");
  }
  progress_add(source->loading, expert_bytes(model, layer));
  return LM_OK;
}

/* Bytes that this rank will read: all dense weights and its own experts. */
static uint64_t bytes_to_load(const struct lm_model *model) {
  const struct lm_config *c = &model->config;
  const uint64_t hidden = (uint64_t)c->hidden, head = (uint64_t)c->head_dim;
  const uint64_t heads = 2 * (uint64_t)c->num_heads + 2 * (uint64_t)c->num_kv_heads;
  const uint64_t layer =
      hidden * heads * head + hidden * (uint64_t)c->num_experts + 2 * hidden + 2 * head;
  const uint64_t ends = hidden * LM_VOCABULARY * 2 + hidden;
  uint64_t bytes = ((uint64_t)c->num_layers * layer + ends) * BF16_BYTES;
  for (int32_t i = 0; i < c->num_layers; ++i) {
    bytes += expert_bytes(model, &model->layers[i]);
  }
  return bytes;
}

static enum lm_exit create_layers(struct lm_team *team, struct lm_model *model) {
  model->layers = calloc((uint32_t)model->config.num_layers, sizeof *model->layers);
  if (model->layers == NULL) {
    return fail_memory(team, "the layers");
  }
  for (int32_t i = 0; i < model->config.num_layers; ++i) {
    const sy_status status =
        sy_layer_create(model->group, &model->config.shape, &model->layers[i].experts);
    if (status != SY_OK) {
      return lm_fail_status(team, status, LM_INPUT, "making room for the experts");
    }
  }
  return LM_OK;
}

/* Angle of pair i at position p: p / theta^(2 i / head_dim). */
static enum lm_exit create_angles(struct lm_team *team, struct lm_model *model) {
  const int32_t half = model->config.head_dim / 2, positions = model->config.max_positions;
  const size_t count = (size_t)positions * (size_t)half;
  model->cosines = malloc(count * sizeof *model->cosines);
  model->sines = malloc(count * sizeof *model->sines);
  if (model->cosines == NULL || model->sines == NULL) {
    return fail_memory(team, "the angles of the rotary embedding");
  }
  for (int32_t i = 0; i < half; ++i) {
    const double frequency = pow(model->config.rope_theta, -(double)i / half);
    for (int32_t p = 0; p < positions; ++p) {
      model->cosines[(int64_t)p * half + i] = (float)cos(p * frequency);
      model->sines[(int64_t)p * half + i] = (float)sin(p * frequency);
    }
  }
  return LM_OK;
}

/* What is not of a layer. */
static enum lm_exit load_ends(const struct source *source, struct lm_model *model) {
  const struct lm_config *config = &model->config;
  const char *head = config->tie_word_embeddings ? "model.embed_tokens" : "lm_head";
  enum lm_exit code =
      load_rows(source, "model.embed_tokens", LM_VOCABULARY, config->hidden, &model->embedding);
  if (code == LM_OK) {
    code = load_linear(source, head, LM_VOCABULARY, config->hidden, &model->head);
  }
  if (code == LM_OK) {
    code = load_rows(source, "model.norm", 1, config->hidden, &model->final_norm);
  }
  return code;
}

/* Collective. */
static enum lm_exit load_tensors(struct source source, struct lm_model *model) {
  enum lm_exit code = lm_team_agree(source.team, load_ends(&source, model));
  for (int32_t i = 0; i < model->config.num_layers && code == LM_OK; ++i) {
    source.layer = i;
    code = load_layer(&source, &model->config, &model->layers[i]);
    if (code == LM_OK) {
      code = load_experts(&source, model);
    }
    code = lm_team_agree(source.team, code);
  }
  return code;
}

/* Nothing is sized by what config.json says before the files have been seen to agree with it. Layers
 * have experts of one size. */
static enum lm_exit check_layers(struct lm_team *team, const sy_checkpoint *checkpoint,
                                 struct lm_config *config) {
  for (int32_t i = 0; i < config->num_layers; ++i) {
    sy_layer_info info = SY_LAYER_INFO_INIT;
    const sy_status status = sy_checkpoint_check_layer(checkpoint, i, &info);
    if (status != SY_OK) {
      return lm_fail_status(team, status, LM_INPUT, "checking the model");
    }
    if (info.is_dense != 0) {
      return lm_fail(team, LM_INPUT,
                     "config.json: layer %d is dense; this program needs experts in every layer",
                     i);
    }
    config->expert_bytes = info.expert_bytes / (uint64_t)config->num_experts;
  }
  return LM_OK;
}

static enum lm_exit prepare(struct lm_team *team, const char *path, enum lm_quant quant,
                            struct lm_model *model, sy_checkpoint **checkpoint_out) {
  const sy_status status = sy_checkpoint_open(path, checkpoint_out);
  if (status != SY_OK) {
    return lm_fail_status(team, status, LM_INPUT, "opening the model");
  }
  enum lm_exit code = lm_config_read(team, *checkpoint_out, quant, &model->config);
  if (code == LM_OK) {
    code = check_layers(team, *checkpoint_out, &model->config);
  }
  if (code == LM_OK) {
    code = create_layers(team, model);
  }
  if (code == LM_OK) {
    code = create_angles(team, model);
  }
  return code;
}

enum lm_exit lm_model_load(struct lm_team *team, sy_group *group, const char *path,
                           enum lm_quant quant, struct lm_model *model) {
  *model = (struct lm_model){.threads = team->threads, .group = group};
  sy_checkpoint *checkpoint = NULL;
  enum lm_exit code = lm_team_agree(team, prepare(team, path, quant, model, &checkpoint));
  if (code == LM_OK) {
    progress_begin(&model->loading, "loading", team->rank == 0, bytes_to_load(model));
    code = load_tensors((struct source){team, checkpoint, &model->loading, -1}, model);
    progress_end(&model->loading);
  }
  sy_checkpoint_close(checkpoint);
  return code;
}

static void layer_destroy(struct lm_layer *layer) {
  free(layer->attention_norm);
  free(layer->experts_norm);
  free(layer->query_norm);
  free(layer->key_norm);
  lm_linear_destroy(&layer->query);
  lm_linear_destroy(&layer->key);
  lm_linear_destroy(&layer->value);
  lm_linear_destroy(&layer->output);
  lm_linear_destroy(&layer->router);
  sy_layer_destroy(layer->experts);
}

void lm_model_destroy(struct lm_model *model) {
  for (int32_t i = 0; model->layers != NULL && i < model->config.num_layers; ++i) {
    layer_destroy(&model->layers[i]);
  }
  free(model->layers);
  free(model->embedding);
  free(model->final_norm);
  free(model->cosines);
  free(model->sines);
  lm_linear_destroy(&model->head);
}
