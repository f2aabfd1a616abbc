#include "options.h"

#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "launch/link_file.h"

static const char *const help[] = {
    "Usage: lm generate --model DIR [--prompt TEXT ...] [OPTION ...]\n"
    "       lm score --model DIR --text FILE [OPTION ...]\n"
    "\n"
    "A Qwen3-MoE language model of bytes whose expert layers run on Switchyard. Started by "
    "mpirun,\n"
    "each rank serves sequences of its own and owns a share of the experts.\n"
    "\n"
    "generate: continues each prompt; prompts are dealt to the ranks in turn\n"
    "  --prompt TEXT ...    one or more prompts; may be repeated (default: one, \"In the \")\n"
    "  --max-tokens N       bytes to generate for each prompt, 1 to 1048576 (default: 200, or as\n"
    "                       many as the model has positions for)\n"
    "  --temperature X      0 to 100; 0 takes the likeliest byte (default: 0)\n"
    "  --top-p X            above 0, to 1: draw from the likeliest bytes that together have this\n"
    "                       probability; needs --temperature (default: 1)\n"
    "  --seed N             of the draws: same seed, same text; with per_slot on any number of\n"
    "                       ranks (default: 0)\n",
    "\n"
    "score: bits per byte of a text, in windows of 256 predictions that each start afresh\n"
    "  --text FILE          the text\n"
    "  --max-windows N      only the first N windows, 1 to 2147483647 (default: all)\n"
    "\n"
    "both:\n"
    "  --model DIR          checkpoint: config.json and safetensors\n"
    "  --quant MODE         the experts' weights and activations: w4a4, w4a16 (NVFP4), bf16,\n"
    "                       w4a4-mxfp4 or w4a16-mxfp4 (default: w4a4); experts that are FP4 in\n"
    "                       the checkpoint want a mode of their own format\n"
    "  --combine HOW        per_slot: a row returns for each expert of a token, and any number of\n"
    "                       ranks gives the same bits; per_rank: one for each rank, with a sum\n"
    "                       (default: per_slot)\n"
    "  --return TYPE        bf16 or f32: the rows that return (default: bf16 with per_slot; f32 "
    "with\n"
    "                       per_rank, whose rounding depends on the number of ranks)\n"
    "  --strategy HOW       auto, exact, fixed or gather: the exchange between ranks; never "
    "changes\n"
    "                       a result (default: auto)\n"
    "  --link FILE          figures of the links between ranks, from which auto chooses: what\n"
    "                       'switchyard doctor --write-link FILE' measured\n"
    "  --wave-tokens N      tokens of a rank that travel together, 1 to 2147483647\n"
    "                       (default: from the plan's memory budget)\n"
    "  --chunk-rows N       received rows that are computed together, 1 to 2147483647\n"
    "                       (default: from the plan's memory budget)\n"
    "  --device WHICH       cpu, cuda or auto: what the experts run on; auto is cuda where every\n"
    "                       rank has a GPU for itself (default: auto)\n"
    "  --threads N          CPU threads of a rank, 1 to 1024 (default: OMP_NUM_THREADS, or its\n"
    "                       share of the cores)\n"
    "  --timeout SECONDS    how long to wait for another rank, 1 to 86400 (default: 30)\n"
    "  --json               one JSON object on standard output, in place of text and table\n"
    "  --help, --version\n",
    "\n"
    "Text goes to standard output; progress and errors to standard error, and the table of each\n"
    "rank's work too when generating. In JSON, byte b of a prompt or text is character U+00b.\n"
    "\n"
    "Examples:\n"
    "  lm generate --model examples/tiny-moe --prompt 'And the LORD said unto '\n"
    "  mpirun -n 4 lm generate --model examples/tiny-moe --prompt 'In the ' 'And God ' \\\n"
    "      --temperature 0.7 --top-p 0.95 --seed 7\n"
    "  mpirun -n 4 lm score --model examples/tiny-moe --text examples/tiny-moe/sample.txt --json\n"
    "\n"
    "Exit codes: 0 done; 1 out of memory, or output cannot be written; 2 wrong flag, value or\n"
    "combination; 3 bad input file; 4 another rank, or the exchange, failed.\n"};

struct choice {
  const char *name;
  int value;
};

static const struct choice quants[] = {{"w4a4", LM_QUANT_W4A4},
                                       {"w4a16", LM_QUANT_W4A16},
                                       {"bf16", LM_QUANT_BF16},
                                       {"w4a4-mxfp4", LM_QUANT_W4A4_MXFP4},
                                       {"w4a16-mxfp4", LM_QUANT_W4A16_MXFP4},
                                       {NULL, 0}};
static const struct choice combines[] = {
    {"per_rank", SY_COMBINE_PER_RANK}, {"per_slot", SY_COMBINE_PER_SLOT}, {NULL, 0}};
static const struct choice returns[] = {{"bf16", SY_DTYPE_BF16}, {"f32", SY_DTYPE_F32}, {NULL, 0}};
static const struct choice devices[] = {
    {"auto", LM_DEVICE_AUTO}, {"cpu", LM_DEVICE_CPU}, {"cuda", LM_DEVICE_CUDA}, {NULL, 0}};
static const struct choice strategies[] = {{"auto", SY_STRATEGY_AUTO},
                                           {"exact", SY_STRATEGY_EXACT},
                                           {"fixed", SY_STRATEGY_FIXED},
                                           {"gather", SY_STRATEGY_GATHER},
                                           {NULL, 0}};

enum flag {
  FLAG_MODEL = 256,
  FLAG_PROMPT,
  FLAG_MAX_TOKENS,
  FLAG_TEMPERATURE,
  FLAG_TOP_P,
  FLAG_SEED,
  FLAG_TEXT,
  FLAG_MAX_WINDOWS,
  FLAG_QUANT,
  FLAG_COMBINE,
  FLAG_RETURN,
  FLAG_STRATEGY,
  FLAG_DEVICE,
  FLAG_LINK,
  FLAG_WAVE_TOKENS,
  FLAG_CHUNK_ROWS,
  FLAG_THREADS,
  FLAG_TIMEOUT,
  FLAG_JSON,
  FLAG_HELP,
  FLAG_VERSION
};

static const struct option long_options[] = {
    {"model", required_argument, NULL, FLAG_MODEL},
    {"prompt", required_argument, NULL, FLAG_PROMPT},
    {"max-tokens", required_argument, NULL, FLAG_MAX_TOKENS},
    {"temperature", required_argument, NULL, FLAG_TEMPERATURE},
    {"top-p", required_argument, NULL, FLAG_TOP_P},
    {"seed", required_argument, NULL, FLAG_SEED},
    {"text", required_argument, NULL, FLAG_TEXT},
    {"max-windows", required_argument, NULL, FLAG_MAX_WINDOWS},
    {"quant", required_argument, NULL, FLAG_QUANT},
    {"combine", required_argument, NULL, FLAG_COMBINE},
    {"return", required_argument, NULL, FLAG_RETURN},
    {"strategy", required_argument, NULL, FLAG_STRATEGY},
    {"device", required_argument, NULL, FLAG_DEVICE},
    {"link", required_argument, NULL, FLAG_LINK},
    {"wave-tokens", required_argument, NULL, FLAG_WAVE_TOKENS},
    {"chunk-rows", required_argument, NULL, FLAG_CHUNK_ROWS},
    {"threads", required_argument, NULL, FLAG_THREADS},
    {"timeout", required_argument, NULL, FLAG_TIMEOUT},
    {"json", no_argument, NULL, FLAG_JSON},
    {"help", no_argument, NULL, FLAG_HELP},
    {"version", no_argument, NULL, FLAG_VERSION},
    {NULL, 0, NULL, 0}};

static const char *choice_name(const struct choice *choices, int value) {
  while (choices->name != NULL && choices->value != value) {
    ++choices;
  }
  return choices->name;
}

const char *lm_quant_name(enum lm_quant quant) { return choice_name(quants, (int)quant); }
const char *lm_combine_name(sy_combine combine) { return choice_name(combines, (int)combine); }
const char *lm_return_name(sy_dtype dtype) { return choice_name(returns, (int)dtype); }
const char *lm_strategy_name(sy_strategy strategy) {
  return choice_name(strategies, (int)strategy);
}

static const char *flag_name(int flag) {
  for (const struct option *o = long_options; o->name != NULL; ++o) {
    if (o->val == flag) {
      return o->name;
    }
  }
  return NULL;
}

static enum lm_exit parse_choice(struct lm_team *team, int flag, const char *text,
                                 const struct choice *choices, int *value_out) {
  char names[128] = "";
  size_t used = 0;
  for (const struct choice *c = choices; c->name != NULL; ++c) {
    if (strcmp(c->name, text) == 0) {
      *value_out = c->value;
      return LM_OK;
    }
    used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", c == choices ? "" : ", ",
                             c->name);
  }
  return lm_fail(team, LM_USAGE, "--%s: '%s' is not one of %s", flag_name(flag), text, names);
}

static enum lm_exit parse_whole(struct lm_team *team, int flag, const char *text, uint64_t min,
                                uint64_t max, uint64_t *value_out) {
  char *end;
  errno = 0;
  const unsigned long long value = strtoull(text, &end, 10);
  if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < min || value > max) {
    return lm_fail(team, LM_USAGE, "--%s: '%s' is not a whole number from %llu to %llu",
                   flag_name(flag), text, (unsigned long long)min, (unsigned long long)max);
  }
  *value_out = value;
  return LM_OK;
}

/* A number from 0 to max; 0 itself only if zero is set. */
static enum lm_exit parse_real(struct lm_team *team, int flag, const char *text, bool zero,
                               double max, double *value_out) {
  char *end;
  const double value = strtod(text, &end);
  const bool low = zero ? !(value >= 0.0) : !(value > 0.0);
  if (end == text || *end != '\0' || low || !(value <= max)) {
    return lm_fail(team, LM_USAGE, "--%s: '%s' is not a number %s %g", flag_name(flag), text,
                   zero ? "from 0 to" : "above 0, up to", max);
  }
  *value_out = value;
  return LM_OK;
}

/* The options that are whole numbers. */
static enum lm_exit take_whole(struct lm_team *team, struct lm_options *options, int flag,
                               const char *text) {
  const struct {
    int flag;
    uint64_t min, max;
  } ranges[] = {{FLAG_MAX_TOKENS, 1, LM_MAX_TOKENS_LIMIT},
                {FLAG_SEED, 0, UINT64_MAX},
                {FLAG_MAX_WINDOWS, 1, INT32_MAX},
                {FLAG_WAVE_TOKENS, 1, INT32_MAX},
                {FLAG_CHUNK_ROWS, 1, INT32_MAX},
                {FLAG_THREADS, 1, 1024},
                {FLAG_TIMEOUT, 1, 86400}};
  size_t i = 0;
  while (ranges[i].flag != flag) {
    ++i;
  }
  uint64_t value = 0;
  const enum lm_exit code = parse_whole(team, flag, text, ranges[i].min, ranges[i].max, &value);
  switch (flag) {
  case FLAG_MAX_TOKENS:
    options->max_tokens = (int64_t)value;
    break;
  case FLAG_SEED:
    options->seed = value;
    break;
  case FLAG_MAX_WINDOWS:
    options->max_windows = (int64_t)value;
    break;
  case FLAG_WAVE_TOKENS:
    options->wave_tokens = (int64_t)value;
    break;
  case FLAG_CHUNK_ROWS:
    options->chunk_rows = (int64_t)value;
    break;
  case FLAG_THREADS:
    options->threads = (int32_t)value;
    break;
  default:
    options->timeout_ms = (int32_t)value * 1000;
  }
  return code;
}

static enum lm_exit take_choice(struct lm_team *team, struct lm_options *options, int flag,
                                const char *text) {
  int value = 0;
  enum lm_exit code;
  switch (flag) {
  case FLAG_QUANT:
    code = parse_choice(team, flag, text, quants, &value);
    options->quant = (enum lm_quant)value;
    return code;
  case FLAG_COMBINE:
    code = parse_choice(team, flag, text, combines, &value);
    options->combine = (sy_combine)value;
    return code;
  case FLAG_RETURN:
    code = parse_choice(team, flag, text, returns, &value);
    options->return_dtype = (sy_dtype)value;
    return code;
  case FLAG_DEVICE:
    code = parse_choice(team, flag, text, devices, &value);
    options->device = (enum lm_device)value;
    return code;
  default:
    code = parse_choice(team, flag, text, strategies, &value);
    options->strategy = (sy_strategy)value;
    return code;
  }
}

static enum lm_exit take_prompt(struct lm_team *team, struct lm_options *options,
                                const char *text) {
  if (text[0] == '\0') {
    return lm_fail(team, LM_USAGE, "--prompt: '' is empty; it needs at least one byte");
  }
  options->prompts[options->num_prompts++] = text;
  return LM_OK;
}

static enum lm_exit take_link(struct lm_team *team, struct lm_options *options, const char *path) {
  char error[LAUNCH_ERROR_BYTES];
  return link_file_read(path, &options->link, error) ? LM_OK : lm_fail(team, LM_INPUT, "%s", error);
}

static enum lm_exit take_flag(struct lm_team *team, struct lm_options *options, int flag,
                              const char *text) {
  switch (flag) {
  case FLAG_MODEL:
    options->model = text;
    return LM_OK;
  case FLAG_TEXT:
    options->text = text;
    return LM_OK;
  case FLAG_LINK:
    return take_link(team, options, text);
  case FLAG_PROMPT:
    return take_prompt(team, options, text);
  case FLAG_TEMPERATURE:
    return parse_real(team, flag, text, true, 100.0, &options->temperature);
  case FLAG_TOP_P:
    return parse_real(team, flag, text, false, 1.0, &options->top_p);
  case FLAG_QUANT:
  case FLAG_COMBINE:
  case FLAG_RETURN:
  case FLAG_STRATEGY:
  case FLAG_DEVICE:
    return take_choice(team, options, flag, text);
  case FLAG_JSON:
    options->json = true;
    return LM_OK;
  case FLAG_HELP:
    options->command = LM_HELP;
    return LM_OK;
  case FLAG_VERSION:
    options->command = LM_VERSION;
    return LM_OK;
  default:
    return take_whole(team, options, flag, text);
  }
}

/* A flag that the other command has. */
static bool is_foreign(enum lm_command command, int flag) {
  const bool generates = flag >= FLAG_PROMPT && flag <= FLAG_SEED;
  const bool scores = flag == FLAG_TEXT || flag == FLAG_MAX_WINDOWS;
  return (command == LM_SCORE && generates) || (command == LM_GENERATE && scores);
}

static enum lm_exit fail_unknown(struct lm_team *team, int found, int argc, char **argv) {
  const char *name = optopt == 0 ? NULL : flag_name(optopt);
  if (found == ':') {
    return lm_fail(team, LM_USAGE, "--%s: its value is missing", name);
  }
  if (name != NULL) {
    return lm_fail(team, LM_USAGE, "--%s takes no value", name);
  }
  if (optopt != 0) {
    return lm_fail(team, LM_USAGE, "'-%c' is not an option; try 'lm --help'", optopt);
  }
  return lm_fail(team, LM_USAGE, "'%s' is not an option, or begins several; try 'lm --help'",
                 optind - 1 < argc ? argv[optind - 1] : "");
}

static uint32_t flag_bit(int flag) { return UINT32_C(1) << (flag - FLAG_MODEL); }

/* What several flags say together; given has the flag_bit of each flag that was there. */
static enum lm_exit check_together(struct lm_team *team, struct lm_options *options,
                                   uint32_t given) {
  const char *command = options->command == LM_SCORE ? "score" : "generate";
  if (options->model == NULL) {
    return lm_fail(team, LM_USAGE, "'lm %s' needs --model DIR", command);
  }
  if (options->command == LM_SCORE && options->text == NULL) {
    return lm_fail(team, LM_USAGE, "'lm score' needs --text FILE");
  }
  if ((given & flag_bit(FLAG_TOP_P)) != 0 && options->temperature == 0.0) {
    return lm_fail(team, LM_USAGE,
                   "--top-p needs --temperature above 0: without it nothing is "
                   "drawn");
  }
  if ((given & flag_bit(FLAG_RETURN)) == 0) {
    options->return_dtype = options->combine == SY_COMBINE_PER_RANK ? SY_DTYPE_F32 : SY_DTYPE_BF16;
  }
  if (options->num_prompts == 0) {
    options->prompts[options->num_prompts++] = "In the ";
  }
  return LM_OK;
}

/* The flags after the command. */
static enum lm_exit parse_flags(struct lm_team *team, int argc, char **argv,
                                struct lm_options *options) {
  uint32_t given = 0;
  opterr = 0;
  int found;
  while ((found = getopt_long(argc, argv, "-:", long_options, NULL)) != -1) {
    if (found == ':' || found == '?') {
      return fail_unknown(team, found, argc, argv);
    }
    if (found == 1 && options->num_prompts == 0) {
      return lm_fail(team, LM_USAGE, "'%s' is out of place: prompts follow --prompt", optarg);
    }
    if (is_foreign(options->command, found)) {
      return lm_fail(team, LM_USAGE, "--%s is an option of 'lm %s'", flag_name(found),
                     options->command == LM_SCORE ? "generate" : "score");
    }
    const int flag = found == 1 ? FLAG_PROMPT : found;
    given |= flag_bit(flag);
    const enum lm_exit code = take_flag(team, options, flag, optarg);
    if (code != LM_OK || options->command == LM_HELP || options->command == LM_VERSION) {
      return code;
    }
  }
  if (optind < argc) {
    return lm_fail(team, LM_USAGE, "'%s' is out of place: nothing may follow '--'", argv[optind]);
  }
  return check_together(team, options, given);
}

enum lm_exit lm_options_parse(struct lm_team *team, int argc, char **argv,
                              struct lm_options *options) {
  const sy_plan_desc plan = SY_PLAN_DESC_INIT;
  *options = (struct lm_options){.quant = LM_QUANT_W4A4,
                                 .link = plan.link,
                                 .combine = SY_COMBINE_PER_SLOT,
                                 .timeout_ms = LM_TIMEOUT_MS,
                                 .top_p = 1.0,
                                 .max_windows = INT32_MAX};
  if (argc < 2) {
    return lm_fail(team, LM_USAGE, "a command is missing: generate or score; try 'lm --help'");
  }
  if (strcmp(argv[1], "--help") == 0) {
    options->command = LM_HELP;
    return LM_OK;
  }
  if (strcmp(argv[1], "--version") == 0) {
    options->command = LM_VERSION;
    return LM_OK;
  }
  if (strcmp(argv[1], "generate") == 0) {
    options->command = LM_GENERATE;
  } else if (strcmp(argv[1], "score") == 0) {
    options->command = LM_SCORE;
  } else {
    return lm_fail(team, LM_USAGE, "'%s' is not a command: generate or score; try 'lm --help'",
                   argv[1]);
  }
  options->prompts = malloc((size_t)argc * sizeof *options->prompts);
  if (options->prompts == NULL) {
    return lm_fail(team, LM_OTHER, "out of memory for %d prompts", argc);
  }
  return parse_flags(team, argc - 1, argv + 1, options);
}

void lm_options_release(struct lm_options *options) { free(options->prompts); }

uint32_t lm_options_hash(const struct lm_options *options) {
  const int64_t numbers[] = {(int64_t)options->command,  (int64_t)options->quant,
                             (int64_t)options->combine,  (int64_t)options->return_dtype,
                             (int64_t)options->strategy, options->wave_tokens,
                             options->max_tokens,        (int64_t)options->seed,
                             options->max_windows,       (int64_t)options->device};
  const double reals[] = {options->temperature, options->top_p};
  uint32_t hash = lm_hash(LM_HASH_SEED, numbers, sizeof numbers);
  hash = lm_hash(hash, reals, sizeof reals);
  for (int32_t j = 0; j < options->num_prompts; ++j) {
    hash = lm_hash(hash, options->prompts[j], strlen(options->prompts[j]) + 1);
  }
  return hash;
}

void lm_options_print_help(void) {
  for (size_t i = 0; i < sizeof help / sizeof help[0]; ++i) {
    fputs(help[i], stdout);
  }
}
