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

int job_join(const struct job *job, bool until_exec) {
  const int members = open_file(job, "members", O_RDWR | O_CREAT);
  if (members < 0 || flock(members, LOCK_SH) != 0) {
    return -1;
  }
  if (!until_exec) {
    fcntl(members, F_SETFD, 0);
  }
  return members;
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

/* Whether the process has this file open. Of another user's processes that cannot be seen; they are
 * no members. */
static bool has_open(long pid, const struct stat *file) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%ld/fd", pid);
  DIR *descriptors = opendir(path);
  bool found = false;
  struct dirent *entry;
  while (descriptors != NULL && !found && (entry = readdir(descriptors)) != NULL) {
    struct stat open_file_status;
    found = fstatat(dirfd(descriptors), entry->d_name, &open_file_status, 0) == 0 &&
            open_file_status.st_dev == file->st_dev && open_file_status.st_ino == file->st_ino;
  }
  if (descriptors != NULL) {
    closedir(descriptors);
  }
  return found;
}

void job_signal_members(const struct job *job, int signal_number) {
  char path[JOB_FILE_BYTES];
  struct stat members;
  snprintf(path, sizeof path, "%s/members", job->folder);
  DIR *processes = stat(path, &members) == 0 ? opendir("/proc") : NULL;
  struct dirent *entry;
  while (processes != NULL && (entry = readdir(processes)) != NULL) {
    const long pid = strtol(entry->d_name, NULL, 10);
    if (pid > 1 && pid != (long)getpid() && has_open(pid, &members)) {
      kill((pid_t)pid, signal_number);
    }
  }
  if (processes != NULL) {
    closedir(processes);
  }
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
