#include <stddef.h>
#include <string.h>

#include "launch/link_file.h"
#include "launch/plan.h"

#define NOT_GIVEN OPTION_NOT_GIVEN

const struct option_choice plan_strategies[] = {{"auto", SY_STRATEGY_AUTO},
                                                {"exact", SY_STRATEGY_EXACT},
                                                {"fixed", SY_STRATEGY_FIXED},
                                                {"gather", SY_STRATEGY_GATHER},
                                                {NULL, 0}};

const struct option_choice plan_combines[] = {
    {"per_rank", SY_COMBINE_PER_RANK}, {"per_slot", SY_COMBINE_PER_SLOT}, {NULL, 0}};

const struct option_choice plan_dtypes[] = {
    {"bf16", SY_DTYPE_BF16}, {"f32", SY_DTYPE_F32}, {NULL, 0}};

/* The options as typed. */
struct flags {
  struct layer_options layer;
  int strategy, combine, return_dtype;
  int64_t rank, max_tokens, wave_tokens, chunk_rows, exchange_budget, scratch_budget;
  const char *link;
  double latency_us, bandwidth_gbs, network_latency_us, network_bandwidth_gbs; /* 0: not given */
  int64_t ranks_per_host;
  struct value_list worlds;
  bool json;
  const char *svg;
};

#define MAX_BUDGET (INT64_C(1) << 50)

#define AT(field) .offset = offsetof(struct flags, field)
#define HEADING(text) \
  { .kind = OPTION_HEADING, .name = (text) }
#define INTEGER(flag, field, low, high, text)                                                      \
  {                                                                                                \
    .kind = OPTION_INTEGER, .name = (flag), .value = "N", .help = (text), AT(field), .min = (low), \
    .max = (high)                                                                                  \
  }
#define BUDGET(flag, field, text)                                                                \
  {                                                                                              \
    .kind = OPTION_BYTES, .name = (flag), .value = "BYTES", .help = (text), AT(field), .min = 1, \
    .max = MAX_BUDGET                                                                            \
  }
#define NUMBER(flag, field, low_, high_, text)                                                     \
  {                                                                                                \
    .kind = OPTION_NUMBER, .name = (flag), .value = "X", .help = (text), AT(field), .low = (low_), \
    .high = (high_)                                                                                \
  }
#define CHOICE(flag, field, list, text)                                                \
  {                                                                                    \
    .kind = OPTION_CHOICE, .name = (flag), .value = "NAME", .help = (text), AT(field), \
    .choices = (list)                                                                  \
  }

static const struct option_spec specs[] = {
    LAYER_OPTIONS(struct flags, layer),
    HEADING("The ranks"),
    {.kind = OPTION_INTEGERS,
     .name = "world",
     .value = "LIST",
     .help = "ranks W; a range doubles and includes its end; several give a line each",
     AT(worlds),
     .min = 1,
     .max = 65536},
    INTEGER("rank", rank, 0, 65535, "whose plan"),
    HEADING("The links between ranks; single figures win over a file's"),
    {.kind = OPTION_TEXT,
     .name = "link",
     .value = "FILE",
     .help = "figures that `switchyard doctor --write-link FILE` has measured",
     AT(link)},
    NUMBER("link-latency-us", latency_us, LINK_MIN, LINK_MAX,
           "of one message inside a host (default 2)"),
    NUMBER("link-bandwidth-gbs", bandwidth_gbs, LINK_MIN, LINK_MAX,
           "of one rank and direction inside a host, in 1e9 bytes per second (default 8)"),
    NUMBER("network-latency-us", network_latency_us, LINK_MIN, LINK_MAX,
           "of one message between hosts (default 30)"),
    NUMBER("network-bandwidth-gbs", network_bandwidth_gbs, LINK_MIN, LINK_MAX,
           "of one rank and direction between hosts (default 1.2)"),
    INTEGER("ranks-per-host", ranks_per_host, 0, 65536,
            "ranks 0 to N - 1 are on the first host, and so on; 0: all on one (default: of the "
            "file, or 0)"),
    HEADING("Limits"),
    INTEGER("max-tokens", max_tokens, 1, INT32_MAX, "tokens of any rank in one forward"),
    BUDGET("exchange-budget", exchange_budget,
           "of exchange memory, which bounds a wave (default 512MiB)"),
    INTEGER("wave-tokens", wave_tokens, 1, INT32_MAX,
            "tokens of a rank that travel together, instead of --exchange-budget"),
    BUDGET("scratch-budget", scratch_budget, "of scratch, which bounds a chunk (default 256MiB)"),
    INTEGER("chunk-rows", chunk_rows, 1, INT32_MAX,
            "received rows that are computed together, instead of --scratch-budget"),
    HEADING("The exchange"),
    CHOICE("strategy", strategy, plan_strategies, "auto chooses from the link's figures"),
    CHOICE("combine", combine, plan_combines, "how a token's partial results meet again"),
    CHOICE("return-dtype", return_dtype, plan_dtypes, "of the rows on their way back"),
    HEADING("Output"),
    {.kind = OPTION_TEXT,
     .name = "svg",
     .value = "FILE",
     .help = "draw curves over --world, which has several values: bytes of a token, exchange time, "
             "memory of a rank",
     AT(svg)},
    {.kind = OPTION_SWITCH, .name = "json", .help = "print JSON; sizes in bytes", AT(json)},
};

static const struct option_page page = {
    .about = "Works out every buffer of one MoE layer on W ranks: where each byte goes, how many "
             "waves and chunks the budgets ask for, and which strategy the exchange takes. Needs "
             "neither the ranks nor the weights.",
    .examples = "  switchyard plan --model qwen3-30b --world 4\n"
                "  switchyard plan --model deepseek-v3 --world 8..64 --max-tokens 8192\n"
                "  switchyard plan --model gpt-oss-20b --world 2,3,4 --mode w4a16 --json\n"
                "  switchyard plan --hidden 2048 --intermediate 1024 --experts 64 --top-k 6 "
                "--world 8 \\\n"
                "      --exchange-budget 64MiB --scratch-budget 128MiB\n",
    .specs = specs,
    .num_specs = sizeof specs / sizeof specs[0],
};

/* Under mpirun the world is the one that it started. */
static struct flags defaults(const struct session *session) {
  return (struct flags){
      .layer = LAYER_OPTIONS_INIT,
      .max_tokens = 4096,
      .wave_tokens = NOT_GIVEN,
      .chunk_rows = NOT_GIVEN,
      .exchange_budget = NOT_GIVEN,
      .scratch_budget = NOT_GIVEN,
      .ranks_per_host = NOT_GIVEN,
      .worlds = {.count = 1, .values = {session->world}},
  };
}

static int check_combinations(struct session *session, const struct flags *flags) {
  if (flags->wave_tokens != NOT_GIVEN && flags->exchange_budget != NOT_GIVEN) {
    return session_fail(session, CLI_USAGE,
                        "--wave-tokens and --exchange-budget exclude each other: a wave is either "
                        "given or derived from the budget");
  }
  if (flags->chunk_rows != NOT_GIVEN && flags->scratch_budget != NOT_GIVEN) {
    return session_fail(session, CLI_USAGE,
                        "--chunk-rows and --scratch-budget exclude each other: a chunk is either "
                        "given or derived from the budget");
  }
  if (flags->svg != NULL && flags->worlds.count < 2) {
    return session_fail(session, CLI_USAGE,
                        "--svg draws curves, which need several values of --world, such as 1..64");
  }
  for (size_t i = 0; i < flags->worlds.count; ++i) {
    if (flags->rank >= flags->worlds.values[i]) {
      return session_fail(
          session, CLI_USAGE, "--rank %d does not exist in --world %d; allowed: 0..%d",
          (int)flags->rank, (int)flags->worlds.values[i], (int)flags->worlds.values[i] - 1);
    }
  }
  return CLI_OK;
}

static void take_number(double number, double *figure) {
  if (number > 0.0) {
    *figure = number;
  }
}

static int complete_link(struct session *session, const struct flags *flags, sy_link *link) {
  char error[LAUNCH_ERROR_BYTES];
  if (flags->link != NULL && !link_file_read(flags->link, link, error)) {
    return session_fail(session, CLI_BAD_FILE, "%s", error);
  }
  take_number(flags->latency_us, &link->in_host.latency_us);
  take_number(flags->bandwidth_gbs, &link->in_host.bandwidth_gbs);
  take_number(flags->network_latency_us, &link->between_hosts.latency_us);
  take_number(flags->network_bandwidth_gbs, &link->between_hosts.bandwidth_gbs);
  if (flags->ranks_per_host != NOT_GIVEN) {
    link->ranks_per_host = (int32_t)flags->ranks_per_host;
  }
  return CLI_OK;
}

static void fill_request(const struct flags *flags, const sy_link *link,
                         struct plan_request *request) {
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.rank = (int32_t)flags->rank;
  desc.max_tokens = flags->max_tokens;
  desc.wave_tokens = flags->wave_tokens == NOT_GIVEN ? 0 : flags->wave_tokens;
  desc.chunk_rows = flags->chunk_rows == NOT_GIVEN ? 0 : flags->chunk_rows;
  if (flags->exchange_budget != NOT_GIVEN) {
    desc.exchange_budget_bytes = (size_t)flags->exchange_budget;
  }
  if (flags->scratch_budget != NOT_GIVEN) {
    desc.scratch_budget_bytes = (size_t)flags->scratch_budget;
  }
  desc.strategy = (sy_strategy)flags->strategy;
  desc.combine = (sy_combine)flags->combine;
  desc.return_dtype = (sy_dtype)flags->return_dtype;
  desc.link = *link;
  *request = (struct plan_request){
      .model = layer_options_model(&flags->layer),
      .shape = layer_options_shape(&flags->layer),
      .desc = desc,
      .worlds = flags->worlds,
      .json = flags->json,
      .svg = flags->svg,
  };
}

int plan_options_parse(struct session *session, int argc, char **argv,
                       struct plan_request *request_out) {
  struct flags flags = defaults(session);
  const sy_plan_desc desc = SY_PLAN_DESC_INIT;
  sy_link link = desc.link;
  int code = options_parse(session, &page, argc, argv, &flags);
  if (code == CLI_OK) {
    code = check_combinations(session, &flags);
  }
  if (code == CLI_OK) {
    code = layer_options_complete(session, &flags.layer);
  }
  if (code == CLI_OK) {
    code = complete_link(session, &flags, &link);
  }
  if (code == CLI_OK) {
    fill_request(&flags, &link, request_out);
  }
  return code;
}
