/* switchyard bench: what it prints, with its quantities counted by hand; times are only there.
 * SWITCHYARD_PROGRAM is the command that runs it, SY_TINY_MOE a checkpoint. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/harness.h"
#include "tests/support/program.h"

static struct program_run bench(const char *arguments) {
  char line[1024];
  snprintf(line, sizeof line, "%s bench %s", SWITCHYARD_PROGRAM, arguments);
  return program_run(line);
}

static int64_t integer(const json_t *object, const char *name) {
  const json_t *value = json_object_get(object, name);
  CHECK(json_is_integer(value));
  return json_integer_value(value);
}

#define BENCH_LAYER \
  "--hidden 64 --intermediate 160 --experts 5 --top-k 2 --activation swiglu_clamped --bias yes "

static void check_number(const json_t *line, const char *name, double low, double high) {
  const json_t *value = json_object_get(line, name);
  const double number = json_number_value(value);
  if (!CHECK(json_is_number(value) && number >= low && number <= high)) {
    printf("    \"%s\" is %g\n", name, number);
  }
}

/* Prints `count` lines, each a JSON object; calls `check` with each. */
static void check_json_lines(const char *arguments, size_t count,
                             void (*check)(const json_t *line, size_t index)) {
  struct program_run r = bench(arguments);
  CHECK_EQ_I64(r.code, 0);
  CHECK_EQ_STR(r.err, "");
  size_t lines = 0;
  for (char *line = strtok(r.out, "\n"); line != NULL; line = strtok(NULL, "\n")) {
    json_t *root = json_loads(line, 0, NULL);
    if (CHECK(json_is_object(root))) {
      check_number(root, "read_gbs", 1e-3, 1e6);
      check_number(root, "copy_gbs", 1e-3, 1e6);
      check_number(root, "f32_gflops", 1e-3, 1e6);
      check(root, lines);
    }
    json_decref(root);
    ++lines;
  }
  CHECK_EQ_I64((int64_t)lines, (int64_t)count);
  program_run_free(&r);
}

/* T is 1, then 3, of 2 slots each. */
static void check_calls(const json_t *line, size_t index) {
  CHECK_EQ_I64(integer(line, "wrong"), 0);
  const double routed = index == 0 ? 2.0 : 6.0;
  check_number(line, "tokens", routed / 2.0, routed / 2.0);
  check_number(line, "routed_rows", routed, routed);
  check_number(line, "active_experts", 2.0, 5.0);
  check_number(line, "operations", routed * 6.0 * 64.0 * 160.0, routed * 6.0 * 64.0 * 160.0);
  check_number(line, "weight_bytes", 2.0 * 3 * 64 * 160 * 9 / 16, 5.0 * 3 * 64 * 160 * 4);
  check_number(line, "calls", 2.0, 16.0);
  check_number(line, "min_us", 1e-3, 1e9);
  check_number(line, "p99_us", json_number_value(json_object_get(line, "p50_us")), 1e9);
  check_number(line, "share_floor", 1e-9, 1e3);
  check_number(line, "around_us", 0.0, 1e9);
}

TEST(bench_measures_the_layer_and_finds_nothing_wrong) {
  check_json_lines("layer " BENCH_LAYER "--tokens 1,3 --rounds 2 --json", 2, check_calls);
  check_json_lines("experts " BENCH_LAYER "--tokens 1,3 --rounds 2 --json --format mxfp4", 2,
                   check_calls);
  check_json_lines("experts " BENCH_LAYER
                   "--tokens 1,3 --rounds 2 --json --mode w4a16 --numerics fastest",
                   2, check_calls);
}

static void check_loads(const json_t *line, size_t index) {
  CHECK_EQ_I64((int64_t)index, 0);
  CHECK_EQ_I64(integer(line, "wrong"), 0);
  check_number(line, "calls", 3.0, 3.0);
  check_number(line, "weight_bytes", 3.0 * 64 * 160 * 2, 3.0 * 64 * 160 * 2);
  check_number(line, "share_copy", 1e-9, 1e3);
}

TEST(bench_measures_loading) {
  check_json_lines("load " BENCH_LAYER "--rounds 3 --json", 1, check_loads);
}

/* Four layers of 32 experts, three matrices each, BF16; prepacked they are as large again in mode
 * bf16, and rounded up to lines. Rates are those of the median load. */
static void check_files(const json_t *line, size_t index) {
  const double bytes = 4.0 * 32 * 3 * 256 * 128 * 2;
  const double rate = bytes / json_number_value(json_object_get(line, "p50_us")) * 1e-3;
  CHECK_EQ_I64((int64_t)index, 0);
  CHECK_EQ_STR(json_string_value(json_object_get(line, "checkpoint")), SY_TINY_MOE);
  CHECK_EQ_I64(integer(line, "layers"), 4);
  CHECK_EQ_I64(integer(line, "calls"), 2);
  CHECK_EQ_I64(integer(line, "experts"), 32);
  CHECK_EQ_STR(json_string_value(json_object_get(line, "mode")), "bf16");
  check_number(line, "weight_bytes", bytes, bytes);
  check_number(line, "bytes", 2.0 * bytes, 2.01 * bytes);
  check_number(line, "gbs", 0.999999 * rate, 1.000001 * rate);
  check_number(line, "limit_file_gbs", 1e-3, 1e6);
  check_number(line, "limit_copy_gbs", 1e-3, 1e6);
  check_number(line, "share_file", 1e-9, 1e3);
  check_number(line, "share_copy", 1e-9, 1e3);
}

TEST(bench_measures_loading_a_checkpoint) {
  check_json_lines("load --checkpoint " SY_TINY_MOE " --mode bf16 --rounds 2 --json", 1,
                   check_files);
  struct program_run r = bench("load --checkpoint " SY_TINY_MOE " --rounds 1");
  CHECK_EQ_I64(r.code, 0);
  check_readable(r.out);
  CHECK_STR_HAS(r.out, "hidden 256, intermediate 128, 32 experts, top-4, swiglu, w4a4 of nvfp4");
  CHECK_STR_HAS(r.out, "in the page cache: ");
  CHECK_STR_HAS(r.out, "     24.0 MiB       4      1  ");
  program_run_free(&r);
  r = bench("load --checkpoint /none/such");
  CHECK_EQ_I64(r.code, 3);
  CHECK_STR_HAS(r.err, "/none/such: cannot be opened");
  program_run_free(&r);
}

TEST(bench_prints_a_table_and_plots) {
  char path[64];
  snprintf(path, sizeof path, "test_cli_plot_%d.svg", (int)getpid());
  char arguments[256];
  snprintf(arguments, sizeof arguments,
           "experts " BENCH_LAYER "--mode bf16 --tokens 1..2 --rounds 1 --plot %s", path);
  struct program_run r = bench(arguments);
  CHECK_EQ_I64(r.code, 0);
  check_readable(r.out);
  CHECK_STR_HAS(r.out, "hidden 64, intermediate 160, 5 experts, top-2");
  CHECK_STR_HAS(r.out, "  wrong\n     1 ");
  program_run_free(&r);
  char svg[8192] = "";
  FILE *file = fopen(path, "r");
  if (CHECK(file != NULL)) {
    CHECK(fread(svg, 1, sizeof svg - 1, file) > 500);
    fclose(file);
  }
  CHECK_STR_HAS(svg, "<svg xmlns=");
  CHECK_STR_HAS(svg, "<polyline");
  CHECK_STR_HAS(svg, "</svg>");
  remove(path);
  r = bench("experts " BENCH_LAYER "--tokens 1 --rounds 1 --plot /none/such.svg");
  CHECK_EQ_I64(r.code, 1);
  CHECK_STR_HAS(r.err, "--plot '/none/such.svg' cannot be written");
  program_run_free(&r);
}
