/* The command line under mpirun: rank 0 prints, errors say their rank once. MPIRUN starts ranks
 * ("mpirun … -n"); SWITCHYARD_PROGRAM is the program. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/support/harness.h"
#include "tests/support/program.h"

/* `ranks` copies of one command. MPI's own leaks are not this program's. */
static struct program_run run(int ranks, const char *arguments) {
  char line[1024];
  setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  snprintf(line, sizeof line, "%s %d %s %s", MPIRUN, ranks, SWITCHYARD_PROGRAM, arguments);
  return program_run(line);
}

/* One rank runs the first command, two run the second. */
static struct program_run run_mixed(const char *first, const char *second) {
  char line[1024];
  setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
  snprintf(line, sizeof line, "%s 1 %s %s : -n 2 %s %s", MPIRUN, SWITCHYARD_PROGRAM, first,
           SWITCHYARD_PROGRAM, second);
  return program_run(line);
}

static int count_of(const char *text, const char *part) {
  int count = 0;
  for (const char *at = text; (at = strstr(at, part)) != NULL; ++at) {
    ++count;
  }
  return count;
}

TEST(info_gathers_all_ranks) {
  struct program_run r = run(3, "info --json");
  CHECK_EQ_I64(r.code, 0);
  json_t *root = json_loads(r.out, 0, NULL); /* fails when more than one document is printed */
  CHECK(root != NULL);
  const json_t *ranks = json_object_get(root, "ranks");
  CHECK_EQ_I64(json_integer_value(json_object_get(root, "world")), 3);
  CHECK_EQ_I64(json_integer_value(json_object_get(root, "hosts")), 1);
  CHECK_EQ_U64(json_array_size(ranks), 3);
  for (size_t i = 0; i < 3; ++i) {
    const json_t *rank = json_array_get(ranks, i);
    CHECK_EQ_I64(json_integer_value(json_object_get(rank, "rank")), (int64_t)i);
    CHECK(json_integer_value(json_object_get(rank, "usable_cores")) >= 1);
    CHECK_EQ_STR(json_string_value(json_object_get(rank, "backend")), sy_backend());
  }
  json_decref(root);
  program_run_free(&r);
  r = run(3, "info");
  CHECK_EQ_I64(r.code, 0);
  CHECK_EQ_I64(count_of(r.out, "Switchyard "), 1);
  CHECK_STR_HAS(r.out, "3 ranks on 1 host\n");
  program_run_free(&r);
}

/* The parts of a list "0-3,8" that mpirun and hwloc print alike, for each rank of an `info --json`. */
static void check_places(const char *out, const char *part, bool disjoint) {
  json_t *root = json_loads(out, 0, NULL);
  const json_t *ranks = json_object_get(root, "ranks");
  CHECK_EQ_U64(json_array_size(ranks), 2);
  const char *lists[2] = {"", ""};
  for (size_t i = 0; i < json_array_size(ranks) && i < 2; ++i) {
    const json_t *rank = json_array_get(ranks, i);
    CHECK_STR_HAS(json_string_value(json_object_get(rank, "place")), part);
    lists[i] = json_string_value(json_object_get(rank, "usable_list"));
  }
  CHECK_EQ_I64(strcmp(lists[0], lists[1]) != 0, disjoint);
  json_decref(root);
}

TEST(ranks_take_cores_of_their_own_unless_told_otherwise) {
  struct program_run r = run(2, "info --json");
  if (strstr(r.out, "2 ranks share 1 core") != NULL) {
    program_run_free(&r);
    SKIP("two ranks with cores of their own need two cores");
  }
  CHECK_EQ_I64(r.code, 0);
  check_places(r.out, "bound to hardware threads ", true);
  program_run_free(&r);
  setenv("SWITCHYARD_BIND", "none", 1);
  r = run(2, "info --json");
  check_places(r.out, "not bound: SWITCHYARD_BIND=none", false);
  program_run_free(&r);
  setenv("SWITCHYARD_BIND", "tight", 1);
  r = run(2, "info --json");
  CHECK_EQ_I64(r.code, 2);
  CHECK_EQ_I64(count_of(r.err, "ranks 0-1: SWITCHYARD_BIND is 'tight'; allowed: auto, none"), 1);
  program_run_free(&r);
  unsetenv("SWITCHYARD_BIND");
}

TEST(what_mpirun_and_openmp_have_bound_stays) {
  struct program_run r =
      program_run("mpirun --oversubscribe --bind-to core -n 2 " SWITCHYARD_PROGRAM " info --json");
  if (r.code != 0) {
    program_run_free(&r);
    SKIP("mpirun cannot bind to cores here");
  }
  CHECK_STR_HAS(r.out, "left as it was bound by mpirun, as it was told");
  program_run_free(&r);
  setenv("OMP_PROC_BIND", "close", 1);
  r = run(2, "info --json");
  CHECK_STR_HAS(r.out, "left as it was bound by OMP_PROC_BIND");
  program_run_free(&r);
  unsetenv("OMP_PROC_BIND");
}

TEST(plan_is_printed_once_for_the_world_that_runs) {
  struct program_run r = run(3, "plan --model tiny-moe");
  CHECK_EQ_I64(r.code, 0);
  CHECK_EQ_I64(count_of(r.out, "Plan for tiny-moe, rank 0 of 3\n"), 1);
  CHECK_EQ_I64(count_of(r.out, "Plan"), 1);
  CHECK_EQ_I64(count_of(r.out, "\033"), 0);
  program_run_free(&r);
}

TEST(help_and_version_are_printed_once) {
  struct program_run r = run(3, "plan --help");
  CHECK_EQ_I64(r.code, 0);
  CHECK_EQ_I64(count_of(r.out, "Usage:"), 1);
  program_run_free(&r);
  r = run(3, "--version");
  CHECK_EQ_I64(r.code, 0);
  CHECK_EQ_I64(count_of(r.out, "switchyard"), 1);
  program_run_free(&r);
}

TEST(an_error_of_all_ranks_is_printed_once) {
  struct program_run r = run(3, "plan --hidden 17");
  CHECK_EQ_I64(r.code, 2);
  CHECK_EQ_STR(r.out, "");
  CHECK_EQ_I64(count_of(r.err, "switchyard plan: "), 1);
  CHECK_STR_HAS(r.err, "switchyard plan: ranks 0-2: --hidden '17' is not a multiple of 16");
  program_run_free(&r);
}

TEST(an_error_of_one_rank_ends_all_and_names_it) {
  struct program_run r = run_mixed("plan --model mixtral --rank 9", "plan --model mixtral");
  CHECK_EQ_I64(r.code, 2);
  CHECK_EQ_STR(r.out, "");
  CHECK_EQ_I64(count_of(r.err, "switchyard plan: "), 1);
  CHECK_STR_HAS(r.err, "switchyard plan: rank 0: --rank 9 does not exist in --world 3");
  program_run_free(&r);
  r = run_mixed("info", "info --jsn");
  CHECK_EQ_I64(r.code, 2);
  CHECK_EQ_STR(r.out, "");
  CHECK_STR_HAS(r.err, "switchyard info: ranks 1-2: --jsn is not an option");
  program_run_free(&r);
}

TEST(a_wrong_checkpoint_is_one_sentence) {
  struct program_run r = run(3, "inspect --model /nowhere");
  CHECK_EQ_I64(r.code, 3);
  CHECK_EQ_STR(r.out, "");
  CHECK_EQ_I64(count_of(r.err, "switchyard inspect: "), 1);
  CHECK_STR_HAS(r.err, "switchyard inspect: ranks 0-2: /nowhere");
  program_run_free(&r);
}

TEST(ranks_with_different_commands_do_not_hang) {
  struct program_run r = run_mixed("plan --model mixtral", "info");
  CHECK_EQ_I64(r.code, 2);
  CHECK_STR_HAS(r.err, "all ranks must run the same command; rank 1 runs 'switchyard info'");
  program_run_free(&r);
  r = run_mixed("info --help", "info");
  CHECK_EQ_I64(r.code, 0);
  CHECK_EQ_I64(count_of(r.out, "Usage:"), 1);
  CHECK_EQ_I64(count_of(r.out, "Backends"), 0);
  program_run_free(&r);
}
