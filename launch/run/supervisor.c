#include "launch/run/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/clock.h"
#include "launch/run/outcome.h"
#include "launch/run/report.h"
#include "launch/run/run.h"
#include "launch/run/warden.h"

enum {
  TICK_MS = 100,
  ORDERLY_MS = 5000, /* from asking mpirun to end, or from the last rank's end, to its kill */
  REST_MS = 500,     /* to read what mpirun has left in its pipes */
  CLEAN_MS = 2000    /* for the ranks to follow mpirun */
};

/* Why the job is being ended; the first reason stays. */
enum ending { GOES_ON, BY_DEADLINE, BY_START, BY_SIGNAL, BY_OUTPUT, BY_LINGERING };

/* One of mpirun's outputs. */
struct relay {
  int from, to;
  bool is_open;
};

struct supervisor {
  const struct supervision *what;
  struct outcome outcome; /* of the ranks */
  pid_t mpirun;           /* 0: has been waited for */
  int mpirun_status;
  struct relay out, err;
  struct report_filter filter;
  int output_error; /* errno of writing to standard output; 0 */
  enum ending ending;
  int signal;       /* BY_SIGNAL: which */
  int64_t begin_ns; /* of all */
  int64_t end_ns;   /* when mpirun was asked to end */
  int64_t last_ns;  /* when the last rank ended */
};

/* Only what a signal handler may do; the loop looks. */
static volatile sig_atomic_t caught_signal;
static void on_signal(int signal_number) { caught_signal = signal_number; }

/* ---- Output --------------------------------------------------------------------------------- */

/* All of it, or -1 and errno. */
static int write_all(int to, const char *bytes, size_t count) {
  while (count > 0) {
    const ssize_t written = write(to, bytes, count);
    if (written < 0 && errno != EINTR) {
      return -1;
    }
    bytes += written > 0 ? written : 0;
    count -= written > 0 ? (size_t)written : 0;
  }
  return 0;
}

static void pass_error_output(void *user, const char *bytes, size_t count) {
  const struct supervisor *s = user;
  const int failed = write_all(s->err.to, bytes, count);
  (void)failed; /* who closes standard error does not want to know */
}

static void take_report(void *user, const struct report *report) {
  struct supervisor *s = user;
  outcome_note(&s->outcome, report, sy_clock_ns());
}

static void read_output(struct supervisor *s, struct relay *relay) {
  char bytes[16384];
  const ssize_t count = read(relay->from, bytes, sizeof bytes);
  const struct report_sinks sinks = {pass_error_output, take_report, s};
  if (count < 0 && errno == EINTR) {
    return;
  }
  if (count <= 0) {
    relay->is_open = false;
    report_filter_end(&s->filter, &sinks);
  } else if (relay == &s->err) {
    report_filter_feed(&s->filter, bytes, (size_t)count, &sinks);
  } else if (s->output_error == 0 && write_all(relay->to, bytes, (size_t)count) != 0) {
    s->output_error = errno;
  }
}

/* Waits for output, a signal or the time; false: nothing came, or nothing can come. */
static bool relay_outputs(struct supervisor *s, int timeout_ms) {
  struct pollfd ready[2] = {{.fd = s->out.is_open ? s->out.from : -1, .events = POLLIN},
                            {.fd = s->err.is_open ? s->err.from : -1, .events = POLLIN}};
  if (poll(ready, 2, timeout_ms) <= 0) {
    return false;
  }
  if (ready[0].revents != 0) {
    read_output(s, &s->out);
  }
  if (ready[1].revents != 0) {
    read_output(s, &s->err);
  }
  return true;
}

/* ---- mpirun --------------------------------------------------------------------------------- */

/* In the child. mpirun must not outlive the supervisor; it is a member of the job. */
static _Noreturn void become_mpirun(const struct supervisor *s, pid_t parent, int out, int err) {
  prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0);
  if (getppid() != parent || job_join(s->what->job, false) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
      dup2(err, STDERR_FILENO) < 0) {
    _exit(RUN_CANNOT_START);
  }
  execvp(s->what->line[0], s->what->line);
  dprintf(STDERR_FILENO, "switchyard-run: '%s' cannot be started: %s\n", s->what->line[0],
          strerror(errno));
  _exit(RUN_CANNOT_START);
}

static bool open_relay(struct relay *relay, int to, int *child_end_out) {
  int ends[2];
  if (pipe(ends) != 0) {
    return false;
  }
  fcntl(ends[0], F_SETFD, FD_CLOEXEC);
  fcntl(ends[1], F_SETFD, FD_CLOEXEC);
  *relay = (struct relay){.from = ends[0], .to = to, .is_open = true};
  *child_end_out = ends[1];
  return true;
}

static bool start_mpirun(struct supervisor *s) {
  int out;
  int err;
  if (!open_relay(&s->out, STDOUT_FILENO, &out) || !open_relay(&s->err, STDERR_FILENO, &err)) {
    return false;
  }
  const pid_t self = getpid();
  s->mpirun = fork();
  if (s->mpirun == 0) {
    become_mpirun(s, self, out, err);
  }
  close(out);
  close(err);
  return s->mpirun > 0;
}

static void look_at_mpirun(struct supervisor *s) {
  if (waitpid(s->mpirun, &s->mpirun_status, WNOHANG) == s->mpirun) {
    s->mpirun = 0;
  }
}

/* ---- Deadlines ------------------------------------------------------------------------------ */

static bool is_past(int64_t since_ns, int64_t ms) {
  return since_ns != 0 && sy_clock_ns() - since_ns >= ms * 1000000;
}

static enum ending due(struct supervisor *s) {
  if (caught_signal != 0) {
    s->signal = caught_signal;
    return BY_SIGNAL;
  }
  if (s->output_error != 0) {
    return BY_OUTPUT;
  }
  if (outcome_num_ended(&s->outcome) == s->what->num_ranks) {
    s->last_ns = s->last_ns == 0 ? sy_clock_ns() : s->last_ns;
    return is_past(s->last_ns, ORDERLY_MS) ? BY_LINGERING : GOES_ON;
  }
  if (is_past(s->outcome.failed_ns, s->what->job->deadline_ms)) {
    return BY_DEADLINE;
  }
  if (s->outcome.num_begun < s->what->num_ranks && is_past(s->begin_ns, s->what->start_ms)) {
    return BY_START;
  }
  return GOES_ON;
}

/* Asks mpirun to end the job, then kills it: the keepers end their ranks when their parent ends. */
static void keep_deadlines(struct supervisor *s) {
  if (s->ending == GOES_ON) {
    s->ending = due(s);
    if (s->ending != GOES_ON) {
      outcome_close(&s->outcome);
      s->end_ns = sy_clock_ns();
      kill(s->mpirun, SIGTERM);
    }
  } else if (is_past(s->end_ns, ORDERLY_MS)) {
    kill(s->mpirun, SIGKILL);
  }
}

/* ---- The end -------------------------------------------------------------------------------- */

static int code_of_mpirun(const struct supervisor *s) {
  if (WIFSIGNALED(s->mpirun_status)) {
    fprintf(stderr, "switchyard-run: mpirun was ended by signal %d (%s)\n",
            WTERMSIG(s->mpirun_status), strsignal(WTERMSIG(s->mpirun_status)));
    return RUN_SIGNAL_BASE + WTERMSIG(s->mpirun_status);
  }
  return WEXITSTATUS(s->mpirun_status);
}

/* Prints why the job was ended, and how its ranks did. */
static int conclude(struct supervisor *s) {
  const int64_t deadline_s = s->what->job->deadline_ms / 1000;
  const int of_ranks = outcome_print(&s->outcome, stderr);
  switch (s->ending) {
  case BY_SIGNAL:
    fprintf(stderr, "switchyard-run: ended by signal %d (%s)\n", s->signal, strsignal(s->signal));
    return RUN_SIGNAL_BASE + s->signal;
  case BY_OUTPUT:
    fprintf(stderr, "switchyard-run: standard output cannot be written: %s\n",
            strerror(s->output_error));
    return EXIT_FAILURE;
  case BY_DEADLINE:
    fprintf(stderr, "switchyard-run: the job was not over %" PRId64 " s after that; it was ended\n",
            deadline_s);
    break;
  case BY_START:
    fprintf(stderr,
            "switchyard-run: %d of %d ranks had begun after %" PRId64 " s; the job was ended\n",
            s->outcome.num_begun, s->what->num_ranks, s->what->start_ms / 1000);
    break;
  case BY_LINGERING:
  case GOES_ON:
    break;
  }
  if (of_ranks != 0 || s->ending == BY_LINGERING) {
    return of_ranks;
  }
  const int of_mpirun = code_of_mpirun(s);
  if (of_mpirun != 0) {
    return of_mpirun;
  }
  return outcome_num_ended(&s->outcome) == s->what->num_ranks ? 0 : RUN_UNHEARD;
}

/* What mpirun has left behind becomes the supervisor's: a launch agent, which hears nothing from a
 * host without power, would stay for minutes. Ends all children but the warden. */
static void end_children(pid_t warden) {
  char path[64];
  char word[32];
  snprintf(path, sizeof path, "/proc/self/task/%ld/children", (long)getpid());
  FILE *children = fopen(path, "r");
  while (children != NULL && fscanf(children, "%31s", word) == 1) {
    const pid_t child = (pid_t)strtol(word, NULL, 10);
    if (child > 1 && child != warden) {
      kill(child, SIGKILL);
      waitpid(child, NULL, 0);
    }
  }
  if (children != NULL) {
    fclose(children);
  }
}

static void catch_signals(void) {
  static const int numbers[] = {SIGINT, SIGTERM, SIGHUP};
  struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: poll is to notice */
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; ++i) {
    sigaction(numbers[i], &action, NULL);
  }
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, NULL);
}

/* mpirun, the ranks and all between them; returns when mpirun has ended. */
static void watch(struct supervisor *s) {
  while (s->mpirun != 0) {
    relay_outputs(s, TICK_MS);
    look_at_mpirun(s);
    if (s->mpirun != 0) {
      keep_deadlines(s);
    }
  }
  while ((s->out.is_open || s->err.is_open) && relay_outputs(s, REST_MS)) {
  }
  outcome_close(&s->outcome);
}

static int fail(const char *what) {
  fprintf(stderr, "switchyard-run: %s: %s\n", what, strerror(errno));
  return EXIT_FAILURE;
}

int supervisor_run(const struct supervision *what) {
  struct supervisor s = {.what = what, .begin_ns = sy_clock_ns()};
  if (!outcome_make(&s.outcome, what->num_ranks)) {
    return fail("the ranks");
  }
  catch_signals();
  prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
  if (!job_make_folders(what->job)) {
    const int code = fail(what->job->folder);
    job_clean(what->job, 0);
    outcome_free(&s.outcome);
    return code;
  }
  const pid_t warden = warden_start(what->job, getpid(), false);
  int code = EXIT_FAILURE;
  if (warden <= 0) {
    code = fail("the warden of this host cannot be started");
  } else if (!start_mpirun(&s)) {
    code = fail("mpirun cannot be started");
  } else {
    watch(&s);
    code = conclude(&s);
  }
  job_clean(what->job, CLEAN_MS);
  end_children(warden);
  warden_stop(warden);
  outcome_free(&s.outcome);
  return code;
}
