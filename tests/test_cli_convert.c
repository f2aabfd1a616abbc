/* switchyard convert, alone and under mpirun: the same files from any number of ranks, nothing half
 * after a kill, one sentence after an error. SWITCHYARD_PROGRAM is the program; MPIRUN starts ranks,
 * where there is MPI. */
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/checkpoint_writer.h"
#include "tests/support/harness.h"
#include "tests/support/program.h"

/* Many small layers: there is always one more to write. */
static const struct written_sizes sizes = {
    .layers = 48, .hidden = 64, .intermediate = 32, .experts = 2, .top_k = 1};

static bool has_mpi(void) { return MPIRUN[0] != '-'; } /* else options without a program */

/* What MPI and hwloc leak is not this program's. */
__attribute__((constructor)) static void ignore_leaks(void) {
  setenv("ASAN_OPTIONS", "detect_leaks=0", 1);
}

/* world 0: without mpirun. */
static const char *command(int world, const struct written_model *in,
                           const struct written_model *out) {
  static char line[1024];
  char start[512] = "";
  if (world > 0) {
    snprintf(start, sizeof start, "%s %d ", MPIRUN, world);
  }
  snprintf(line, sizeof line, "%s%s convert --model %s --output %s --to nvfp4", start,
           SWITCHYARD_PROGRAM, in->folder, out->folder);
  return line;
}

static void check_converts(int world, const struct written_model *in,
                           const struct written_model *out) {
  struct program_run r = program_run(command(world, in, out));
  if (!CHECK_EQ_I64(r.code, 0)) {
    printf("%s", r.err);
  }
  CHECK_EQ_STR(r.out, "");
  CHECK_STR_HAS(r.err, "converting: ");
  program_run_free(&r);
}

static int count_files(const struct written_model *out, const char *end) {
  int count = 0;
  DIR *folder = opendir(out->folder);
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    const char *found = strstr(entry->d_name, end);
    count += found != NULL && strlen(found) == strlen(end);
  }
  closedir(folder);
  return count;
}

static char *read_file(const char *path, size_t *bytes_out) {
  struct stat info = {0};
  FILE *file = fopen(path, "rb");
  if (!CHECK(file != NULL && stat(path, &info) == 0)) {
    exit(1);
  }
  char *text = calloc((size_t)info.st_size + 1, 1);
  CHECK(fread(text, 1, (size_t)info.st_size, file) == (size_t)info.st_size);
  fclose(file);
  *bytes_out = (size_t)info.st_size;
  return text;
}

/* Every file of one is in the other, and no other. */
static void check_same(const struct written_model *a, const struct written_model *b) {
  CHECK_EQ_I64(count_files(a, ""), count_files(b, ""));
  DIR *folder = opendir(a->folder);
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    if (entry->d_name[0] == '.') {
      continue;
    }
    size_t a_bytes = 0;
    size_t b_bytes = 0;
    char *a_text = read_file(written_path(a, entry->d_name), &a_bytes);
    char *b_text = read_file(written_path(b, entry->d_name), &b_bytes);
    if (CHECK_EQ_U64(a_bytes, b_bytes)) {
      CHECK_EQ_BYTES(a_text, b_text, a_bytes);
    }
    free(a_text);
    free(b_text);
  }
  closedir(folder);
}

static struct written_model *make_folder(void) {
  return written_model_create(&(struct written_sizes){0});
}

TEST(any_number_of_ranks_writes_the_same) {
  if (!has_mpi()) {
    SKIP("built without MPI");
  }
  struct written_model *in = written_model_create(&sizes);
  struct written_model *alone = make_folder();
  struct written_model *three = make_folder();
  written_model_save(in, 3);
  check_converts(0, in, alone);
  check_converts(3, in, three);
  CHECK_EQ_I64(count_files(alone, ".safetensors"), sizes.layers);
  check_same(alone, three);
  written_model_destroy(in);
  written_model_destroy(alone);
  written_model_destroy(three);
}

/* Kills a run: its one process, or at once the ranks that mpirun has started; it then ends too. */
static void kill_run(int world, pid_t child) {
  if (world == 0) {
    kill(child, SIGKILL);
    return;
  }
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)child, (int)child);
  FILE *children = fopen(path, "r");
  if (!CHECK(children != NULL)) {
    return;
  }
  for (int rank; fscanf(children, "%d", &rank) == 1;) {
    kill(rank, SIGKILL);
  }
  fclose(children);
}

/* Starts a conversion and kills it when its first shard is whole. Whether it was still at work. */
static bool interrupt(int world, const struct written_model *in, const struct written_model *out) {
  const struct timespec pause = {.tv_nsec = 200000};
  const pid_t child = program_start(command(world, in, out));
  int status = 0;
  pid_t ended = 0;
  if (!CHECK(child != 0)) {
    return false;
  }
  while (count_files(out, ".ready") == 0 && (ended = waitpid(child, &status, WNOHANG)) == 0) {
    nanosleep(&pause, NULL);
  }
  if (ended == 0) {
    kill_run(world, child);
    waitpid(child, &status, 0);
  }
  return count_files(out, "config.json") == 0;
}

static void check_interrupted(int world) {
  struct written_model *in = written_model_create(&sizes);
  struct written_model *whole = make_folder();
  struct written_model *broken = make_folder();
  written_model_save(in, 1);
  check_converts(0, in, whole);
  bool caught = interrupt(world, in, broken);
  for (int tries = 0; !caught && tries < 5; ++tries) { /* it was too quick */
    written_model_destroy(broken);
    broken = make_folder();
    caught = interrupt(world, in, broken);
  }
  if (CHECK(caught)) {
    CHECK(count_files(broken, ".ready") > 0);
    CHECK_EQ_I64(count_files(broken, "convert.unfinished.json"), 1);
    check_converts(world, in, broken);
    check_same(whole, broken);
  }
  written_model_destroy(in);
  written_model_destroy(whole);
  written_model_destroy(broken);
}

TEST(a_killed_run_is_taken_up) { check_interrupted(0); }

TEST(three_killed_ranks_are_taken_up) {
  if (!has_mpi()) {
    SKIP("built without MPI");
  }
  check_interrupted(3);
}

/* The second layer has a tensor too large for any file here. */
TEST(a_file_that_cannot_be_written_ends_the_run) {
  struct written_model *in = written_model_create(&(struct written_sizes){
      .layers = 3, .hidden = 64, .intermediate = 32, .experts = 2, .top_k = 1});
  struct written_model *out = make_folder();
  const int64_t shape[] = {1 << 20};
  written_tensor_add(in, "model.layers.1.large", "U8", 1, shape, 1 << 20, NULL);
  written_model_save(in, 1);
  struct rlimit before;
  CHECK(getrlimit(RLIMIT_FSIZE, &before) == 0);
  const struct rlimit small = {.rlim_cur = 1 << 19, .rlim_max = before.rlim_max};
  signal(SIGXFSZ, SIG_IGN); /* the program then sees an error, as of a full disk */
  CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
  struct program_run r = program_run(command(0, in, out));
  CHECK(setrlimit(RLIMIT_FSIZE, &before) == 0);
  CHECK_EQ_I64(r.code, 3);
  CHECK_STR_HAS(r.err, "switchyard convert: ");
  CHECK_STR_HAS(r.err, "model-00002-of-00003.safetensors");
  CHECK_STR_HAS(r.err, "cannot be written at byte 524288: File too large");
  CHECK_EQ_I64(count_files(out, ".writing"), 0);
  CHECK_EQ_I64(count_files(out, "config.json"), 0);
  program_run_free(&r);
  check_converts(0, in, out);
  written_model_destroy(in);
  written_model_destroy(out);
}

TEST(what_is_wrong_is_one_sentence) {
  struct written_model *in = written_model_create(&sizes);
  struct written_model *out = make_folder();
  for (int expert = 0; expert < 2; ++expert) { /* in the shards of each rank */
    for (int layer = 0; layer < 3; ++layer) {
      ((uint16_t *)written_expert(in, layer, expert, "up")->data)[9] = 0x7FC0;
    }
  }
  written_model_save(in, 1);
  struct program_run r = program_run(command(has_mpi() ? 3 : 0, in, out));
  CHECK_EQ_I64(r.code, 3);
  CHECK_STR_HAS(r.err, "experts.0.up_proj.weight': [0, 9] is nan; expected a finite value");
  const char *first = strstr(r.err, "switchyard convert: ");
  CHECK(first != NULL && strstr(first + 1, "switchyard convert: ") == NULL);
  CHECK_EQ_I64(count_files(out, "config.json"), 0);
  if (has_mpi()) {
    CHECK_STR_HAS(r.err, "switchyard convert: rank 0: ");
    CHECK_STR_HAS(r.err, " (2 other ranks failed too)\n");
  }
  program_run_free(&r);
  written_model_destroy(in);
  written_model_destroy(out);
}

TEST(options_are_needed) {
  static const struct {
    const char *options, *part;
  } cases[] = {{"", "--model is missing"},
               {" --model x", "--output is missing"},
               {" --model x --output y", "--to is missing"},
               {" --model x --output y --to int4", "nvfp4, mxfp4"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    char line[256];
    snprintf(line, sizeof line, "%s convert%s", SWITCHYARD_PROGRAM, cases[i].options);
    struct program_run r = program_run(line);
    CHECK_EQ_I64(r.code, 2);
    CHECK_STR_HAS(r.err, cases[i].part);
    program_run_free(&r);
  }
}
