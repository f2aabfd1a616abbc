#include "launch/layer_options.h"

#include "launch/models.h"

const struct option_choice layer_modes[] = {
    {"w4a4", SY_MODE_W4A4}, {"w4a16", SY_MODE_W4A16}, {"bf16", SY_MODE_BF16}, {NULL, 0}};

const struct option_choice layer_formats[] = {
    {"nvfp4", SY_FORMAT_NVFP4}, {"mxfp4", SY_FORMAT_MXFP4}, {NULL, 0}};

const struct option_choice layer_activations[] = {{"swiglu", SY_ACTIVATION_SWIGLU},
                                                  {"swiglu_clamped", SY_ACTIVATION_SWIGLU_CLAMPED},
                                                  {"gelu_tanh", SY_ACTIVATION_GELU_TANH},
                                                  {"relu2", SY_ACTIVATION_RELU2},
                                                  {NULL, 0}};

const struct option_choice yes_or_no[] = {{"no", 0}, {"yes", 1}, {NULL, 0}};

enum {
#define MODEL_INDEX(identifier, ...) MODEL_##identifier,
  MODELS(MODEL_INDEX)
#undef MODEL_INDEX
};

const struct option_choice layer_models[] = {
#define MODEL_NAME(identifier, name, ...) {name, MODEL_##identifier},
    MODELS(MODEL_NAME)
#undef MODEL_NAME
        {NULL, 0}};

static const struct layer_numbers model_numbers[] = {
#define MODEL_NUMBERS(identifier, name, ...) {__VA_ARGS__},
    MODELS(MODEL_NUMBERS)
#undef MODEL_NUMBERS
};

static int64_t given_or(int64_t value, int64_t otherwise) {
  return value == OPTION_NOT_GIVEN ? otherwise : value;
}

int layer_options_complete(struct session *session, struct layer_options *options) {
  const struct layer_numbers none = {0, 0, 0, 0, SY_ACTIVATION_SWIGLU, 0};
  const struct layer_numbers *model =
      options->model == OPTION_NOT_GIVEN ? &none : &model_numbers[options->model];
  struct layer_numbers *n = &options->numbers;
  n->hidden = given_or(n->hidden, model->hidden);
  n->intermediate = given_or(n->intermediate, model->intermediate);
  n->experts = given_or(n->experts, model->experts);
  n->top_k = given_or(n->top_k, model->top_k);
  n->activation = (int)given_or(n->activation, model->activation);
  n->bias = (int)given_or(n->bias, model->bias);
  if (n->hidden != 0 && n->intermediate != 0 && n->experts != 0 && n->top_k != 0) {
    return CLI_OK;
  }
  char names[200];
  return session_fail(
      session, CLI_USAGE, "the layer is incomplete, without%s%s%s%s; give these, or --model: %s",
      n->hidden == 0 ? " --hidden" : "", n->intermediate == 0 ? " --intermediate" : "",
      n->experts == 0 ? " --experts" : "", n->top_k == 0 ? " --top-k" : "",
      option_list_choices(layer_models, names, sizeof names));
}

static sy_shape shape_of(const struct layer_numbers *n) {
  sy_shape shape = SY_SHAPE_INIT;
  shape.hidden = n->hidden;
  shape.intermediate = n->intermediate;
  shape.num_experts = (int32_t)n->experts;
  shape.top_k = (int32_t)n->top_k;
  shape.activation = (sy_activation)n->activation;
  shape.has_bias = n->bias;
  return shape;
}

sy_shape layer_model_shape(int model) { return shape_of(&model_numbers[model]); }

sy_shape layer_options_shape(const struct layer_options *options) {
  sy_shape shape = shape_of(&options->numbers);
  shape.mode = (sy_mode)options->mode;
  shape.format = (sy_format)options->format;
  return shape;
}

const char *layer_options_model(const struct layer_options *options) {
  return options->model == OPTION_NOT_GIVEN ? NULL
                                            : option_choice_name(layer_models, options->model);
}
