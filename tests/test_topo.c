/* `switchyard topo`: the table as JSON, the picture, and what it refuses. SY_TOPOLOGIES is the folder
 * of machines, SWITCHYARD_PROGRAM the command that runs the program. */
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/harness.h"
#include "tests/support/program.h"

#define TOPOLOGY(name) " --topology " SY_TOPOLOGIES "/" name ".xml"

static struct program_run run(const char *format, ...) __attribute__((format(printf, 1, 2)));

static struct program_run run(const char *format, ...) {
  static char line[4096];
  const int used = snprintf(line, sizeof line, "%s topo", SWITCHYARD_PROGRAM);
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line + used, sizeof line - (size_t)used, format, arguments);
  va_end(arguments);
  unsetenv("CUDA_VISIBLE_DEVICES");
  return program_run(line);
}

static json_t *run_json(const char *arguments) {
  struct program_run r = run("%s --json", arguments);
  CHECK_EQ_I64(r.code, 0);
  CHECK_EQ_STR(r.err, "");
  json_t *root = json_loads(r.out, 0, NULL);
  CHECK(root != NULL);
  program_run_free(&r);
  return root;
}

static const char *text_at(const json_t *list, size_t index, const char *key) {
  const char *text = json_string_value(json_object_get(json_array_get(list, index), key));
  return text != NULL ? text : "";
}

static int64_t integer_at(const json_t *list, size_t index, const char *key) {
  return json_integer_value(json_object_get(json_array_get(list, index), key));
}

TEST(json_tells_every_rank) {
  json_t *root = run_json(TOPOLOGY("rtx8"));
  const json_t *ranks = json_object_get(root, "ranks");
  CHECK_EQ_STR(json_string_value(json_object_get(root, "host")), "rtx8");
  CHECK_EQ_U64(json_array_size(json_object_get(root, "gpus")), 8);
  CHECK_EQ_U64(json_array_size(json_object_get(root, "nics")), 5);
  CHECK_EQ_U64(json_array_size(ranks), 8);
  CHECK_EQ_STR(text_at(ranks, 5, "hardware_threads"), "40-47,104-111");
  CHECK_EQ_I64(integer_at(ranks, 5, "gpu"), 5);
  CHECK_EQ_I64(integer_at(ranks, 5, "threads"), 8);
  CHECK_EQ_STR(text_at(json_object_get(root, "variables"), 2, "name"), "NCCL_P2P_LEVEL");
  json_decref(root);
}

TEST(hosts_multiply_the_ranks) {
  json_t *root = run_json(TOPOLOGY("spark") " --hosts 4");
  const json_t *ranks = json_object_get(root, "ranks");
  CHECK_EQ_U64(json_array_size(ranks), 4);
  CHECK_EQ_I64(integer_at(ranks, 3, "host"), 3);
  CHECK_EQ_I64(integer_at(ranks, 3, "gpu"), 0);
  CHECK_EQ_U64(json_array_size(json_object_get(json_array_get(ranks, 3), "nics")), 2);
  json_decref(root);
}

TEST(what_the_user_has_set_is_found) {
  setenv("OMP_NUM_THREADS", "3", 1);
  setenv("NCCL_P2P_LEVEL", "PIX", 1);
  struct program_run r = run(TOPOLOGY("rtx8"));
  CHECK_STR_HAS(r.out, "OMP_NUM_THREADS asks for 3 threads a rank");
  CHECK_STR_HAS(r.out, "NCCL_P2P_LEVEL=PIX\n      yours, kept; ");
  program_run_free(&r);
  unsetenv("OMP_NUM_THREADS");
  unsetenv("NCCL_P2P_LEVEL");
  r = run(TOPOLOGY("container"));
  CHECK_STR_HAS(r.out, "the cgroup /kubepods/pod7f9c allows hardware threads 5-12,21-27");
  program_run_free(&r);
}

/* A rectangle of its own for each core, a closed document, and no name unescaped. */
static void check_picture(const char *path, int cores) {
  static char svg[1 << 18];
  FILE *file = fopen(path, "r");
  if (!CHECK(file != NULL)) {
    return;
  }
  svg[fread(svg, 1, sizeof svg - 1, file)] = '\0';
  fclose(file);
  int squares = 0;
  int open = 0;
  for (const char *at = svg; (at = strchr(at, '<')) != NULL; ++at) {
    const char *end = strchr(at, '>');
    if (!CHECK(end != NULL)) {
      return;
    }
    squares += strncmp(at, "<rect", 5) == 0 && strstr(at, "width=\"22\" height=\"22\"") != NULL &&
                       strstr(at, "width=\"22\" height=\"22\"") < end
                   ? 1
                   : 0;
    open += at[1] == '/' ? -1 : end[-1] == '/' ? 0 : 1;
  }
  CHECK_EQ_I64(squares, cores);
  CHECK_EQ_I64(open, 0);
  CHECK(strncmp(svg, "<svg ", 5) == 0);
}

TEST(the_picture_has_every_core) {
  static const struct {
    const char *arguments;
    int cores;
  } pictures[] = {{TOPOLOGY("desktop"), 8},
                  {TOPOLOGY("rtx8") " --ranks 10", 64},
                  {TOPOLOGY("spark") " --hosts 4", 20},
                  {TOPOLOGY("ci") " --ranks 3 --oversubscribe", 2},
                  {TOPOLOGY("container"), 8}};
  for (size_t i = 0; i < sizeof pictures / sizeof pictures[0]; ++i) {
    char path[] = "/tmp/switchyard_picture_XXXXXX";
    const int file = mkstemp(path);
    if (!CHECK(file >= 0)) {
      return;
    }
    close(file);
    struct program_run r = run("%s --svg %s", pictures[i].arguments, path);
    CHECK_EQ_I64(r.code, 0);
    CHECK_EQ_STR(r.err, "");
    check_picture(path, pictures[i].cores);
    unlink(path);
    program_run_free(&r);
  }
}

TEST(this_machine_survives_its_own_export) {
  char path[] = "/tmp/switchyard_export_XXXXXX";
  const int file = mkstemp(path);
  if (!CHECK(file >= 0)) {
    return;
  }
  close(file);
  struct program_run live = run(" --ranks 1 --export %s", path);
  CHECK_EQ_I64(live.code, 0);
  struct program_run again = run(" --ranks 1 --topology %s", path);
  CHECK_EQ_I64(again.code, 0);
  CHECK_STR_HAS(again.out, "1 rank\n");
  unlink(path);
  program_run_free(&live);
  program_run_free(&again);
}

TEST(wrong_options_and_files_are_refused) {
  static const struct {
    const char *arguments;
    int code;
    const char *part;
  } cases[] = {
      {TOPOLOGY("ci") " --ranks 3", 2,
       "--ranks 3 exceeds the machine's 2 usable cores; --oversubscribe lets them share"},
      {TOPOLOGY("ci") " --ranks 0", 2, "--ranks '0' is out of range; allowed: 1..4096"},
      {TOPOLOGY("ci") " --devices gpu", 2, "no GPU: the machine has 0"},
      {TOPOLOGY("nowhere"), 3, "nowhere.xml' cannot be read: No such file"},
      {" --topology " SY_TOPOLOGIES "/README.md", 3, "is not a file of hwloc in XML"},
      {TOPOLOGY("ci") " --svg /no/where.svg", 1, "--svg '/no/where.svg' cannot be written"},
      {TOPOLOGY("ci") " --svg /dev/full", 1, "--svg '/dev/full' cannot be written"},
      {TOPOLOGY("ci") " --export /no/where.xml", 1, "--export '/no/where.xml' cannot be written"},
      {" --topologie x", 2, "did you mean --topology?"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct program_run r = run("%s", cases[i].arguments);
    CHECK_EQ_I64(r.code, cases[i].code);
    CHECK_EQ_STR(r.out, "");
    CHECK_STR_HAS(r.err, cases[i].part);
    program_run_free(&r);
  }
}
