/* The command line: what it prints, what it refuses, and with which words. SWITCHYARD_PROGRAM is
 * the command that runs it. */
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/harness.h"
#include "tests/support/program.h"

static const char *const models[] = {"qwen3-30b",       "gpt-oss-20b", "deepseek-v3",
                                     "deepseek-v3-ep8", "mixtral",     "tiny-moe"};
enum { NUM_MODELS = sizeof models / sizeof models[0] };

static struct program_run run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static struct program_run run(const char *format, ...) {
  static char line[8192];
  const int used = snprintf(line, sizeof line, "%s ", SWITCHYARD_PROGRAM);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line + used, sizeof line - (size_t)used, format, arguments);
  va_end(arguments);
  return program_run(line);
}

/* Succeeds, prints one JSON document and no error; NULL otherwise. */
static json_t *run_json(const char *arguments) {
  struct program_run r = run("%s --json", arguments);
  json_error_t error;
  CHECK_EQ_I64(r.code, 0);
  CHECK_EQ_STR(r.err, "");
  json_t *root = json_loads(r.out, 0, &error);
  if (!CHECK(root != NULL)) {
    printf("    %s: line %d: %s\n", arguments, error.line, error.text);
  }
  program_run_free(&r);
  return root;
}

static int64_t integer(const json_t *object, const char *name) {
  const json_t *value = json_object_get(object, name);
  if (!CHECK(json_is_integer(value))) {
    printf("    no integer \"%s\"\n", name);
  }
  return json_integer_value(value);
}

static const char *text(const json_t *object, const char *name) {
  const char *value = json_string_value(json_object_get(object, name));
  if (!CHECK(value != NULL)) {
    printf("    no text \"%s\"\n", name);
  }
  return value != NULL ? value : "";
}

static json_t *plan_at(const json_t *root, size_t index) {
  return json_array_get(json_object_get(root, "plans"), index);
}

/* ---- The program ---- */

TEST(help_explains_the_program_and_each_command) {
  static const char *const pages[] = {
      "--help",        "plan --help",          "info --help",        "topo --help",
      "doctor --help", "bench experts --help", "bench layer --help", "bench load --help"};
  for (size_t i = 0; i < sizeof pages / sizeof pages[0]; ++i) {
    struct program_run r = run("%s", pages[i]);
    CHECK_EQ_I64(r.code, 0);
    CHECK_EQ_STR(r.err, "");
    check_readable(r.out);
    CHECK_STR_HAS(r.out, "Usage: switchyard");
    CHECK_STR_HAS(r.out, "\nExamples:\n  ");
    CHECK_STR_HAS(r.out, "\nExit codes:\n  0  success\n  1  ");
    CHECK_STR_HAS(r.out, "\n  2  a wrong option");
    CHECK_STR_HAS(r.out, "\n  3  a file is missing");
    CHECK_STR_HAS(r.out, "\n  4  a rank");
    CHECK_STR_HAS(r.out, "\n  --help ");
    program_run_free(&r);
  }
  struct program_run r = run("--help");
  CHECK_STR_HAS(r.out, "\n  plan ");
  CHECK_STR_HAS(r.out, "\n  info ");
  CHECK_STR_HAS(r.out, "\n  topo ");
  CHECK_STR_HAS(r.out, "\n  bench ");
  program_run_free(&r);
}

TEST(help_shows_ranges_and_defaults) {
  struct program_run r = run("plan --help");
  CHECK_STR_HAS(r.out, "[multiples of 16 in 16..1048576]");
  CHECK_STR_HAS(r.out, "[w4a4, w4a16, bf16; default w4a4]");
  CHECK_STR_HAS(r.out, "[1..2147483647; default 4096]");
  program_run_free(&r);
}

/* These defaults are words of the help; the others come from the table. */
TEST(help_states_the_budgets_of_the_header) {
  const sy_plan_desc desc = SY_PLAN_DESC_INIT;
  struct program_run r = run("plan --help");
  char words[64];
  snprintf(words, sizeof words, "a wave (default %zuMiB)", desc.exchange_budget_bytes >> 20);
  CHECK_STR_HAS(r.out, words);
  snprintf(words, sizeof words, "a chunk (default %zuMiB)", desc.scratch_budget_bytes >> 20);
  CHECK_STR_HAS(r.out, words);
  program_run_free(&r);
}

TEST(version_is_that_of_the_library) {
  char expected[64];
  struct program_run r = run("--version");
  snprintf(expected, sizeof expected, "switchyard %s\n", sy_version());
  CHECK_EQ_I64(r.code, 0);
  CHECK_EQ_STR(r.out, expected);
  program_run_free(&r);
}

TEST(output_that_cannot_be_written_is_an_error) {
  static const char *const commands[] = {"--help", "plan --model mixtral", "info --json"};
  for (size_t i = 0; i < sizeof commands / sizeof commands[0]; ++i) {
    char line[512];
    snprintf(line, sizeof line, "%s %s", SWITCHYARD_PROGRAM, commands[i]);
    struct program_run r = program_run_into("/dev/full", line);
    CHECK_EQ_I64(r.code, 1);
    CHECK_STR_HAS(r.err, "standard output cannot be written");
    program_run_free(&r);
  }
}

/* ---- What is refused ---- */

struct refusal {
  const char *arguments;
  const char *says[3]; /* all of them */
};

static void check_refusals(const struct refusal *refusals, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    struct program_run r = run("%s", refusals[i].arguments);
    bool held = CHECK_EQ_I64(r.code, 2);
    held = CHECK_EQ_STR(r.out, "") && held;
    for (size_t j = 0; j < 3 && refusals[i].says[j] != NULL; ++j) {
      held = CHECK_STR_HAS(r.err, refusals[i].says[j]) && held;
    }
    held = CHECK_STR_HAS(r.err, "--help'.\n") && held;
    if (!held) {
      printf("    of: switchyard %s\n", refusals[i].arguments);
    }
    program_run_free(&r);
  }
}

#define CHECK_REFUSALS(list) check_refusals((list), sizeof(list) / sizeof(list)[0])

TEST(a_wrong_command_names_itself) {
  static const struct refusal refusals[] = {
      {"plna",
       {"'plna' is not a command", "allowed: plan, doctor, topo, info", "did you mean plan?"}},
      {"--versoin", {"'--versoin' is not an option", "--help, --version", "mean --version?"}},
      {"--json", {"'--json' is not an option", "allowed: --help, --version, or a command"}},
      {"", {"'' is not a command", "allowed: plan, doctor, topo, info"}},
  };
  CHECK_REFUSALS(refusals);
  struct program_run r = program_run(SWITCHYARD_PROGRAM);
  CHECK_EQ_I64(r.code, 2);
  CHECK_STR_HAS(r.err, "a command is missing");
  program_run_free(&r);
}

TEST(a_wrong_option_names_itself) {
  static const struct refusal refusals[] = {
      {"plan --hiden 64", {"switchyard plan: --hiden is not an option", "mean --hidden?"}},
      {"plan --max 64", {"--max is not an option", "mean --max-tokens?"}},
      {"plan --max=64", {"--max is not an option", "mean --max-tokens?"}},
      {"plan --h", {"--h is not an option", "mean --hidden?"}},
      {"plan --wholly-different", {"--wholly-different is not an option of switchyard plan\n"}},
      {"plan -j", {"-j is not an option"}},
      {"plan --json=yes", {"--json takes no value", "'--json=yes'"}},
      {"plan --help=yes", {"--help takes no value"}},
      {"plan --hidden", {"--hidden needs a value", "multiples of 16 in 16..1048576"}},
      {"plan 64", {"unexpected argument '64'"}},
      {"plan -- --json", {"unexpected argument '--json'"}},
      {"info --jsno", {"switchyard info: --jsno is not an option", "mean --json?"}},
      {"info --world 4", {"--world is not an option of switchyard info"}},
  };
  CHECK_REFUSALS(refusals);
}

TEST(a_wrong_value_names_itself_and_the_range) {
  static const struct refusal refusals[] = {
      {"plan --model gpt", {"--model 'gpt' is not known", "qwen3-30b, gpt-oss-20b, deepseek-v3"}},
      {"plan --hidden 0", {"--hidden '0' is out of range", "multiples of 16 in 16..1048576"}},
      {"plan --hidden -16", {"--hidden '-16' is out of range", "16..1048576"}},
      {"plan --hidden 1048592", {"--hidden '1048592' is out of range", "16..1048576"}},
      {"plan --hidden 17", {"--hidden '17' is not a multiple of 16", "16..1048576"}},
      {"plan --intermediate 8", {"--intermediate '8' is out of range", "16..1048576"}},
      {"plan --intermediate 1e3", {"--intermediate '1e3' is not an integer", "16..1048576"}},
      {"plan --experts 0", {"--experts '0' is out of range", "1..65534"}},
      {"plan --experts 65535", {"--experts '65535' is out of range", "1..65534"}},
      {"plan --top-k 1025", {"--top-k '1025' is out of range", "1..1024"}},
      {"plan --top-k 4x", {"--top-k '4x' is not an integer", "1..1024"}},
      {"plan --top-k=", {"--top-k '' is not an integer", "1..1024"}},
      {"plan --top-k 18446744073709551620", {"is out of range", "1..1024"}},
      {"plan --mode fp8", {"--mode 'fp8' is not known", "w4a4, w4a16, bf16"}},
      {"plan --format fp4", {"--format 'fp4' is not known", "nvfp4, mxfp4"}},
      {"bench", {"a kind of bench is missing; allowed: experts, layer, load"}},
      {"bench exprts", {"'exprts' is no kind of bench; allowed: experts, layer, load"}},
      {"bench experts --tokens 0", {"switchyard bench experts", "--tokens '0'", "1..65536"}},
      {"bench load --tokens 4", {"--tokens is not an option of switchyard bench load"}},
      {"plan --mode W4A4", {"--mode 'W4A4' is not known"}},
      {"plan --activation gelu",
       {"--activation 'gelu'", "swiglu, swiglu_clamped, gelu_tanh, relu2"}},
      {"plan --bias maybe", {"--bias 'maybe'", "no, yes"}},
      {"plan --strategy all", {"--strategy 'all'", "auto, exact, fixed, gather"}},
      {"plan --combine slot", {"--combine 'slot'", "per_rank, per_slot"}},
      {"plan --return-dtype f16", {"--return-dtype 'f16'", "bf16, f32"}},
      {"plan --world 0", {"--world '0' is out of range", "1..65536"}},
      {"plan --world 65537", {"--world '65537' is out of range", "1..65536"}},
      {"plan --world 8..4", {"--world '8..4' is out of range", "1..65536"}},
      {"plan --world 1..", {"--world '1..' is not a list of integers", "A..B"}},
      {"plan --world 1,,2", {"--world '1,,2' is not a list of integers", "A..B"}},
      {"plan --world 1,2,", {"--world '1,2,' is not a list of integers", "A..B"}},
      {"plan --rank -1", {"--rank '-1' is out of range", "0..65535"}},
      {"plan --max-tokens 0", {"--max-tokens '0' is out of range", "1..2147483647"}},
      {"plan --wave-tokens 2147483648", {"--wave-tokens", "1..2147483647"}},
      {"plan --chunk-rows 0", {"--chunk-rows '0' is out of range", "1..2147483647"}},
      {"plan --exchange-budget 10MB",
       {"--exchange-budget '10MB' is not a size", "KiB, MiB or GiB"}},
      {"plan --exchange-budget 1.5MiB", {"'1.5MiB' is not a size", "KiB, MiB or GiB"}},
      {"plan --exchange-budget MiB", {"'MiB' is not a size"}},
      {"plan --scratch-budget 0", {"--scratch-budget '0' is out of range", "1..1048576GiB"}},
      {"plan --scratch-budget 8589934592GiB", {"is out of range", "1..1048576GiB"}},
      {"plan --link-latency-us 0", {"--link-latency-us '0' is out of range", "0.001..1e+06"}},
      {"plan --link-latency-us nan", {"--link-latency-us 'nan' is not a number", "0.001"}},
      {"plan --link-bandwidth-gbs 1e999", {"is out of range", "0.001..1e+06"}},
      {"plan --link-bandwidth-gbs 1e", {"'1e' is not a number"}},
  };
  CHECK_REFUSALS(refusals);
}

TEST(a_wrong_combination_names_itself) {
  static const struct refusal refusals[] = {
      {"bench layer", {"without --hidden --intermediate --experts --top-k"}},
      {"bench experts --model mixtral --top-k 9", {"--top-k 9 exceeds --experts 8"}},
      {"bench load --checkpoint x --top-k 9", {"--checkpoint tells the layer's sizes"}},
      {"plan", {"without --hidden --intermediate --experts --top-k", "--model: qwen3-30b"}},
      {"plan --hidden 64 --experts 4", {"without --intermediate --top-k;"}},
      {"plan --model mixtral --rank 1", {"--rank 1", "--world 1", "allowed: 0..0"}},
      {"plan --model mixtral --world 8,4 --rank 4", {"--rank 4", "--world 4", "allowed: 0..3"}},
      {"plan --model mixtral --wave-tokens 8 --exchange-budget 1GiB",
       {"--wave-tokens and --exchange-budget exclude each other"}},
      {"plan --model mixtral --chunk-rows 8 --scratch-budget 1GiB",
       {"--chunk-rows and --scratch-budget exclude each other"}},
      {"plan --model mixtral --exchange-budget 1KiB", {"exchange_budget", "1024 bytes", "needs"}},
      {"plan --model mixtral --world 4 --scratch-budget 1KiB",
       {"world 4: scratch_budget", "1024 bytes", "needs"}},
  };
  CHECK_REFUSALS(refusals);
}

/* ---- plan ---- */

/* The sums of the buffers are the totals: exchange to the byte, scratch up to alignment (and, in
 * debug builds, fences). */
static void check_sums(const json_t *plan, int64_t most_waste) {
  int64_t exchange = 0;
  int64_t scratch = 0;
  int64_t buffers = 0;
  size_t i;
  json_t *buffer;
  json_array_foreach(json_object_get(plan, "buffers"), i, buffer) {
    const int64_t bytes = integer(buffer, "bytes");
    const bool is_exchange = strcmp(text(buffer, "memory"), "exchange") == 0;
    CHECK_EQ_I64(integer(buffer, "rows") * integer(buffer, "row_bytes"), bytes);
    CHECK(text(buffer, "formula")[0] != '\0');
    exchange += is_exchange ? bytes : 0;
    scratch += is_exchange ? 0 : bytes;
    buffers += is_exchange ? 0 : 1;
  }
  CHECK(buffers > 10);
  CHECK_EQ_I64(exchange, integer(plan, "exchange_bytes"));
  CHECK(scratch <= integer(plan, "scratch_bytes"));
  CHECK(integer(plan, "scratch_bytes") - scratch <= buffers * most_waste);
}

TEST(sums_of_buffers_are_the_totals) {
  static const char *const variants[] = {
      "--strategy exact",
      "--strategy fixed --max-tokens 64",
      "--strategy gather",
      "--strategy exact --combine per_slot",
      "--strategy gather --combine per_slot --mode bf16",
      "--mode w4a16 --return-dtype f32 --exchange-budget 64MiB --scratch-budget 64MiB"};
  for (int m = 0; m < NUM_MODELS; ++m) {
    for (size_t v = 0; v < sizeof variants / sizeof variants[0]; ++v) {
      char arguments[256];
      snprintf(arguments, sizeof arguments, "plan --model %s --world 1,3,4,256 %s", models[m],
               variants[v]);
      json_t *root = run_json(arguments);
      CHECK_EQ_U64(json_array_size(json_object_get(root, "plans")), 4);
      for (size_t i = 0; i < 4; ++i) {
        check_sums(plan_at(root, i), 128);
      }
      json_decref(root);
    }
  }
}

static void check_same(const json_t *plan, const sy_plan_info *info) {
  char hash[32];
  snprintf(hash, sizeof hash, "%016" PRIx64, info->hash);
  CHECK_EQ_STR(text(plan, "hash"), hash);
  CHECK_EQ_I64(integer(plan, "wave_tokens"), info->wave_tokens);
  CHECK_EQ_I64(integer(plan, "chunk_rows"), info->chunk_rows);
  CHECK_EQ_I64(integer(plan, "max_waves"), info->max_waves);
  CHECK_EQ_I64(integer(plan, "max_chunks"), info->max_chunks);
  CHECK_EQ_I64(integer(plan, "local_experts"), info->local_experts);
  CHECK_EQ_I64(integer(plan, "max_local_experts"), info->max_local_experts);
  CHECK_EQ_I64(integer(plan, "slots_per_row"), info->slots_per_row);
  CHECK_EQ_U64((uint64_t)integer(plan, "row_bytes"), info->row_bytes);
  CHECK_EQ_U64((uint64_t)integer(plan, "return_row_bytes"), info->return_row_bytes);
  CHECK_EQ_U64((uint64_t)integer(plan, "exchange_bytes"), info->exchange_bytes);
  CHECK_EQ_U64((uint64_t)integer(plan, "scratch_bytes"), info->scratch_bytes);
  CHECK_EQ_U64((uint64_t)integer(plan, "weight_bytes"), info->weight_bytes);
  CHECK_NEAR(json_real_value(json_object_get(plan, "predicted_exact_us")), info->auto_dispatch_us,
             0.0);
  CHECK_NEAR(json_real_value(json_object_get(plan, "predicted_gather_us")), info->auto_gather_us,
             0.0);
  CHECK_NEAR(json_real_value(json_object_get(plan, "predicted_exchange_us")), info->exchange_us,
             0.0);
  CHECK_NEAR(json_real_value(json_object_get(plan, "expected_traffic_bytes")),
             info->exchange_traffic_bytes, 0.0);
}

/* Runs the command and the library on the same; arguments must say what desc says. */
static void check_against_library(const char *arguments, const sy_plan_desc *desc) {
  sy_plan *plan = NULL;
  sy_plan_info info = SY_PLAN_INFO_INIT;
  if (!CHECK_OK(sy_plan_create(desc, &plan))) {
    return;
  }
  CHECK_OK(sy_plan_query(plan, &info));
  json_t *root = run_json(arguments);
  CHECK_EQ_I64(integer(plan_at(root, 0), "world"), desc->world);
  CHECK_EQ_I64(integer(plan_at(root, 0), "rank"), desc->rank);
  check_same(plan_at(root, 0), &info);
  json_decref(root);
  sy_plan_destroy(plan);
}

TEST(every_flag_reaches_the_library) {
  sy_shape shape = SY_SHAPE_INIT;
  shape.hidden = 320;
  shape.intermediate = 192;
  shape.num_experts = 37;
  shape.top_k = 5;
  shape.mode = SY_MODE_W4A16;
  shape.activation = SY_ACTIVATION_RELU2;
  shape.has_bias = 1;
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = &shape;
  desc.world = 6;
  desc.rank = 2;
  desc.max_tokens = 5000;
  desc.exchange_budget_bytes = (size_t)3 << 20;
  desc.scratch_budget_bytes = (size_t)5 << 10 << 10;
  desc.strategy = SY_STRATEGY_AUTO;
  desc.combine = SY_COMBINE_PER_SLOT;
  desc.return_dtype = SY_DTYPE_F32;
  desc.link.in_host.latency_us = 7.5;
  desc.link.in_host.bandwidth_gbs = 12.25;
  desc.link.between_hosts.latency_us = 55.0;
  desc.link.between_hosts.bandwidth_gbs = 0.25;
  desc.link.ranks_per_host = 4;
#define LAYER                                                                                    \
  "plan --hidden 320 --intermediate 192 --experts 37 --top-k 5 --mode w4a16 --activation relu2 " \
  "--bias yes --world 6 --rank 2 --max-tokens 5000 --combine per_slot --return-dtype f32 "       \
  "--link-latency-us 7.5 --link-bandwidth-gbs 12.25 --network-latency-us 55 "                    \
  "--network-bandwidth-gbs 0.25 --ranks-per-host 4 "
  check_against_library(LAYER "--exchange-budget 3MiB --scratch-budget 5120KiB", &desc);
  desc.wave_tokens = 77;
  desc.chunk_rows = 33;
  desc.strategy = SY_STRATEGY_GATHER;
  check_against_library(LAYER "--wave-tokens 77 --chunk-rows 33 --strategy gather", &desc);
#undef LAYER
}

/* Figures of a file, of which single options replace some. */
TEST(plan_takes_link_figures_from_a_file) {
  char path[] = "/tmp/switchyard_link_XXXXXX";
  const int file = mkstemp(path);
  static const char figures[] =
      "{\"switchyard_link\": 1, \"ranks_per_host\": 2, \"between_hosts\": {\"latency_us\": 40, "
      "\"message_us\": 2, \"bandwidth_gbs\": 0.5}}";
  if (!CHECK(file >= 0 && write(file, figures, sizeof figures - 1) == sizeof figures - 1)) {
    return;
  }
  close(file);
  char arguments[256];
  snprintf(arguments, sizeof arguments,
           "plan --model tiny-moe --world 4 --link %s --network-latency-us 41", path);
  json_t *root = run_json(arguments);
  const json_t *link = json_object_get(json_object_get(root, "request"), "link");
  const json_t *network = json_object_get(link, "between_hosts");
  CHECK_EQ_I64(integer(link, "ranks_per_host"), 2);
  CHECK_NEAR(json_real_value(json_object_get(network, "latency_us")), 41.0, 0.0);
  CHECK_NEAR(json_real_value(json_object_get(network, "bandwidth_gbs")), 0.5, 0.0);
  json_decref(root);
  unlink(path);
  struct program_run r = run("plan --model tiny-moe --world 4 --link %s", path);
  CHECK_EQ_I64(r.code, 3);
  CHECK_STR_HAS(r.err, "cannot be read: No such file or directory");
  program_run_free(&r);
}

TEST(plan_draws_its_curves) {
  char path[] = "/tmp/switchyard_curve_XXXXXX";
  static char svg[1 << 16];
  close(mkstemp(path)); /* its name is what counts: the file is replaced */
  struct program_run r = run("plan --model qwen3-30b --world 1..1024 --svg %s", path);
  CHECK_EQ_I64(r.code, 0);
  program_run_free(&r);
  const int file = open(path, O_RDONLY);
  if (!CHECK(file >= 0)) {
    return;
  }
  svg[read(file, svg, sizeof svg - 1)] = '\0';
  close(file);
  unlink(path);
  int points = 0;
  for (const char *at = svg; (at = strstr(at, "r=\"3.2\"")) != NULL; ++at) {
    ++points;
  }
  CHECK_EQ_I64(points, 5 * 10 + 2 * 11); /* one rank exchanges nothing */
  CHECK_STR_HAS(svg, "</svg>\n");
  r = run("plan --model qwen3-30b --world 4 --svg %s", path);
  CHECK_EQ_I64(r.code, 2);
  CHECK_STR_HAS(r.err, "--svg draws curves, which need several values of --world");
  program_run_free(&r);
  r = run("plan --model qwen3-30b --world 1..4 --svg /dev/full");
  CHECK_EQ_I64(r.code, 1);
  CHECK_STR_HAS(r.err, "--svg '/dev/full' cannot be written");
  program_run_free(&r);
}

TEST(models_are_what_they_should_be) {
  static const struct {
    int64_t hidden, intermediate, experts, top_k;
    const char *activation;
    bool bias;
  } expected[NUM_MODELS] = {
      {2048, 768, 128, 8, "swiglu", false},  {2880, 2880, 32, 4, "swiglu_clamped", true},
      {7168, 2048, 256, 8, "swiglu", false}, {7168, 2048, 32, 8, "swiglu", false},
      {4096, 14336, 8, 2, "swiglu", false},  {256, 128, 32, 4, "swiglu", false}};
  for (int m = 0; m < NUM_MODELS; ++m) {
    char arguments[64];
    snprintf(arguments, sizeof arguments, "plan --model %s", models[m]);
    json_t *root = run_json(arguments);
    const json_t *shape = json_object_get(root, "shape");
    CHECK_EQ_STR(text(root, "model"), models[m]);
    CHECK_EQ_I64(integer(shape, "hidden"), expected[m].hidden);
    CHECK_EQ_I64(integer(shape, "intermediate"), expected[m].intermediate);
    CHECK_EQ_I64(integer(shape, "experts"), expected[m].experts);
    CHECK_EQ_I64(integer(shape, "top_k"), expected[m].top_k);
    CHECK_EQ_STR(text(shape, "activation"), expected[m].activation);
    CHECK_EQ_I64(json_is_true(json_object_get(shape, "bias")), expected[m].bias);
    CHECK_EQ_STR(text(shape, "format"), "nvfp4");
    CHECK_EQ_STR(text(shape, "mode"), "w4a4");
    json_decref(root);
  }
}

TEST(numbers_win_over_the_model) {
  json_t *root = run_json("plan --experts 16 --model gpt-oss-20b --bias no --activation swiglu");
  const json_t *shape = json_object_get(root, "shape");
  CHECK_EQ_I64(integer(shape, "hidden"), 2880);
  CHECK_EQ_I64(integer(shape, "experts"), 16);
  CHECK(json_is_false(json_object_get(shape, "bias")));
  CHECK_EQ_STR(text(shape, "activation"), "swiglu");
  json_decref(root);
}

/* Counted by hand. tiny-moe on 4 ranks, 8 experts each: a w4a4 row has 256 / 2 bytes of codes, 16
 * scales, 4 slots of 8 bytes and a scale of 4 bytes: 180, so 192. It comes back as 512 bytes. */
TEST(figures_by_hand) {
  json_t *root = run_json("plan --model tiny-moe --world 4 --strategy exact --max-tokens 100 "
                          "--wave-tokens 40 --chunk-rows 50");
  const json_t *plan = plan_at(root, 0);
  const json_t *token = json_object_get(plan, "token_at_most");
  CHECK_EQ_STR(text(plan, "strategy"), "exact");
  CHECK_EQ_I64(integer(plan, "local_experts"), 8);
  CHECK_EQ_I64(integer(plan, "wave_tokens"), 40);
  CHECK_EQ_I64(integer(plan, "max_waves"), 3);
  CHECK_EQ_I64(integer(plan, "chunk_rows"), 50);
  CHECK_EQ_I64(integer(plan, "max_chunks"), 4);
  CHECK_EQ_I64(integer(plan, "row_bytes"), 192);
  CHECK_EQ_I64(integer(plan, "return_row_bytes"), 512);
  CHECK_EQ_I64(integer(token, "rows_out"), 3);
  CHECK_EQ_I64(integer(token, "bytes_out"), INT64_C(3) * 192);
  CHECK_EQ_I64(integer(token, "rows_back"), 3);
  CHECK_EQ_I64(integer(token, "bytes_back"), INT64_C(3) * 512);
  json_decref(root);
}

/* Rows per token: exact min(K, W - 1) and, per slot, K back; fixed and gather W - 1 and, per slot,
 * min(K, E_max) times as many back. */
TEST(traffic_of_a_token) {
  static const struct {
    const char *arguments;
    int64_t out, back;
  } cases[] = {
      {"--model mixtral --world 1", 0, 0},
      {"--model mixtral --world 1 --combine per_slot", 0, 0},
      {"--model mixtral --world 2 --strategy exact", 1, 1},
      {"--model mixtral --world 2 --strategy exact --combine per_slot", 1, 2},
      {"--model mixtral --world 8 --strategy exact", 2, 2},
      {"--model mixtral --world 8 --strategy exact --combine per_slot", 2, 2},
      {"--model mixtral --world 4 --strategy fixed", 3, 3},
      {"--model mixtral --world 4 --strategy fixed --combine per_slot", 3, 6},
      {"--model mixtral --world 8 --strategy gather --combine per_slot", 7, 7},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    char arguments[128];
    snprintf(arguments, sizeof arguments, "plan %s", cases[i].arguments);
    json_t *root = run_json(arguments);
    const json_t *token = json_object_get(plan_at(root, 0), "token_at_most");
    CHECK_EQ_I64(integer(token, "rows_out"), cases[i].out);
    CHECK_EQ_I64(integer(token, "rows_back"), cases[i].back);
    json_decref(root);
  }
}

TEST(a_budget_makes_waves_and_chunks) {
  json_t *root = run_json("plan --model qwen3-30b --world 8 --max-tokens 8192 --exchange-budget "
                          "32MiB --scratch-budget 16777216");
  const json_t *plan = plan_at(root, 0);
  CHECK(integer(plan, "exchange_bytes") <= 32 << 20);
  CHECK(integer(plan, "exchange_bytes") > 31 << 20);
  CHECK(integer(plan, "scratch_bytes") <= 16 << 20);
  CHECK(integer(plan, "scratch_bytes") > 15 << 20);
  const int64_t wave = integer(plan, "wave_tokens");
  const int64_t chunk = integer(plan, "chunk_rows");
  CHECK(wave < 8192);
  CHECK_EQ_I64(integer(plan, "max_waves"), (8192 + wave - 1) / wave);
  CHECK_EQ_I64(integer(plan, "max_chunks"), (8 * wave + chunk - 1) / chunk);
  json_decref(root);
}

TEST(a_range_of_worlds_doubles_and_includes_its_end) {
  static const int64_t expected[] = {5, 3, 6, 12, 20, 7};
  json_t *root = run_json("plan --model tiny-moe --world 5,3..20,7..7");
  CHECK_EQ_U64(json_array_size(json_object_get(root, "plans")), 6);
  for (size_t i = 0; i < 6; ++i) {
    CHECK_EQ_I64(integer(plan_at(root, i), "world"), expected[i]);
  }
  json_decref(root);
}

TEST(worlds_from_1_to_1024_in_one_process) {
  char list[6000] = "1";
  size_t used = 1;
  for (int world = 2; world <= 1024; ++world) {
    used += (size_t)snprintf(list + used, sizeof list - used, ",%d", world);
  }
  struct program_run r = run("plan --model qwen3-30b --world %s", list);
  CHECK_EQ_I64(r.code, 0);
  check_readable(r.out);
  int expected = 1;
  for (const char *line = r.out; (line = strchr(line, '\n')) != NULL; ++line) {
    char *end = NULL;
    const long world = strtol(line, &end, 10);
    expected += end != line && world == expected ? 1 : 0;
  }
  CHECK_EQ_I64(expected, 1025);
  program_run_free(&r);
}

TEST(too_many_worlds_are_refused) {
  char list[2 * 1025 + 1];
  for (size_t i = 0; i < 1025; ++i) {
    memcpy(list + 2 * i, "1,", 3);
  }
  list[sizeof list - 2] = '\0';
  struct program_run r = run("plan --model mixtral --world %s", list);
  CHECK_EQ_I64(r.code, 2);
  CHECK_STR_HAS(r.err, "at most 1024 values");
  program_run_free(&r);
}

TEST(the_largest_shape_is_planned_or_refused) {
#define LARGEST                                                                            \
  "plan --hidden 1048576 --intermediate 1048576 --experts 65534 --top-k 1024 --mode bf16 " \
  "--world 65536 --rank 65535 --max-tokens 2147483647 --combine per_slot --return-dtype f32 "
  json_t *root = run_json(LARGEST "--wave-tokens 1 --chunk-rows 1");
  check_sums(plan_at(root, 0), 128);
  CHECK_EQ_I64(integer(plan_at(root, 0), "local_experts"), 0);
  json_decref(root);
  struct program_run r = run(LARGEST "--wave-tokens 2147483647 --chunk-rows 2147483647");
  CHECK(r.code == 0 || r.code == 2);
  CHECK_EQ_I64(r.code == 2, r.err[0] != '\0');
  program_run_free(&r);
#undef LARGEST
}

TEST(the_table_is_readable) {
  for (int m = 0; m < NUM_MODELS; ++m) {
    struct program_run one = run("plan --model %s --world 4", models[m]);
    struct program_run many = run("plan --model %s --world 1..1024", models[m]);
    CHECK_EQ_I64(one.code, 0);
    CHECK_EQ_I64(many.code, 0);
    check_readable(one.out);
    check_readable(many.out);
    CHECK_STR_HAS(one.out, models[m]);
    CHECK_STR_HAS(one.out, ", rank 0 of 4\n");
    CHECK_STR_HAS(one.out, "\nExchange memory ");
    CHECK_STR_HAS(one.out, "\nScratch ");
    CHECK_STR_HAS(one.out, "\n  expert_out ");
    CHECK_STR_HAS(one.out, " W * C\n");
    CHECK_STR_HAS(one.out, "predicted to exchange in");
    CHECK_STR_HAS(many.out, "\n   1024  ");
    program_run_free(&one);
    program_run_free(&many);
  }
}

TEST(the_table_says_why_this_strategy) {
  struct program_run r = run("plan --model mixtral --world 4 --strategy fixed");
  CHECK_STR_HAS(r.out, "fixed, as asked; predicted exchange: exact ");
  program_run_free(&r);
  r = run("plan --model mixtral --world 1");
  CHECK_STR_HAS(r.out, "one rank exchanges nothing");
  program_run_free(&r);
}

/* ---- info ---- */

TEST(info_shows_library_and_host) {
  json_t *root = run_json("info");
  const json_t *host = json_object_get(root, "host");
  CHECK_EQ_STR(text(root, "version"), sy_version());
  CHECK_EQ_STR(text(root, "backend"), sy_backend());
  CHECK_EQ_STR(json_string_value(json_array_get(json_object_get(root, "backends"), 0)), "cpu");
  CHECK_EQ_STR(json_string_value(json_array_get(json_object_get(root, "transports"), 0)), "local");
  CHECK_EQ_I64(integer(root, "world"), 1);
  CHECK_EQ_I64(integer(root, "hosts"), 1);
  CHECK_EQ_U64(json_array_size(json_object_get(root, "ranks")), 1);
  CHECK_EQ_I64(integer(host, "hardware_threads"), sysconf(_SC_NPROCESSORS_CONF));
  CHECK(integer(host, "usable_cores") >= 1);
  CHECK(integer(host, "usable_cores") <= integer(host, "cores"));
  CHECK(integer(host, "usable_hardware_threads") <= integer(host, "hardware_threads"));
  CHECK_EQ_I64(integer(host, "memory_bytes"),
               (int64_t)sysconf(_SC_PHYS_PAGES) * (int64_t)sysconf(_SC_PAGESIZE));
  CHECK(integer(host, "numa_nodes") >= 1);
  CHECK(text(host, "usable_list")[0] != '\0');
  json_decref(root);
}

TEST(info_is_readable) {
  struct program_run r = run("info");
  CHECK_EQ_I64(r.code, 0);
  CHECK_EQ_STR(r.err, "");
  check_readable(r.out);
  CHECK_STR_HAS(r.out, sy_version());
  char level[64]; /* the table wraps the sentence behind it */
  snprintf(level, sizeof level, "%.*s", (int)strcspn(sy_backend(), " "), sy_backend());
  CHECK_STR_HAS(r.out, level);
  CHECK_STR_HAS(r.out, " usable here (hardware threads: ");
  program_run_free(&r);
}

TEST(info_says_when_the_level_asked_for_is_unknown) {
  setenv("SWITCHYARD_CPU_LEVEL", "z80", 1);
  struct program_run r = run("info");
  CHECK_EQ_I64(r.code, 0);
  CHECK_STR_HAS(r.out, "SWITCHYARD_CPU_LEVEL is 'z80'");
  program_run_free(&r);
  unsetenv("SWITCHYARD_CPU_LEVEL");
}
