#include "launch/run/keeper.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "comm/clock.h"
#include "launch/run/report.h"
#include "launch/run/run.h"
#include "launch/run/warden.h"

enum {
  TERM_MS = 400,   /* from SIGTERM to SIGKILL; mpirun itself kills after one second */
  DRAIN_MS = 1000, /* for what the rank wrote to be read */
  TICK_MS = 100
};

struct keeper {
  const struct job *job;
  struct report report; /* rank and host are set */
  pid_t rank;
  int64_t stopped_ns; /* since when the rank is stopped; 0: it is not */
  int64_t term_ns;    /* when the rank was asked to end; 0: it was not */
  bool was_stopped_long;
};

/* A report is read in one piece if nothing lies before it in the pipe. */
static void drain_stderr(void) {
  const int64_t deadline_ns = sy_clock_ns() + (int64_t)DRAIN_MS * 1000000;
  int unread = 0;
  while (ioctl(STDERR_FILENO, FIONREAD, &unread) == 0 && unread > 0 &&
         sy_clock_ns() < deadline_ns) {
    nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  }
}

static void tell(struct keeper *keeper, enum report_kind kind, int value) {
  char line[REPORT_LINE_BYTES];
  keeper->report.kind = kind;
  keeper->report.value = value;
  const size_t bytes = report_write(&keeper->report, line);
  drain_stderr();
  const ssize_t written = write(STDERR_FILENO, line, bytes);
  (void)written; /* nobody is left to be told */
}

/* In the child. The rank must not outlive its keeper. */
static _Noreturn void become_rank(pid_t parent, const sigset_t *mask, char **program) {
  prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0);
  if (getppid() != parent) {
    _exit(RUN_CANNOT_START);
  }
  sigprocmask(SIG_SETMASK, mask, NULL);
  execvp(program[0], program);
  fprintf(stderr, "switchyard-run: '%s' cannot be started: %s\n", program[0], strerror(errno));
  _exit(RUN_CANNOT_START);
}

/* Takes note of what has happened to the rank; true: it has ended, *code_out is its exit code. */
static bool look_at_rank(struct keeper *keeper, int *code_out) {
  int status;
  while (waitpid(keeper->rank, &status, WNOHANG | WUNTRACED | WCONTINUED) == keeper->rank) {
    if (WIFSTOPPED(status)) {
      keeper->stopped_ns = sy_clock_ns();
    } else if (WIFCONTINUED(status)) {
      keeper->stopped_ns = 0;
    } else {
      const bool exited = WIFEXITED(status);
      const int value = exited ? WEXITSTATUS(status) : WTERMSIG(status);
      if (!exited || value != 0) {
        job_note_failure(keeper->job);
      }
      if (keeper->was_stopped_long) {
        tell(keeper, REPORT_STOPPED, (int)(keeper->job->deadline_ms / 1000));
      } else {
        tell(keeper, exited ? REPORT_EXITED : REPORT_SIGNALLED, value);
      }
      *code_out = exited ? value : RUN_SIGNAL_BASE + value;
      return true;
    }
  }
  return false;
}

/* What is due by now. */
static void keep_deadlines(struct keeper *keeper) {
  const int64_t now_ns = sy_clock_ns();
  if (keeper->term_ns != 0 && now_ns - keeper->term_ns >= (int64_t)TERM_MS * 1000000) {
    kill(keeper->rank, SIGKILL);
  }
  if (keeper->stopped_ns != 0 &&
      now_ns - keeper->stopped_ns >= keeper->job->deadline_ms * 1000000) {
    keeper->was_stopped_long = true;
    kill(keeper->rank, SIGKILL);
  }
}

static int keep(struct keeper *keeper, const sigset_t *signals) {
  const struct timespec tick = {.tv_nsec = TICK_MS * 1000000L};
  int code = 0;
  while (!look_at_rank(keeper, &code)) {
    const bool in_time = keeper->term_ns == 0 && keeper->stopped_ns == 0;
    const int found = in_time ? sigwaitinfo(signals, NULL) : sigtimedwait(signals, NULL, &tick);
    if (found > 0 && found != SIGCHLD && keeper->term_ns == 0) {
      keeper->term_ns = sy_clock_ns();
      kill(keeper->rank, SIGTERM);
      kill(keeper->rank, SIGCONT);
    }
    keep_deadlines(keeper);
  }
  return code;
}

static int fail(const struct keeper *keeper, const char *what) {
  fprintf(stderr, "switchyard-run: rank %d on %s: %s: %s\n", keeper->report.rank,
          keeper->report.host, what, strerror(errno));
  return RUN_CANNOT_START;
}

/* SIGPIPE too is blocked, so that a report to nobody is an error and not the keeper's end. */
static void take_signals(sigset_t *signals, sigset_t *before) {
  sigemptyset(signals);
  sigaddset(signals, SIGCHLD);
  sigaddset(signals, SIGTERM);
  sigaddset(signals, SIGINT);
  sigaddset(signals, SIGHUP);
  sigset_t blocked = *signals;
  sigaddset(&blocked, SIGPIPE);
  sigprocmask(SIG_BLOCK, &blocked, before);
}

/* The warden first: it must not be a member. */
static int join(const struct keeper *keeper, pid_t daemon, int *membership_out) {
  const struct job *job = keeper->job;
  if (!job_make_folders(job)) {
    return fail(keeper, job->folder);
  }
  if (warden_start(job, daemon, true) < 0) {
    return fail(keeper, "the warden of this host cannot be started");
  }
  *membership_out = job_join(job, true);
  return *membership_out < 0 ? fail(keeper, job->folder) : 0;
}

int keeper_run(const struct job *job, char **program) {
  const pid_t daemon = getppid();
  const pid_t self = getpid();
  const char *rank = getenv("OMPI_COMM_WORLD_RANK");
  struct keeper keeper = {.job = job,
                          .report = {.rank = rank == NULL ? 0 : (int)strtol(rank, NULL, 10)}};
  gethostname(keeper.report.host, sizeof keeper.report.host - 1);
  sigset_t signals, before;
  take_signals(&signals, &before);
  prctl(PR_SET_PDEATHSIG, SIGTERM, 0, 0, 0); /* the daemon's end is the rank's */
  if (getppid() != daemon) {
    return RUN_CANNOT_START;
  }
  int membership = -1;
  int code = join(&keeper, daemon, &membership);
  if (code != 0) {
    return code;
  }
  keeper.rank = fork();
  if (keeper.rank == 0) {
    become_rank(self, &before, program);
  }
  if (keeper.rank < 0) {
    return fail(&keeper, "fork");
  }
  tell(&keeper, REPORT_BEGUN, (int)keeper.rank);
  code = keep(&keeper, &signals);
  close(membership);
  return code;
}
