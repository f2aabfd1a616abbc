/* switchyard-run: see run.h. */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/options.h"
#include "launch/run/keeper.h"
#include "launch/run/line.h"
#include "launch/run/run.h"
#include "launch/run/supervisor.h"

#define PROGRAM "switchyard-run"

enum { NOT_GIVEN = 0, RANKS_MAX = 65536, SECONDS_MAX = 1000000 };

struct flags {
  int64_t ranks;
  const char *hosts, *hostfile;
  int64_t deadline_s, start_s;
  bool dry_run;
};

static const struct option_spec specs[] = {
    {.kind = OPTION_HEADING, .name = "Where"},
    {.kind = OPTION_INTEGER,
     .letter = 'n',
     .name = "ranks",
     .value = "N",
     .help = "ranks in all; needed unless the hosts say how many",
     .offset = offsetof(struct flags, ranks),
     .min = 1,
     .max = RANKS_MAX},
    {.kind = OPTION_TEXT,
     .name = "hosts",
     .value = "NAME:RANKS,...",
     .help = "hosts, and how many ranks each has room for",
     .offset = offsetof(struct flags, hosts)},
    {.kind = OPTION_TEXT,
     .name = "hostfile",
     .value = "FILE",
     .help = "the same as lines NAME slots=RANKS. With neither option: Slurm's allocation, or "
             "this host",
     .offset = offsetof(struct flags, hostfile)},
    {.kind = OPTION_HEADING, .name = "How"},
    {.kind = OPTION_INTEGER,
     .name = "deadline",
     .value = "SECONDS",
     .help = "when a rank has failed, or is stopped, the others have so long to end by themselves",
     .offset = offsetof(struct flags, deadline_s),
     .min = 1,
     .max = SECONDS_MAX},
    {.kind = OPTION_INTEGER,
     .name = "start",
     .value = "SECONDS",
     .help = "until every rank has begun",
     .offset = offsetof(struct flags, start_s),
     .min = 1,
     .max = SECONDS_MAX},
    {.kind = OPTION_SWITCH,
     .name = "dry-run",
     .help = "print what would be run, and run nothing",
     .offset = offsetof(struct flags, dry_run)},
};

static const struct option_page page = {
    .about = "Runs a program on every rank: builds mpirun's command line, shows it with every "
             "variable that is set and the reason (a variable that you have set stays as it is), "
             "runs it, and sees to its end. When a rank is lost the others get an error that "
             "names it; all end within the deadline, and no process, shared segment or session "
             "folder is left on any host.",
    .examples = "  switchyard-run -n 4 lm generate --model examples/tiny-moe\n"
                "  switchyard-run --hosts spark1:1,spark2:1 lm score --model DIR --text FILE\n"
                "  switchyard-run -n 8 --dry-run true\n",
    .operands = "PROGRAM [ARGUMENT]...",
    .exits = "  0            every rank has left with 0\n"
             "  a rank's     of the rank that failed first: its exit code, or 128 + n if it was\n"
             "               ended by signal n\n"
             "  1            the job could not be set up, or standard output not be written\n"
             "  2            a wrong option, value or combination\n"
             "  4            ranks were not heard of, and none reported an error\n"
             "  127          the program cannot be started\n"
             "  128 + n      signal n has ended " PROGRAM "\n"
             "  mpirun's     if it failed before any rank began\n",
    .specs = specs,
    .num_specs = sizeof specs / sizeof specs[0],
};

static int check_together(struct session *session, const struct flags *flags, char **program,
                          struct hosts *hosts) {
  char error[HOSTS_ERROR_BYTES];
  if (program[0] == NULL) {
    return session_fail(session, CLI_USAGE, "a program is missing behind the options");
  }
  if (!hosts_find(flags->hosts, flags->hostfile, hosts, error)) {
    return session_fail(session, CLI_USAGE, "%s", error);
  }
  if (flags->ranks == NOT_GIVEN && hosts->num_slots == 0) {
    return session_fail(session, CLI_USAGE, "-n is missing: how many ranks?");
  }
  if (hosts->num_slots != 0 && flags->ranks > hosts->num_slots) {
    return session_fail(session, CLI_USAGE, "-n %" PRId64 ": the hosts have room for %" PRId64,
                        flags->ranks, hosts->num_slots);
  }
  return CLI_OK;
}

/* This program as the keepers are to be started, also on other hosts. */
static int find_self(struct session *session, char self[PATH_MAX]) {
  const ssize_t length = readlink("/proc/self/exe", self, PATH_MAX - 1);
  if (length <= 0) {
    return session_fail(session, CLI_FAILED, "/proc/self/exe: %s", strerror(errno));
  }
  self[length] = '\0';
  return CLI_OK;
}

static int run_line(const struct flags *flags, const struct circumstances *here,
                    const struct variables *variables, char **line) {
  line_print(flags->dry_run ? stdout : stderr, here, variables, line);
  if (flags->dry_run) {
    return CLI_OK;
  }
  const struct supervision what = {.job = here->job,
                                   .line = line,
                                   .num_ranks = (int)here->num_ranks,
                                   .start_ms = flags->start_s * 1000};
  return supervisor_run(&what);
}

static int run(struct session *session, int argc, char **argv) {
  struct flags flags = {.ranks = NOT_GIVEN, .deadline_s = 40, .start_s = 300};
  struct hosts hosts = {.source = HOSTS_HERE};
  struct job job;
  struct circumstances here;
  struct variables variables;
  char self[PATH_MAX];
  int code = options_parse(session, &page, argc, argv, &flags);
  char **program = argv + optind;
  if (code == CLI_OK) {
    code = check_together(session, &flags, program, &hosts);
  }
  if (code == CLI_OK) {
    code = find_self(session, self);
  }
  if (code != CLI_OK) {
    return code;
  }
  const char *tmp = getenv("TMPDIR");
  tmp = tmp == NULL || tmp[0] != '/' ? "/tmp" : tmp;
  if (!job_make(&job, tmp, flags.deadline_s * 1000)) {
    return session_fail(session, CLI_FAILED, "a folder below TMPDIR, '%.100s', cannot be named",
                        tmp);
  }
  circumstances_find(&job, &hosts, flags.ranks != NOT_GIVEN ? flags.ranks : hosts.num_slots, &here);
  variables_choose(&here, &variables);
  char **line = line_make(&here, &variables, self, program);
  if (line == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory for mpirun's command line");
  }
  code = run_line(&flags, &here, &variables, line);
  line_free(line);
  return code;
}

/* "switchyard-run --keep JOB PROGRAM ...": how mpirun starts a rank. */
static int keep(char **argv) {
  struct job job;
  if (argv[2] == NULL || argv[3] == NULL || !job_read(&job, argv[2])) {
    fprintf(stderr, PROGRAM ": --keep is not for you: mpirun gets it\n");
    return CLI_USAGE;
  }
  return keeper_run(&job, argv + 3);
}

int main(int argc, char **argv) {
  if (argc > 1 && strcmp(argv[1], "--keep") == 0) {
    return keep(argv);
  }
  struct session session;
  int code = session_open(&session, PROGRAM, false);
  if (code == CLI_OK) {
    code = run(&session, argc, argv);
  }
  if ((fflush(stdout) != 0 || ferror(stdout) != 0) && code <= CLI_OK) {
    code = session_fail(&session, CLI_FAILED, "standard output cannot be written");
  }
  return session_close(&session, code);
}
