#include "runtime/checkpoint/family.h"

#include <float.h>
#include <stdio.h>
#include <string.h>

#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/json.h"
#include "runtime/status.h"

static const struct sy_family *const families[] = {&sy_family_deepseek_v3, &sy_family_gpt_oss,
                                                   &sy_family_mixtral, &sy_family_qwen3_moe};
#define NUM_FAMILIES (sizeof families / sizeof families[0])

/* The limits of sy_shape, and of what a model may reasonably have. */
#define MAX_SIZE ((int64_t)1 << 20)
#define SIZE_MULTIPLE 16
#define MAX_EXPERTS 65534
#define MAX_TOP_K 1024
#define MAX_LAYERS 4096

/* NULL, and the sentence of a SY_ERR_UNSUPPORTED, for a family that is not in the list. */
static const struct sy_family *find_family(const char *where, const char *name,
                                           const json_t *value) {
  char known[256] = "";
  for (size_t i = 0; i < NUM_FAMILIES; ++i) {
    if (strcmp(name, families[i]->name) == 0) {
      return families[i];
    }
    const size_t used = strlen(known);
    snprintf(known + used, sizeof known - used, "%s%s", i == 0 ? "" : ", ", families[i]->name);
  }
  char shown[SY_JSON_SHOWN_BYTES];
  sy_fail(SY_ERR_UNSUPPORTED, "%s: 'model_type' is %s; families known: %s", where,
          sy_json_show(value, shown), known);
  return NULL;
}

static sy_status read_size(const char *where, const json_t *config, const char *key,
                           int64_t *size_out) {
  int64_t size = 0;
  SY_TRY(sy_json_int(where, config, key, SIZE_MULTIPLE, MAX_SIZE, &size));
  if (size % SIZE_MULTIPLE != 0) {
    return sy_fail(SY_ERR_FORMAT, "%s: '%s' is %lld; expected a multiple of %d", where, key,
                   (long long)size, SIZE_MULTIPLE);
  }
  *size_out = size;
  return SY_OK;
}

static sy_status read_count(const char *where, const json_t *config, const char *key, int32_t max,
                            int32_t *count_out) {
  int64_t count = 0;
  SY_TRY(sy_json_int(where, config, key, 1, max, &count));
  *count_out = (int32_t)count;
  return SY_OK;
}

static sy_status read_activation(const char *where, const json_t *config,
                                 struct sy_checkpoint_model *model) {
  const struct sy_family *family = model->family;
  const char *activation = NULL;
  SY_TRY(sy_json_string(where, config, family->activation_key, &activation));
  if (strcmp(activation, family->activation_value) != 0) {
    char shown[SY_JSON_SHOWN_BYTES];
    return sy_fail(SY_ERR_UNSUPPORTED, "%s: '%s' is %s; %s is known with \"%s\" only", where,
                   family->activation_key,
                   sy_json_show(json_object_get(config, family->activation_key), shown),
                   family->name, family->activation_value);
  }
  model->info.shape.activation = family->activation;
  model->info.shape.has_bias = family->bias != NULL ? 1 : 0;
  if (json_object_get(config, family->limit_key) != NULL) {
    double limit = 0.0;
    SY_TRY(sy_json_number(where, config, family->limit_key, &limit));
    if (!(limit > 0.0 && limit <= FLT_MAX)) {
      return sy_fail(SY_ERR_FORMAT, "%s: '%s' is %g; expected a finite number above 0", where,
                     family->limit_key, limit);
    }
    model->info.shape.swiglu_limit = (float)limit;
  }
  return SY_OK;
}

/* Which layers have experts at all. */
static sy_status read_sparsity(const char *where, const json_t *config,
                               struct sy_checkpoint_model *model) {
  const struct sy_family *family = model->family;
  model->sparse_step = 1;
  if (json_object_get(config, family->sparse_step_key) != NULL) {
    SY_TRY(sy_json_int(where, config, family->sparse_step_key, 1, MAX_LAYERS, &model->sparse_step));
  }
  if (json_object_get(config, family->first_sparse_key) != NULL) {
    SY_TRY(
        sy_json_int(where, config, family->first_sparse_key, 0, MAX_LAYERS, &model->first_sparse));
  }
  if (json_object_get(config, family->dense_layers_key) == NULL) {
    return SY_OK;
  }
  SY_TRY(sy_json_array(where, config, family->dense_layers_key, &model->dense_layers));
  if (json_array_size(model->dense_layers) > (size_t)model->info.num_layers) {
    return sy_fail(SY_ERR_FORMAT, "%s: '%s' has %zu numbers; expected at most one for each of %d",
                   where, family->dense_layers_key, json_array_size(model->dense_layers),
                   model->info.num_layers);
  }
  for (size_t i = 0; i < json_array_size(model->dense_layers); ++i) {
    int64_t layer = 0;
    SY_TRY(sy_json_int_at(where, model->dense_layers, family->dense_layers_key, i, 0,
                          model->info.num_layers - 1, &layer));
  }
  return SY_OK;
}

sy_status sy_checkpoint_model_read(const char *path, const json_t *config,
                                   struct sy_checkpoint_model *model_out) {
  const char *const where = sy_path_shown(path);
  const char *name = NULL;
  SY_TRY(sy_json_string(where, config, "model_type", &name));
  const struct sy_family *family = find_family(where, name, json_object_get(config, "model_type"));
  if (family == NULL) {
    return SY_ERR_UNSUPPORTED;
  }
  struct sy_checkpoint_model model = {.family = family, .info = SY_MODEL_INFO_INIT};
  model.info.family = family->name;
  model.info.shape = (sy_shape)SY_SHAPE_INIT;
  model.info.shape.mode = SY_MODE_BF16;
  sy_shape *shape = &model.info.shape;
  SY_TRY(read_count(where, config, family->layers_key, MAX_LAYERS, &model.info.num_layers));
  SY_TRY(read_size(where, config, family->hidden_key, &shape->hidden));
  SY_TRY(read_size(where, config, family->intermediate_key, &shape->intermediate));
  SY_TRY(read_count(where, config, family->experts_key, MAX_EXPERTS, &shape->num_experts));
  SY_TRY(read_count(where, config, family->top_k_key, MAX_TOP_K, &shape->top_k));
  if (shape->top_k > shape->num_experts) {
    return sy_fail(SY_ERR_FORMAT, "%s: '%s' is %d; expected at most the %d of '%s'", where,
                   family->top_k_key, shape->top_k, shape->num_experts, family->experts_key);
  }
  SY_TRY(read_activation(where, config, &model));
  SY_TRY(read_sparsity(where, config, &model));
  *model_out = model;
  return SY_OK;
}

bool sy_checkpoint_layer_is_dense(const struct sy_checkpoint_model *model, int32_t layer_idx) {
  bool dense = layer_idx < model->first_sparse ||
               (layer_idx + model->family->sparse_offset) % model->sparse_step != 0;
  for (size_t i = 0; i < json_array_size(model->dense_layers); ++i) {
    dense |= json_integer_value(json_array_get(model->dense_layers, i)) == layer_idx;
  }
  return dense;
}

const char *sy_family_dense_keys(const struct sy_family *family, char *text, size_t text_bytes) {
  const char *const keys[] = {family->dense_layers_key, family->first_sparse_key,
                              family->sparse_step_key};
  size_t used = 0;
  text[0] = '\0';
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; ++i) {
    if (keys[i] != NULL && used < text_bytes) {
      used += (size_t)snprintf(text + used, text_bytes - used, "%s'%s'", used == 0 ? "" : " or ",
                               keys[i]);
    }
  }
  return text;
}

void sy_family_tensor_name(const char *pattern, int32_t layer_idx, int32_t global_expert,
                           char *name, size_t name_bytes) {
  static const char layer_mark[] = "{layer}";
  static const char expert_mark[] = "{expert}";
  size_t used = 0;
  while (*pattern != '\0' && used + 1 < name_bytes) {
    const bool is_layer = strncmp(pattern, layer_mark, sizeof layer_mark - 1) == 0;
    const bool is_expert = strncmp(pattern, expert_mark, sizeof expert_mark - 1) == 0;
    if (is_layer || is_expert) {
      snprintf(name + used, name_bytes - used, "%d", is_layer ? layer_idx : global_expert);
      used += strlen(name + used);
      pattern += is_layer ? sizeof layer_mark - 1 : sizeof expert_mark - 1;
    } else {
      name[used++] = *pattern++;
    }
  }
  name[used] = '\0';
}
