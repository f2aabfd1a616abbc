#include "config.h"

#include <math.h>
#include <string.h>

/* A key of config.json and the values that it may have. */
struct key {
  const char *name;
  double fallback; /* where it is missing or null; NAN: it must be there */
  double min, max;
};

static enum lm_exit read_key(struct lm_team *team, const sy_checkpoint *checkpoint, struct key key,
                             double *value_out) {
  double value = key.fallback;
  const sy_status status = sy_checkpoint_number(checkpoint, key.name, &value);
  if (status != SY_OK && (status != SY_ERR_FORMAT || isnan(key.fallback))) {
    return lm_fail_status(team, status, LM_INPUT, "reading the model's sizes");
  }
  if (value >= key.min && value <= key.max) {
    *value_out = value;
    return LM_OK;
  }
  if (key.min == key.max) {
    return lm_fail(team, LM_INPUT, "config.json: %s is %g; this program needs %g", key.name, value,
                   key.min);
  }
  return lm_fail(team, LM_INPUT, "config.json: %s is %g; the allowed range is %g to %g", key.name,
                 value, key.min, key.max);
}

static enum lm_exit read_whole(struct lm_team *team, const sy_checkpoint *checkpoint,
                               struct key key, int32_t *value_out) {
  double value = 0.0;
  const enum lm_exit code = read_key(team, checkpoint, key, &value);
  if (code != LM_OK) {
    return code;
  }
  if (value != floor(value)) {
    return lm_fail(team, LM_INPUT, "config.json: %s is %g; it must be a whole number", key.name,
                   value);
  }
  *value_out = (int32_t)value;
  return LM_OK;
}

/* Tokens are bytes; and the architecture's variants that this program does not have. */
static enum lm_exit refuse_variants(struct lm_team *team, const sy_checkpoint *checkpoint) {
  static const struct key keys[] = {{"vocab_size", NAN, LM_VOCABULARY, LM_VOCABULARY},
                                    {"attention_bias", 0, 0, 0},
                                    {"use_sliding_window", 0, 0, 0},
                                    {"decoder_sparse_step", 1, 1, 1}};
  enum lm_exit code = LM_OK;
  for (size_t i = 0; i < sizeof keys / sizeof keys[0] && code == LM_OK; ++i) {
    double value;
    code = read_key(team, checkpoint, keys[i], &value);
  }
  return code;
}

static enum lm_exit read_heads(struct lm_team *team, const sy_checkpoint *checkpoint,
                               struct lm_config *config) {
  enum lm_exit code = read_whole(
      team, checkpoint, (struct key){"num_attention_heads", NAN, 1, 1024}, &config->num_heads);
  if (code == LM_OK) {
    code =
        read_whole(team, checkpoint, (struct key){"num_key_value_heads", NAN, 1, config->num_heads},
                   &config->num_kv_heads);
  }
  if (code == LM_OK) {
    const double usual = floor((double)config->hidden / config->num_heads);
    code = read_whole(team, checkpoint, (struct key){"head_dim", usual, 2, LM_MAX_HEAD_DIM},
                      &config->head_dim);
  }
  if (code != LM_OK) {
    return code;
  }
  if (config->num_heads % config->num_kv_heads != 0) {
    return lm_fail(team, LM_INPUT,
                   "config.json: num_key_value_heads is %d; it must divide num_attention_heads, %d",
                   config->num_kv_heads, config->num_heads);
  }
  if (config->head_dim % 2 != 0) {
    return lm_fail(team, LM_INPUT,
                   "config.json: head_dim is %d; rotary embedding needs an even number",
                   config->head_dim);
  }
  return LM_OK;
}

static enum lm_exit read_rest(struct lm_team *team, const sy_checkpoint *checkpoint,
                              struct lm_config *config) {
  double eps = 0, norm = 0, tie = 0;
  const struct {
    struct key key;
    double *out;
  } reals[] = {{{"rms_norm_eps", NAN, 0, 1}, &eps},
               {{"rope_theta", NAN, 1, 1e12}, &config->rope_theta},
               {{"norm_topk_prob", 0, 0, 1}, &norm},
               {{"tie_word_embeddings", 0, 0, 1}, &tie}};
  enum lm_exit code = read_whole(team, checkpoint,
                                 (struct key){"max_position_embeddings", NAN, 1, LM_MAX_POSITIONS},
                                 &config->max_positions);
  for (size_t i = 0; i < sizeof reals / sizeof reals[0] && code == LM_OK; ++i) {
    code = read_key(team, checkpoint, reals[i].key, reals[i].out);
  }
  config->rms_norm_eps = (float)eps;
  config->norm_topk_prob = norm != 0;
  config->tie_word_embeddings = tie != 0;
  return code;
}

enum lm_exit lm_config_read(struct lm_team *team, const sy_checkpoint *checkpoint,
                            enum lm_quant quant, struct lm_config *config_out) {
  static const struct {
    sy_mode mode;
    sy_format format;
  } quants[] = {[LM_QUANT_W4A4] = {SY_MODE_W4A4, SY_FORMAT_NVFP4},
                [LM_QUANT_W4A16] = {SY_MODE_W4A16, SY_FORMAT_NVFP4},
                [LM_QUANT_BF16] = {SY_MODE_BF16, SY_FORMAT_NVFP4},
                [LM_QUANT_W4A4_MXFP4] = {SY_MODE_W4A4, SY_FORMAT_MXFP4},
                [LM_QUANT_W4A16_MXFP4] = {SY_MODE_W4A16, SY_FORMAT_MXFP4}};
  sy_model_info info = SY_MODEL_INFO_INIT;
  const sy_status status = sy_checkpoint_model(checkpoint, &info);
  if (status != SY_OK) {
    return lm_fail_status(team, status, LM_INPUT, "reading the model's sizes");
  }
  if (strcmp(info.family, "qwen3_moe") != 0) {
    return lm_fail(team, LM_INPUT, "config.json: the model is a '%s'; this program needs qwen3_moe",
                   info.family);
  }
  struct lm_config config = {.hidden = (int32_t)info.shape.hidden,
                             .num_layers = info.num_layers,
                             .num_heads = 1,
                             .num_kv_heads = 1,
                             .num_experts = info.shape.num_experts,
                             .top_k = info.shape.top_k,
                             .shape = info.shape};
  config.shape.mode = quants[quant].mode;
  config.shape.format = quants[quant].format;
  enum lm_exit code = refuse_variants(team, checkpoint);
  if (code == LM_OK) {
    code = read_heads(team, checkpoint, &config);
  }
  if (code == LM_OK) {
    code = read_rest(team, checkpoint, &config);
  }
  if (code == LM_OK) {
    *config_out = config;
  }
  return code;
}
