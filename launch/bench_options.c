#include "launch/bench.h"

const struct option_choice bench_numerics[] = {
    {"invariant", SY_NUMERICS_INVARIANT}, {"fastest", SY_NUMERICS_FASTEST}, {NULL, 0}};

/* The options as typed. */
struct flags {
  struct layer_options layer;
  int numerics;
  struct value_list tokens;
  int64_t threads, rounds;
  const char *checkpoint;
  const char *plot;
  bool json;
};

#define AT(field) .offset = offsetof(struct flags, field)

static const struct option_spec specs[] = {
    LAYER_OPTIONS(struct flags, layer),
    {.kind = OPTION_CHOICE,
     .name = "numerics",
     .value = "NAME",
     .help = "the experts' arithmetic",
     AT(numerics),
     .choices = bench_numerics},
    {.kind = OPTION_HEADING, .name = "The measurement"},
    {.kind = OPTION_INTEGERS,
     .name = "tokens",
     .value = "LIST",
     .help = "tokens of a call; a range doubles and includes its end",
     AT(tokens),
     .min = 1,
     .max = 65536},
    {.kind = OPTION_INTEGER,
     .name = "threads",
     .value = "N",
     .help = "CPU threads; 0 takes as many as the library would",
     AT(threads),
     .min = 0,
     .max = 4096},
    {.kind = OPTION_INTEGER,
     .name = "rounds",
     .value = "N",
     .help = "how often everything is measured in turn",
     AT(rounds),
     .min = 1,
     .max = 100000},
    {.kind = OPTION_HEADING, .name = "Output"},
    {.kind = OPTION_SWITCH, .name = "json", .help = "print a JSON object a line", AT(json)},
    {.kind = OPTION_TEXT,
     .name = "plot",
     .value = "FILE",
     .help = "write bandwidth and rate over tokens, with the roofline, as an SVG",
     AT(plot)},
};

/* Load has neither tokens nor a plot over them. */
static const struct option_spec load_specs[] = {
    LAYER_OPTIONS(struct flags, layer),
    {.kind = OPTION_TEXT,
     .name = "checkpoint",
     .value = "DIR",
     .help = "load the experts of all its layers, instead of weights of chance",
     AT(checkpoint)},
    {.kind = OPTION_HEADING, .name = "The measurement"},
    {.kind = OPTION_INTEGER,
     .name = "threads",
     .value = "N",
     .help = "CPU threads; 0 takes as many as the library would",
     AT(threads),
     .min = 0,
     .max = 4096},
    {.kind = OPTION_INTEGER,
     .name = "rounds",
     .value = "N",
     .help = "experts to load (40), or how often the checkpoint is loaded (3)",
     AT(rounds),
     .min = 1,
     .max = 100000},
    {.kind = OPTION_HEADING, .name = "Output"},
    {.kind = OPTION_SWITCH, .name = "json", .help = "print a JSON object a line", AT(json)},
};

#define LIMITS_TEXT                                                                              \
  "Every call is preceded by a measurement of the read bandwidth that also empties the caches, " \
  "so that weights come from memory. A few values are compared with the scalar specification: "  \
  "'wrong' must be 0. "

static const struct option_page pages[] = {
    [BENCH_EXPERTS] =
        {.about = "Measures the experts stage of one layer on this CPU against the limits that it "
                  "measures beside it. " LIMITS_TEXT,
         .examples = "  switchyard bench experts --model qwen3-30b\n"
                     "  switchyard bench experts --model gpt-oss-20b --tokens 1..512 --plot "
                     "gpt-oss.svg\n"
                     "  switchyard bench experts --model mixtral --mode w4a16 --numerics fastest "
                     "--json\n",
         .specs = specs,
         .num_specs = sizeof specs / sizeof specs[0]},
    [BENCH_LAYER] =
        {.about = "Measures a whole forward of one layer in one process, and how much of it is not "
                  "the experts stage. " LIMITS_TEXT,
         .examples = "  switchyard bench layer --model qwen3-30b --tokens 1\n",
         .specs = specs,
         .num_specs = sizeof specs / sizeof specs[0]},
    [BENCH_LOAD] =
        {.about = "Measures how fast BF16 weights are quantised and prepacked, against the rate at "
                  "which memory is copied. Sources are not in the caches. 'wrong' must be 0. With "
                  "--checkpoint: how fast its experts are read, quantised and prepacked, also "
                  "against plain reading of its files, which are in the page cache.",
         .examples = "  switchyard bench load --model qwen3-30b\n"
                     "  switchyard bench load --checkpoint examples/tiny-moe --mode w4a16\n",
         .specs = load_specs,
         .num_specs = sizeof load_specs / sizeof load_specs[0]},
};

static const char *const names[] = {
    [BENCH_EXPERTS] = "experts", [BENCH_LAYER] = "layer", [BENCH_LOAD] = "load"};

/* A checkpoint tells the layer's sizes by itself. */
static int complete(struct session *session, struct flags *flags) {
  if (flags->rounds == 0) {
    flags->rounds = flags->checkpoint != NULL ? 3 : 40;
  }
  if (flags->checkpoint == NULL) {
    return layer_options_complete(session, &flags->layer);
  }
  const struct layer_options none = LAYER_OPTIONS_INIT;
  const struct layer_numbers *n = &flags->layer.numbers;
  const bool given = flags->layer.model != none.model || n->hidden != none.numbers.hidden ||
                     n->intermediate != none.numbers.intermediate ||
                     n->experts != none.numbers.experts || n->top_k != none.numbers.top_k ||
                     n->activation != none.numbers.activation || n->bias != none.numbers.bias;
  return given ? session_fail(session, CLI_USAGE,
                              "--checkpoint tells the layer's sizes; beside it only --mode and "
                              "--format are allowed")
               : CLI_OK;
}

int bench_options_parse(struct session *session, enum bench_kind kind, int argc, char **argv,
                        struct bench_request *request_out) {
  struct flags flags = {.layer = LAYER_OPTIONS_INIT,
                        .tokens = {.count = 5, .values = {1, 4, 16, 64, 512}},
                        .rounds = kind == BENCH_LOAD ? 0 : 10};
  int code = options_parse(session, &pages[kind], argc, argv, &flags);
  if (code == CLI_OK) {
    code = complete(session, &flags);
  }
  if (code == CLI_OK) {
    *request_out = (struct bench_request){.kind = kind,
                                          .name = names[kind],
                                          .model = layer_options_model(&flags.layer),
                                          .checkpoint = flags.checkpoint,
                                          .shape = layer_options_shape(&flags.layer),
                                          .numerics = (sy_numerics)flags.numerics,
                                          .tokens = flags.tokens,
                                          .num_threads = flags.threads,
                                          .rounds = flags.rounds,
                                          .plot = flags.plot,
                                          .json = flags.json};
    if (kind == BENCH_LOAD) {
      request_out->tokens.count = 1;
    }
  }
  return code;
}
