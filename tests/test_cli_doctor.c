/* `switchyard doctor` under mpirun: what it writes is read elsewhere, and what would break a job ends
 * it with 1. MPIRUN, SWITCHYARD_PROGRAM: as in test_cli_mpi.c; SY_TINY_MOE is a checkpoint. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/support/harness.h"
#include "tests/support/program.h"

static struct program_run run(int ranks, const char *arguments) {
  char line[2048];
  setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* MPI's own are not this program's */
  snprintf(line, sizeof line, "%s %d %s doctor %s", MPIRUN, ranks, SWITCHYARD_PROGRAM, arguments);
  return program_run(line);
}

static double number(const json_t *object, const char *name) {
  const json_t *value = json_object_get(object, name);
  if (!CHECK(json_is_number(value))) {
    printf("    no number \"%s\"\n", name);
  }
  return json_number_value(value);
}

/* The finding of a topic; NULL: there is none. */
static const json_t *finding_of(const json_t *root, const char *topic) {
  const json_t *findings = json_object_get(root, "findings");
  for (size_t i = 0; i < json_array_size(findings); ++i) {
    const json_t *finding = json_array_get(findings, i);
    const char *found = json_string_value(json_object_get(finding, "topic"));
    if (found != NULL && strcmp(found, topic) == 0) {
      return finding;
    }
  }
  return NULL;
}

static const char *text_of(const json_t *object, const char *name) {
  const char *text = json_string_value(json_object_get(object, name));
  return text != NULL ? text : "";
}

TEST(every_pair_and_rank_is_measured) {
  struct program_run r = run(3, "--json --checkpoint " SY_TINY_MOE);
  json_t *root = json_loads(r.out, 0, NULL);
  CHECK_EQ_I64(r.code, 0);
  CHECK(json_is_true(json_object_get(root, "would_run")));
  const json_t *pairs = json_object_get(root, "pairs");
  const json_t *ranks = json_object_get(root, "ranks");
  CHECK_EQ_U64(json_array_size(pairs), 3);
  CHECK_EQ_U64(json_array_size(ranks), 3);
  for (size_t i = 0; i < 3; ++i) {
    CHECK(number(json_array_get(pairs, i), "latency_us") > 0.0);
    CHECK(number(json_array_get(pairs, i), "bandwidth_gbs") > 0.0);
    CHECK(json_is_true(json_object_get(json_array_get(pairs, i), "same_host")));
    CHECK(number(json_array_get(ranks, i), "all_to_all_gbs") > 0.0);
    CHECK(number(json_array_get(ranks, i), "memory_available_bytes") > 0.0);
    CHECK(number(json_array_get(ranks, i), "memory_needed_bytes") > 0.0);
  }
  CHECK_EQ_STR(text_of(json_object_get(root, "strategy"), "auto"), "exact");
  CHECK_STR_HAS(text_of(finding_of(root, "checkpoint"), "text"), "the same on all ranks");
  json_decref(root);
  program_run_free(&r);
}

TEST(a_plan_takes_the_figures_that_were_measured) {
  char path[] = "/tmp/switchyard_link_XXXXXX";
  char line[1024];
  const int file = mkstemp(path);
  if (!CHECK(file >= 0)) {
    return;
  }
  close(file);
  snprintf(line, sizeof line, "--write-link %s", path);
  struct program_run r = run(2, line);
  CHECK_EQ_I64(r.code, 0);
  CHECK_STR_HAS(r.out, "Doctor  2 ranks on 1 host\n");
  CHECK_STR_HAS(r.out, "\nauto takes exact");
  program_run_free(&r);
  json_t *measured = json_load_file(path, 0, NULL);
  const json_t *level = json_object_get(measured, "in_host");
  CHECK_EQ_I64((int64_t)number(measured, "measured_ranks"), 2);
  CHECK(json_object_get(measured, "between_hosts") == NULL);
  snprintf(line, sizeof line, "%s plan --model tiny-moe --world 2 --json --link %s",
           SWITCHYARD_PROGRAM, path);
  r = program_run(line);
  CHECK_EQ_I64(r.code, 0);
  json_t *plan = json_loads(r.out, 0, NULL);
  const json_t *link = json_object_get(json_object_get(plan, "request"), "link");
  CHECK_NEAR(number(json_object_get(link, "in_host"), "latency_us"), number(level, "latency_us"),
             0.0);
  CHECK_NEAR(number(json_object_get(link, "in_host"), "bandwidth_gbs"),
             number(level, "bandwidth_gbs"), 0.0);
  json_decref(plan);
  json_decref(measured);
  program_run_free(&r);
  unlink(path);
}

/* A copy of the checkpoint's small files, one byte changed. */
static bool copy_checkpoint(const char *folder) {
  char path[300];
  char text[4096];
  snprintf(path, sizeof path, "%s/config.json", SY_TINY_MOE);
  FILE *from = fopen(path, "r");
  snprintf(path, sizeof path, "%s/config.json", folder);
  FILE *to = fopen(path, "w");
  if (!CHECK(from != NULL && to != NULL)) {
    return false;
  }
  const size_t bytes = fread(text, 1, sizeof text, from);
  CHECK(fwrite(text, 1, bytes, to) == bytes && fwrite("\n", 1, 1, to) == 1);
  fclose(from);
  fclose(to);
  snprintf(path, sizeof path, "%s/model.safetensors", folder);
  return CHECK(symlink(SY_TINY_MOE "/model.safetensors", path) == 0);
}

TEST(what_would_break_the_job_ends_with_1) {
  struct program_run r = run(2, "--model deepseek-v3 --layers 4096");
  CHECK_EQ_I64(r.code, 1);
  CHECK_STR_HAS(r.out, "BROKEN   memory");
  program_run_free(&r);
  r = run(2, "--checkpoint /no/where");
  CHECK_EQ_I64(r.code, 1);
  CHECK_STR_HAS(r.out, "BROKEN   checkpoint  rank 0: /no/where");
  program_run_free(&r);
  r = run(1, "--gpus --json");
  json_t *root = json_loads(r.out, 0, NULL);
  const json_t *rank = json_array_get(json_object_get(root, "ranks"), 0);
  const bool has_gpu = number(rank, "gpus") > 0.0 && number(rank, "nccl") > 0.0;
  CHECK_EQ_I64(r.code, has_gpu ? 0 : 1);
  json_decref(root);
  program_run_free(&r);
  r = run(2, "--max-tokens 0");
  CHECK_EQ_I64(r.code, 2);
  CHECK_STR_HAS(r.err, "--max-tokens '0' is out of range");
  program_run_free(&r);
}

TEST(another_checkpoint_on_one_rank_is_named) {
  char folder[] = "/tmp/switchyard_checkpoint_XXXXXX";
  char line[2048];
  if (!CHECK(mkdtemp(folder) != NULL) || !copy_checkpoint(folder)) {
    return;
  }
  snprintf(line, sizeof line, "%s 2 %s doctor --checkpoint %s : -n 1 %s doctor --checkpoint %s",
           MPIRUN, SWITCHYARD_PROGRAM, SY_TINY_MOE, SWITCHYARD_PROGRAM, folder);
  struct program_run r = program_run(line);
  CHECK_EQ_I64(r.code, 1);
  CHECK_STR_HAS(r.out, "BROKEN   checkpoint  rank 2: other files than rank 0 has in");
  program_run_free(&r);
  snprintf(line, sizeof line, "%s/config.json", folder);
  unlink(line);
  snprintf(line, sizeof line, "%s/model.safetensors", folder);
  unlink(line);
  rmdir(folder);
}
