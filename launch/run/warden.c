#define _GNU_SOURCE /* pidfd_open */
#include "launch/run/warden.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "comm/clock.h"

enum {
  LOOK_MS = 200,    /* between two looks at the ranks */
  PARTING_MS = 3000 /* from the guardian's end to that of the last member, of itself */
};

/* Nothing of the caller's: an open pipe would keep its reader waiting, a signal that is meant for
 * the job's process group would end the warden with it. */
static void detach(void) {
  setsid();
  const int nothing = open("/dev/null", O_RDWR);
  for (int fd = STDIN_FILENO; nothing >= 0 && fd <= STDERR_FILENO; ++fd) {
    dup2(nothing, fd);
  }
  if (nothing > STDERR_FILENO) {
    close(nothing);
  }
  signal(SIGHUP, SIG_IGN);
  signal(SIGINT, SIG_IGN);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  prctl(PR_SET_NAME, "switchyard-ward", 0, 0, 0);
}

/* Returns when the guardian has ended. */
static void watch(const struct job *job, int guardian, bool limited) {
  int64_t since_ns = 0; /* when a failed job was first seen without ranks */
  for (;;) {
    struct pollfd ended = {.fd = guardian, .events = POLLIN};
    if (poll(&ended, 1, LOOK_MS) > 0) {
      return;
    }
    if (!limited || !job_has_failed(job) || !job_is_over(job)) {
      since_ns = 0;
      continue;
    }
    const int64_t now_ns = sy_clock_ns();
    since_ns = since_ns == 0 ? now_ns : since_ns;
    if (now_ns - since_ns >= job->deadline_ms * 1000000) {
      pidfd_send_signal(guardian, SIGKILL, NULL, 0);
    }
  }
}

pid_t warden_start(const struct job *job, pid_t guardian, bool limited) {
  const int lock = job_lock_warden(job);
  if (lock < 0) {
    return errno == EWOULDBLOCK ? 0 : -1;
  }
  const int guardian_fd = pidfd_open(guardian, 0);
  const pid_t warden = guardian_fd < 0 ? -1 : fork();
  if (warden == 0) {
    detach();
    watch(job, guardian_fd, limited);
    job_clean(job, PARTING_MS);
    _exit(0);
  }
  const int error = errno;
  close(guardian_fd);
  close(lock); /* the warden's copy keeps it locked */
  errno = error;
  return warden;
}

void warden_stop(pid_t warden) {
  if (warden > 0) {
    kill(warden, SIGKILL);
    waitpid(warden, NULL, 0);
  }
}
