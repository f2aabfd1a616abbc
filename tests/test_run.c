/* The parts of switchyard-run that need no ranks: hosts, reports, outcomes, folders, the line. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "launch/run/hosts.h"
#include "launch/run/job.h"
#include "launch/run/line.h"
#include "launch/run/outcome.h"
#include "launch/run/report.h"
#include "launch/run/run.h"
#include "tests/support/harness.h"

/* ---- Hosts ---------------------------------------------------------------------------------- */

static void check_list(const char *list, int64_t num_hosts, int64_t num_slots) {
  struct hosts hosts;
  char error[HOSTS_ERROR_BYTES] = "";
  if (CHECK(hosts_find(list, NULL, &hosts, error))) {
    CHECK_EQ_I64(hosts.source, HOSTS_LISTED);
    CHECK_EQ_I64(hosts.num_hosts, num_hosts);
    CHECK_EQ_I64(hosts.num_slots, num_slots);
    CHECK_EQ_STR(hosts.text, list);
  }
}

static void check_bad_list(const char *list, const char *said) {
  struct hosts hosts = {.num_slots = 77};
  char error[HOSTS_ERROR_BYTES] = "";
  CHECK(!hosts_find(list, NULL, &hosts, error));
  CHECK_STR_HAS(error, said);
  CHECK_EQ_I64(hosts.num_slots, 77);
}

TEST(hosts_are_listed_with_their_ranks) {
  check_list("a:4,b:4", 2, 8);
  check_list("a", 1, 1);
  check_list("10.0.0.1:65536,host-2.lan", 2, 65537);
  check_bad_list("a:0", "'0' is not a number of ranks");
  check_bad_list("a:4x", "'4x' is not a number of ranks");
  check_bad_list("a:65537", "'65537' is not a number of ranks");
  check_bad_list("a:", "'' is not a number of ranks");
  check_bad_list("", "'' is not the name of a host");
  check_bad_list("a,,b", "'' is not the name of a host");
  check_bad_list("a b:2", "'a b' is not the name of a host");
  check_bad_list("-x:2", "'-x' is not the name of a host");
}

static bool find_in_file(const char *text, struct hosts *hosts, char error[HOSTS_ERROR_BYTES]) {
  char path[] = "/tmp/sy-hostfile-XXXXXX";
  const int file = mkstemp(path);
  const bool written = CHECK(file >= 0 && write(file, text, strlen(text)) == (ssize_t)strlen(text));
  close(file);
  const bool found = written && hosts_find(NULL, path, hosts, error);
  unlink(path);
  return found;
}

TEST(a_host_file_is_read) {
  struct hosts hosts;
  char error[HOSTS_ERROR_BYTES] = "";
  CHECK(find_in_file("# two Sparks\nspark1 slots=2\n\n  spark2\tslots=1 max_slots=4 # why\nx\n",
                     &hosts, error));
  CHECK_EQ_I64(hosts.source, HOSTS_FILE);
  CHECK_EQ_I64(hosts.num_hosts, 3);
  CHECK_EQ_I64(hosts.num_slots, 4);
  CHECK(!find_in_file("a slots=none\n", &hosts, error));
  CHECK_STR_HAS(error, "'slots=none' is not a number of ranks");
  CHECK(!find_in_file("a 4\n", &hosts, error));
  CHECK_STR_HAS(error, "'4' is not understood");
  CHECK(!find_in_file("# nobody\n", &hosts, error));
  CHECK_STR_HAS(error, "names no host");
  CHECK(!hosts_find(NULL, "/no/such/file", &hosts, error));
  CHECK_STR_HAS(error, "No such file");
  CHECK(!hosts_find("a", "/no/such/file", &hosts, error));
  CHECK_STR_HAS(error, "give one of them");
}

TEST(an_allocation_of_slurm_is_found) {
  struct hosts hosts;
  char error[HOSTS_ERROR_BYTES] = "";
  unsetenv("SLURM_JOB_ID");
  CHECK(hosts_find(NULL, NULL, &hosts, error));
  CHECK_EQ_I64(hosts.source, HOSTS_HERE);
  CHECK_EQ_I64(hosts.num_slots, 0);
  setenv("SLURM_JOB_ID", "17", 1);
  setenv("SLURM_JOB_NODELIST", "node[1-2]", 1);
  setenv("SLURM_JOB_NUM_NODES", "2", 1);
  setenv("SLURM_NTASKS", "16", 1);
  CHECK(hosts_find(NULL, NULL, &hosts, error));
  CHECK_EQ_I64(hosts.source, HOSTS_SLURM);
  CHECK_EQ_STR(hosts.text, "node[1-2]");
  CHECK_EQ_I64(hosts.num_hosts, 2);
  CHECK_EQ_I64(hosts.num_slots, 16);
  setenv("SLURM_NTASKS", "many", 1);
  CHECK(hosts_find(NULL, NULL, &hosts, error));
  CHECK_EQ_I64(hosts.num_slots, 0);
  CHECK(hosts_find("a:2", NULL, &hosts, error)); /* what is said on the command line wins */
  CHECK_EQ_I64(hosts.source, HOSTS_LISTED);
}

/* ---- Reports -------------------------------------------------------------------------------- */

struct heard {
  char passed[4096];
  size_t num_passed;
  struct report reports[16];
  size_t num_reports;
};

static void pass(void *user, const char *bytes, size_t count) {
  struct heard *heard = user;
  if (CHECK(heard->num_passed + count < sizeof heard->passed)) {
    memcpy(heard->passed + heard->num_passed, bytes, count);
    heard->num_passed += count;
  }
}

static void take(void *user, const struct report *report) {
  struct heard *heard = user;
  if (CHECK(heard->num_reports < 16)) {
    heard->reports[heard->num_reports++] = *report;
  }
}

/* Feeds the stream in pieces of the sizes that piece() gives. */
static struct heard hear(const char *stream, size_t bytes, size_t (*piece)(void)) {
  struct heard heard = {.num_passed = 0};
  const struct report_sinks sinks = {pass, take, &heard};
  struct report_filter filter = {.num_held = 0};
  for (size_t at = 0; at < bytes;) {
    const size_t wanted = piece();
    const size_t count = wanted < bytes - at ? wanted : bytes - at;
    report_filter_feed(&filter, stream + at, count, &sinks);
    at += count;
  }
  report_filter_end(&filter, &sinks);
  return heard;
}

static size_t one_byte(void) { return 1; }
static size_t everything(void) { return SIZE_MAX; }
static size_t a_few(void) { return (size_t)sy_test_random_between(1, 40); }

static void check_heard(const char *stream, size_t bytes, const char *passed,
                        const struct report *reports, size_t num_reports) {
  size_t (*const pieces[])(void) = {one_byte, everything, a_few, a_few, a_few, a_few};
  for (size_t p = 0; p < sizeof pieces / sizeof pieces[0]; ++p) {
    const struct heard heard = hear(stream, bytes, pieces[p]);
    CHECK_EQ_U64(heard.num_passed, strlen(passed));
    CHECK_EQ_BYTES(heard.passed, passed, strlen(passed));
    CHECK_EQ_U64(heard.num_reports, num_reports);
    for (size_t i = 0; i < num_reports && i < heard.num_reports; ++i) {
      CHECK_EQ_I64(heard.reports[i].kind, reports[i].kind);
      CHECK_EQ_I64(heard.reports[i].rank, reports[i].rank);
      CHECK_EQ_I64(heard.reports[i].value, reports[i].value);
      CHECK_EQ_STR(heard.reports[i].host, reports[i].host);
    }
  }
}

TEST(reports_are_taken_out_of_any_stream) {
  const struct report reports[] = {{REPORT_BEGUN, 0, 4711, "a"},
                                   {REPORT_SIGNALLED, 65535, 9, "node-17.example"},
                                   {REPORT_EXITED, 3, 0, "a"}};
  char lines[3][REPORT_LINE_BYTES];
  char stream[1024];
  for (size_t i = 0; i < 3; ++i) {
    CHECK(report_write(&reports[i], lines[i]) < REPORT_LINE_BYTES);
  }
  int bytes = snprintf(stream, sizeof stream, "%sfirst\nhalf a %sline\n%s%s", lines[0], lines[1],
                       lines[2], "and the rest");
  check_heard(stream, (size_t)bytes, "first\nhalf a line\nand the rest", reports, 3);
}

/* Like a report, but none: passed on as it came. */
TEST(what_is_no_report_is_passed_on) {
  static const char *const streams[] = {"\036",
                                        "\036\036\n",
                                        "\036switchyard-rank\n",
                                        "\036switchyard-rank 1 2\n",
                                        "\036switchyard-rank 99 0 0 a\n",
                                        "\036switchyard-rank 1 -1 0 a\n",
                                        "\036switchyard-rank without an end",
                                        "plain text\n",
                                        "\036switchyard\036switchyard-rank x\n"};
  for (size_t i = 0; i < sizeof streams / sizeof streams[0]; ++i) {
    check_heard(streams[i], strlen(streams[i]), streams[i], NULL, 0);
  }
  char endless[2000];
  memset(endless, 'x', sizeof endless - 1);
  endless[sizeof endless - 1] = '\0';
  memcpy(endless, "\036switchyard-rank ", strlen("\036switchyard-rank "));
  check_heard(endless, strlen(endless), endless, NULL, 0);
}

/* ---- Outcomes ------------------------------------------------------------------------------- */

/* What is printed, in a buffer that the next call reuses. */
static const char *printed(const struct outcome *outcome, int expected_code) {
  static char text[1024];
  text[0] = '\0';
  FILE *out = fmemopen(text, sizeof text, "w");
  CHECK_EQ_I64(outcome_print(outcome, out), expected_code);
  fclose(out);
  return text;
}

static void note(struct outcome *outcome, int rank, enum report_kind kind, int value) {
  struct report report = {kind, rank, value, "a"};
  outcome_note(outcome, &report, 5);
}

TEST(the_first_failure_gives_the_code) {
  struct outcome outcome;
  CHECK(outcome_make(&outcome, 4));
  for (int rank = 0; rank < 4; ++rank) {
    note(&outcome, rank, REPORT_BEGUN, 100 + rank);
  }
  note(&outcome, 1, REPORT_EXITED, 0);
  CHECK_EQ_I64(outcome.failed_ns, 0);
  note(&outcome, 2, REPORT_SIGNALLED, SIGKILL);
  CHECK_EQ_I64(outcome.failed_ns, 5);
  note(&outcome, 0, REPORT_EXITED, 4);
  note(&outcome, 9, REPORT_EXITED, 4); /* a rank that is not there */
  CHECK_EQ_I64(outcome_num_ended(&outcome), 3);
  outcome_close(&outcome);
  note(&outcome, 3, REPORT_SIGNALLED, SIGTERM); /* the supervisor's doing */
  CHECK_EQ_STR(printed(&outcome, RUN_SIGNAL_BASE + SIGKILL),
               "switchyard-run: rank 2 on a: ended by signal 9 (Killed)\n"
               "switchyard-run: rank 0 on a: left with exit code 4\n"
               "switchyard-run: rank 1 on a: left with exit code 0\n"
               "switchyard-run: rank 3 on a: not heard to have ended\n");
  outcome_free(&outcome);
}

TEST(ranks_that_end_alike_are_told_of_once) {
  struct outcome outcome;
  CHECK(outcome_make(&outcome, 3));
  note(&outcome, 2, REPORT_EXITED, 4);
  note(&outcome, 0, REPORT_EXITED, 4);
  note(&outcome, 1, REPORT_STOPPED, 5);
  CHECK_EQ_STR(printed(&outcome, 4), "switchyard-run: rank 0, 2 on a: left with exit code 4\n"
                                     "switchyard-run: rank 1 on a: stopped for 5 s, and killed\n");
  outcome_free(&outcome);
}

TEST(success_is_silent_and_silence_is_not_success) {
  struct outcome outcome;
  CHECK(outcome_make(&outcome, 3));
  note(&outcome, 0, REPORT_EXITED, 0);
  note(&outcome, 2, REPORT_EXITED, 0);
  CHECK_EQ_STR(printed(&outcome, 0), "switchyard-run: rank 0, 2 on a: left with exit code 0\n"
                                     "switchyard-run: rank 1: not heard of\n");
  note(&outcome, 1, REPORT_EXITED, 0);
  CHECK_EQ_STR(printed(&outcome, 0), "");
  outcome_free(&outcome);
}

/* ---- Folders -------------------------------------------------------------------------------- */

static bool exists(const char *path) { return access(path, F_OK) == 0; }

static struct job make_job(void) {
  struct job job;
  CHECK(job_make(&job, "/tmp", 1000));
  CHECK(job_make_folders(&job));
  CHECK(job_make_folders(&job)); /* finds its own */
  return job;
}

TEST(a_job_is_named_and_read_back) {
  struct job job;
  struct job other;
  struct job again;
  char text[JOB_FILE_BYTES];
  CHECK(job_make(&job, "/var/tmp", 40000) && job_make(&other, "/var/tmp", 40000));
  CHECK(strcmp(job.folder, other.folder) != 0);
  job_write(&job, text, sizeof text);
  CHECK(job_read(&again, text));
  CHECK_EQ_STR(again.folder, job.folder);
  CHECK_EQ_STR(again.segments, job.segments);
  CHECK_EQ_I64(again.deadline_ms, 40000);
  static const char *const bad[] = {"",
                                    "/tmp/switchyard-job.1",
                                    "/tmp/switchyard-job.1,",
                                    "/tmp/switchyard-job.1,0",
                                    "/tmp/switchyard-job.1,5x",
                                    "/tmp/other.1,5",
                                    "switchyard-job.1,5"};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    CHECK(!job_read(&again, bad[i]));
  }
}

TEST(somebody_elses_folder_is_not_taken) {
  struct job job;
  CHECK(job_make(&job, "/tmp", 1000));
  CHECK(symlink("/tmp", job.folder) == 0);
  CHECK(!job_make_folders(&job));
  unlink(job.folder);
  const int file = open(job.folder, O_CREAT | O_WRONLY, 0600);
  close(file);
  CHECK(!job_make_folders(&job));
  unlink(job.folder);
}

TEST(a_job_ends_with_its_last_member) {
  struct job job = make_job();
  int ready[2];
  CHECK(pipe(ready) == 0);
  const pid_t member = fork();
  if (member == 0) {
    const bool joined = job_join(&job, true) >= 0;
    const ssize_t told = write(ready[1], joined ? "y" : "n", 1);
    (void)told;
    signal(SIGTERM, SIG_IGN);
    for (;;) {
      pause();
    }
  }
  char joined = '?';
  CHECK(read(ready[0], &joined, 1) == 1);
  CHECK(joined == 'y');
  CHECK(!job_is_over(&job));
  char path[JOB_FILE_BYTES];
  CHECK((size_t)snprintf(path, sizeof path, "%s/deep", job.segments) < sizeof path);
  CHECK(mkdir(path, 0700) == 0);
  job_clean(&job, 50); /* which kills it */
  int status = 0;
  CHECK(waitpid(member, &status, 0) == member && WIFSIGNALED(status) &&
        WTERMSIG(status) == SIGKILL);
  CHECK(!exists(job.folder) && !exists(job.segments));
  close(ready[0]);
  close(ready[1]);
}

/* A process that inherits the membership is killed too; a bystander, with the same file name in
 * another folder open, is not. */
TEST(members_are_those_who_have_the_file_open) {
  struct job job = make_job();
  struct job other = make_job();
  const pid_t bystander = fork();
  if (bystander == 0) {
    job_join(&other, true);
    pause();
    _exit(0);
  }
  const int membership = job_join(&job, false);
  CHECK(membership >= 0);
  const pid_t heir = fork();
  if (heir == 0) {
    execlp("sleep", "sleep", "1000", (char *)NULL);
  }
  close(membership);
  CHECK(!job_is_over(&job));
  job_clean(&job, 20);
  int status = 0;
  CHECK(waitpid(heir, &status, 0) == heir && WIFSIGNALED(status));
  CHECK(waitpid(bystander, NULL, WNOHANG) == 0);
  kill(bystander, SIGKILL);
  waitpid(bystander, NULL, 0);
  job_clean(&other, 0);
}

TEST(one_process_is_the_warden) {
  struct job job = make_job();
  const int first = job_lock_warden(&job);
  CHECK(first >= 0);
  CHECK(job_lock_warden(&job) == -1);
  CHECK_EQ_I64(errno, EWOULDBLOCK);
  close(first);
  const int second = job_lock_warden(&job);
  CHECK(second >= 0);
  close(second);
  CHECK(!job_has_failed(&job));
  job_note_failure(&job);
  CHECK(job_has_failed(&job));
  job_clean(&job, 0);
  CHECK(!exists(job.folder) && !exists(job.segments));
}

/* ---- The line ------------------------------------------------------------------------------- */

static bool has_words(char **line, const char *first, const char *second, const char *third) {
  for (char **w = line; *w != NULL; ++w) {
    if (strcmp(*w, first) == 0 && (second == NULL || (w[1] != NULL && strcmp(w[1], second) == 0)) &&
        (third == NULL || (w[1] != NULL && w[2] != NULL && strcmp(w[2], third) == 0))) {
      return true;
    }
  }
  return false;
}

static char **make_line(const struct circumstances *here, struct variables *variables) {
  static char *program[] = {"program", "it's", NULL};
  variables_choose(here, variables);
  return line_make(here, variables, "/bin/switchyard-run", program);
}

TEST(the_line_says_what_the_circumstances_ask_for) {
  struct job job;
  struct variables variables;
  struct hosts hosts = {.source = HOSTS_LISTED, .text = "a:2,b:2", .num_hosts = 2, .num_slots = 4};
  struct circumstances here = {.job = &job,
                               .hosts = &hosts,
                               .num_ranks = 4,
                               .num_cores = 2,
                               .reads_others = true,
                               .num_topology = 1,
                               .topology = {{.name = "NCCL_IB_HCA", .value = "=a,b"}}};
  unsetenv("OMPI_MCA_rmaps_base_oversubscribe"); /* which the tests run under */
  unsetenv("OMPI_MCA_btl_vader_single_copy_mechanism");
  CHECK(job_make(&job, "/tmp", 1000));
  char **line = make_line(&here, &variables);
  CHECK_EQ_STR(line[0], "mpirun");
  CHECK(has_words(line, "-n", "4", NULL) && has_words(line, "--host", "a:2,b:2", NULL));
  CHECK(has_words(line, "--mca", "orte_enable_recovery", "1"));
  CHECK(has_words(line, "-x", "NCCL_IB_HCA==a,b", NULL));
  CHECK(has_words(line, "--mca", "oob_tcp_keepalive_time", "5"));
  CHECK(!has_words(line, "--mca", "rmaps_base_oversubscribe", NULL));
  CHECK(!has_words(line, "--mca", "btl_vader_single_copy_mechanism", NULL));
  CHECK(has_words(line, "/bin/switchyard-run", "--keep", NULL));
  CHECK(has_words(line, "program", "it's", NULL));
  line_free(line);
  hosts = (struct hosts){.source = HOSTS_HERE, .num_hosts = 1};
  here.reads_others = false;
  line = make_line(&here, &variables);
  CHECK(!has_words(line, "--host", NULL, NULL));
  CHECK(!has_words(line, "--mca", "oob_tcp_keepalive_time", NULL));
  CHECK(has_words(line, "--mca", "rmaps_base_oversubscribe", "1"));
  CHECK(has_words(line, "--mca", "btl_vader_single_copy_mechanism", "none"));
  line_free(line);
}

TEST(what_the_user_has_set_stays) {
  struct job job;
  struct variables variables;
  struct hosts hosts = {.source = HOSTS_HERE, .num_hosts = 1};
  struct circumstances here = {.job = &job,
                               .hosts = &hosts,
                               .num_ranks = 4,
                               .num_cores = 2,
                               .reads_others = true,
                               .num_topology = 1,
                               .topology = {{.name = "NCCL_IB_HCA", .value = "=a,b"}}};
  CHECK(job_make(&job, "/tmp", 1000));
  setenv("OMPI_MCA_mpi_yield_when_idle", "0", 1);
  setenv("OMP_WAIT_POLICY", "active", 1);
  setenv("NCCL_DEBUG", "WARN", 1);
  char **line = make_line(&here, &variables);
  CHECK(!has_words(line, "--mca", "mpi_yield_when_idle", NULL)); /* mpirun reads it */
  CHECK(has_words(line, "-x", "OMP_WAIT_POLICY", NULL));
  CHECK(has_words(line, "-x", "NCCL_DEBUG", NULL));
  static char text[8192];
  FILE *out = fmemopen(text, sizeof text, "w");
  line_print(out, &here, &variables, line);
  fclose(out);
  CHECK_STR_HAS(text, "  OMPI_MCA_mpi_yield_when_idle=0\n      yours, kept; ranks share cores");
  CHECK_STR_HAS(text, "  OMP_WAIT_POLICY=active\n      yours, kept; ranks share cores");
  CHECK_STR_HAS(text, "  OMPI_MCA_orte_enable_recovery=1\n      when a rank is lost");
  CHECK_STR_HAS(text, " program 'it'\\''s'\n");
  line_free(line);
}
