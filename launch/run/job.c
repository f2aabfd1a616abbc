#define _GNU_SOURCE /* nftw */
#include "launch/run/job.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "comm/clock.h"

static const char name_prefix[] = "switchyard-job.";

/* ---- Names ---------------------------------------------------------------------------------- */

/* The folder of shared segments has the name of the job's folder. */
static bool name_segments(struct job *job) {
  const char *slash = strrchr(job->folder, '/');
  if (slash == NULL || strncmp(slash + 1, name_prefix, sizeof name_prefix - 1) != 0) {
    return false;
  }
  const int used = snprintf(job->segments, sizeof job->segments, "%s%s", JOB_SHARED_MEMORY, slash);
  return used > 0 && (size_t)used < sizeof job->segments;
}

bool job_make(struct job *job, const char *tmp, int64_t deadline_ms) {
  uint64_t id;
  if (getrandom(&id, sizeof id, 0) != (ssize_t)sizeof id) {
    return false;
  }
  job->deadline_ms = deadline_ms;
  const int used =
      snprintf(job->folder, sizeof job->folder, "%s/%s%016" PRIx64, tmp, name_prefix, id);
  return used > 0 && (size_t)used < sizeof job->folder && name_segments(job);
}

void job_write(const struct job *job, char *text, size_t bytes) {
  snprintf(text, bytes, "%s,%" PRId64, job->folder, job->deadline_ms);
}

bool job_read(struct job *job, const char *text) {
  const char *comma = strrchr(text, ',');
  if (text[0] != '/' || comma == NULL || (size_t)(comma - text) >= sizeof job->folder) {
    return false;
  }
  char *end;
  errno = 0;
  job->deadline_ms = strtoll(comma + 1, &end, 10);
  snprintf(job->folder, sizeof job->folder, "%.*s", (int)(comma - text), text);
  return errno == 0 && end != comma + 1 && *end == '\0' && job->deadline_ms > 0 &&
         name_segments(job);
}

/* ---- Folders -------------------------------------------------------------------------------- */

/* Never somebody else's folder, nor a link to one. */
static bool make_folder(const char *path) {
  struct stat found;
  if (mkdir(path, 0700) == 0) {
    return true;
  }
  if (errno != EEXIST || lstat(path, &found) != 0) {
    return false;
  }
  errno = EACCES;
  return S_ISDIR(found.st_mode) && found.st_uid == geteuid();
}

bool job_make_folders(const struct job *job) {
  return make_folder(job->folder) && make_folder(job->segments);
}

/* name: of a file that this program makes, all of which are short. */
static int open_file(const struct job *job, const char *name, int flags) {
  char path[JOB_FILE_BYTES];
  const int used = snprintf(path, sizeof path, "%s/%s", job->folder, name);
  errno = ENAMETOOLONG;
  return (size_t)used < sizeof path ? open(path, flags | O_CLOEXEC, 0600) : -1;
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *walk) {
  (void)status;
  (void)kind;
  (void)walk;
  remove(path);
  return 0;
}

static void remove_tree(const char *path) {
  enum { MAX_OPEN = 16 };
  nftw(path, remove_entry, MAX_OPEN, FTW_DEPTH | FTW_PHYS);
}

/* ---- Members -------------------------------------------------------------------------------- */

/* In clock ticks since the host started; 0: there is no such process. */
static uint64_t start_time(pid_t pid) {
  char path[64];
  char text[1024];
  snprintf(path, sizeof path, "/proc/%ld/stat", (long)pid);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  const ssize_t bytes = file < 0 ? -1 : read(file, text, sizeof text - 1);
  if (file >= 0) {
    close(file);
  }
  if (bytes <= 0) {
    return 0;
  }
  text[bytes] = '\0';
  const char *at = strrchr(text, ')'); /* field 2, which may hold anything, ends here */
  for (int field = 2; at != NULL && field < 22; ++field) {
    at = strchr(at + 1, ' ');
  }
  return at == NULL ? 0 : strtoull(at, NULL, 10);
}

int job_join(const struct job *job, bool until_exec) {
  char name[32];
  char text[32];
  const int members = open_file(job, "members", O_RDWR | O_CREAT);
  if (members < 0 || flock(members, LOCK_SH) != 0) {
    return -1;
  }
  if (!until_exec) {
    fcntl(members, F_SETFD, 0);
  }
  snprintf(name, sizeof name, "member.%ld", (long)getpid());
  const int bytes = snprintf(text, sizeof text, "%" PRIu64 "\n", start_time(getpid()));
  const int own = open_file(job, name, O_WRONLY | O_CREAT | O_TRUNC);
  const bool written = own >= 0 && write(own, text, (size_t)bytes) == bytes;
  if (own >= 0) {
    close(own);
  }
  if (!written) {
    close(members);
    return -1;
  }
  return members;
}

void job_leave(const struct job *job, int descriptor) {
  char path[JOB_FILE_BYTES];
  snprintf(path, sizeof path, "%s/member.%ld", job->folder, (long)getpid());
  unlink(path);
  close(descriptor);
}

int job_lock_warden(const struct job *job) {
  const int warden = open_file(job, "warden", O_RDWR | O_CREAT);
  if (warden >= 0 && flock(warden, LOCK_EX | LOCK_NB) != 0) {
    close(warden);
    return -1;
  }
  return warden;
}

void job_note_failure(const struct job *job) {
  const int file = open_file(job, "failed", O_WRONLY | O_CREAT);
  if (file >= 0) {
    close(file);
  }
}

bool job_has_failed(const struct job *job) {
  const int file = open_file(job, "failed", O_RDONLY);
  if (file >= 0) {
    close(file);
  }
  return file >= 0;
}

bool job_is_over(const struct job *job) {
  const int members = open_file(job, "members", O_RDWR);
  const bool is_over = members < 0 || flock(members, LOCK_EX | LOCK_NB) == 0;
  if (members >= 0) {
    close(members);
  }
  return is_over;
}

/* One who has ended may have left its number to another process. */
static void signal_member(const struct job *job, const char *name, int signal_number) {
  char text[32] = "";
  const pid_t pid = (pid_t)strtol(name + strlen("member."), NULL, 10);
  const int file = open_file(job, name, O_RDONLY);
  const ssize_t bytes = file < 0 ? -1 : read(file, text, sizeof text - 1);
  if (file >= 0) {
    close(file);
  }
  if (bytes > 0 && pid > 1 && pid != getpid() && strtoull(text, NULL, 10) == start_time(pid)) {
    kill(pid, signal_number);
  }
}

void job_signal_members(const struct job *job, int signal_number) {
  DIR *folder = opendir(job->folder);
  if (folder == NULL) {
    return;
  }
  struct dirent *entry;
  while ((entry = readdir(folder)) != NULL) {
    if (strncmp(entry->d_name, "member.", strlen("member.")) == 0) {
      signal_member(job, entry->d_name, signal_number);
    }
  }
  closedir(folder);
}

/* ---- The end -------------------------------------------------------------------------------- */

static bool wait_until_over(const struct job *job, int64_t ms) {
  const int64_t deadline_ns = sy_clock_ns() + ms * 1000000;
  while (!job_is_over(job)) {
    if (sy_clock_ns() >= deadline_ns) {
      return false;
    }
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
  }
  return true;
}

void job_clean(const struct job *job, int64_t grace_ms) {
  enum { KILLED_MS = 5000 };
  if (!wait_until_over(job, grace_ms)) {
    job_signal_members(job, SIGKILL);
    wait_until_over(job, KILLED_MS);
  }
  remove_tree(job->segments);
  remove_tree(job->folder);
}
