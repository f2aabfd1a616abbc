/* The options that describe an MoE layer: a known model's, or numbers. */
#ifndef LAUNCH_LAYER_OPTIONS_H
#define LAUNCH_LAYER_OPTIONS_H

#include "launch/options.h"

#define OPTION_NOT_GIVEN (-1)

struct layer_numbers {
  int64_t hidden, intermediate, experts, top_k;
  int activation, bias;
};

/* As typed; complete afterwards. */
struct layer_options {
  int model; /* OPTION_NOT_GIVEN: numbers alone */
  struct layer_numbers numbers;
  int mode, format;
};

#define LAYER_OPTIONS_INIT                  \
  {                                         \
    .model = OPTION_NOT_GIVEN, .numbers = { \
      OPTION_NOT_GIVEN,                     \
      OPTION_NOT_GIVEN,                     \
      OPTION_NOT_GIVEN,                     \
      OPTION_NOT_GIVEN,                     \
      OPTION_NOT_GIVEN,                     \
      OPTION_NOT_GIVEN                      \
    }                                       \
  }

extern const struct option_choice layer_models[];
extern const struct option_choice layer_modes[];
extern const struct option_choice layer_formats[];
extern const struct option_choice layer_activations[];
extern const struct option_choice yes_or_no[];

/* NOLINTBEGIN(bugprone-macro-parentheses): types and names of members, which take none. */

/* Ten lines of a table of options: those of the struct layer_options `member` of `type`. */
#define LAYER_OPTIONS(type, member)                                                             \
  {.kind = OPTION_HEADING, .name = "The layer: a model, or numbers, which win over a model's"}, \
      {.kind = OPTION_CHOICE,                                                                   \
       .name = "model",                                                                         \
       .value = "NAME",                                                                         \
       .help = "a known model's layer",                                                         \
       .offset = offsetof(type, member.model),                                                  \
       .choices = layer_models},                                                                \
      LAYER_SIZE("hidden", "columns of a hidden state", offsetof(type, member.numbers.hidden)), \
      LAYER_SIZE("intermediate", "columns of an expert's intermediate",                         \
                 offsetof(type, member.numbers.intermediate)),                                  \
      LAYER_COUNT("experts", "experts of the layer, on all ranks together", 65534,              \
                  offsetof(type, member.numbers.experts)),                                      \
      LAYER_COUNT("top-k", "experts that a token is routed to", 1024,                           \
                  offsetof(type, member.numbers.top_k)),                                        \
      {.kind = OPTION_CHOICE,                                                                   \
       .name = "activation",                                                                    \
       .value = "NAME",                                                                         \
       .help = "between the two projections",                                                   \
       .offset = offsetof(type, member.numbers.activation),                                     \
       .choices = layer_activations},                                                           \
      {.kind = OPTION_CHOICE,                                                                   \
       .name = "bias",                                                                          \
       .value = "yes|no",                                                                       \
       .help = "whether every projection has a bias",                                           \
       .offset = offsetof(type, member.numbers.bias),                                           \
       .choices = yes_or_no},                                                                   \
      {.kind = OPTION_CHOICE,                                                                   \
       .name = "format",                                                                        \
       .value = "NAME",                                                                         \
       .help = "what FP4 means in w4a4 and w4a16",                                              \
       .offset = offsetof(type, member.format),                                                 \
       .choices = layer_formats},                                                               \
  {                                                                                             \
    .kind = OPTION_CHOICE, .name = "mode", .value = "NAME",                                     \
    .help = "formats of weights and activations", .offset = offsetof(type, member.mode),        \
    .choices = layer_modes                                                                      \
  }
/* NOLINTEND(bugprone-macro-parentheses) */
#define LAYER_SIZE(flag, text, at)                                                        \
  {                                                                                       \
    .kind = OPTION_INTEGER, .name = (flag), .value = "N", .help = (text), .offset = (at), \
    .min = 16, .max = INT64_C(1) << 20, .multiple = 16                                    \
  }
#define LAYER_COUNT(flag, text, most, at)                                                 \
  {                                                                                       \
    .kind = OPTION_INTEGER, .name = (flag), .value = "N", .help = (text), .offset = (at), \
    .min = 1, .max = (most)                                                               \
  }

/* Takes what was not given from the model; CLI_USAGE when something is still missing. */
int layer_options_complete(struct session *session, struct layer_options *options);

/* The layer of one of layer_models. */
sy_shape layer_model_shape(int model);

/* Of complete options. The model's name is NULL when numbers alone were given. */
sy_shape layer_options_shape(const struct layer_options *options);
const char *layer_options_model(const struct layer_options *options);

#endif
