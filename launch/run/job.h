/* What a job leaves on one host, and who is still part of it.
 *
 *   <tmp>/switchyard-job.<id>/       session folders of Open MPI, and:
 *     members                        every process of the job has it open, with a shared lock
 *     warden                         the host's warden has an exclusive lock on it
 *     failed                         is there once a rank of this host has failed
 *   /dev/shm/switchyard-job.<id>/    shared segments of Open MPI
 *
 * A lock ends with the processes that hold it, however they end. So a job is over on a host when an
 * exclusive lock on `members` can be had, and only then its folders are removed. */
#ifndef LAUNCH_RUN_JOB_H
#define LAUNCH_RUN_JOB_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define JOB_SHARED_MEMORY "/dev/shm"
#define JOB_PATH_BYTES 256 /* of a folder */
#define JOB_FILE_BYTES (JOB_PATH_BYTES + 32)

struct job {
  char folder[JOB_PATH_BYTES];
  char segments[JOB_PATH_BYTES];
  int64_t deadline_ms; /* from the first failure to the end of everything */
};

/* A name of its own below tmp; nothing is created. False: tmp is too long, or chance failed. */
bool job_make(struct job *job, const char *tmp, int64_t deadline_ms);

/* The same job elsewhere: "<folder>,<deadline_ms>" and back. False: the text is not one. */
void job_write(const struct job *job, char *text, size_t bytes);
bool job_read(struct job *job, const char *text);

/* Makes the folders, or finds them made by this user. False: errno says why. */
bool job_make_folders(const struct job *job);

/* This process becomes a member until it closes the descriptor; -1: errno says why not. Processes
 * that inherit the descriptor are members too; exec closes it if `until_exec`. */
int job_join(const struct job *job, bool until_exec);

/* -1: the host has a warden. */
int job_lock_warden(const struct job *job);

void job_note_failure(const struct job *job);
bool job_has_failed(const struct job *job);

/* Whether no process is a member. */
bool job_is_over(const struct job *job);

/* Sends the signal to every member but the caller. */
void job_signal_members(const struct job *job, int signal_number);

/* Waits for the members to end, kills those that are left after grace_ms, removes the folders. */
void job_clean(const struct job *job, int64_t grace_ms);

#endif
