/* One run of the program: who this process is among the ranks, and how it ends.
 *
 * A command does its own part (options, local work), then calls session_agree, once or after every
 * part of long work: if any rank has failed, all leave there, and rank 0 prints one sentence, with
 * the ranks it comes from. What a command prints on stdout is printed by rank 0 alone. */
#ifndef LAUNCH_SESSION_H
#define LAUNCH_SESSION_H

#include <stdbool.h>
#include <stdio.h>

#include "launch/bind.h"
#include "runtime/switchyard.h"

/* Exit codes, documented by --help. */
enum cli_code {
  CLI_DONE = -1, /* nothing more to do, and nothing wrong: --help was given. Exits with 0 */
  CLI_OK = 0,
  CLI_FAILED = 1,
  CLI_USAGE = 2,
  CLI_BAD_FILE = 3,
  CLI_PEER = 4,
};

#define SESSION_ERROR_BYTES 600

struct session {
  int rank;
  int world;
  char command[32];                /* "switchyard plan" */
  char error[SESSION_ERROR_BYTES]; /* empty: nothing to report */
  struct bind_report bind;         /* zero unless the command takes its place */
};

/* Takes this rank's place, if asked to, and joins the other ranks; CLI_OK, CLI_USAGE, CLI_PEER. */
int session_open(struct session *session, const char *program, bool takes_place);

/* Records the sentence that explains a failure; returns code. */
int session_fail(struct session *session, int code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* The same for a failed call of the library that had no group; `where` goes before its sentence. */
int session_fail_status(struct session *session, sy_status status, const char *where);

/* Collective. CLI_OK: every rank is fine and runs the same command. Otherwise the code to leave
 * with, the same on all ranks; failures have been printed. */
int session_agree(struct session *session, int code);

/* Prints what was not yet reported, leaves the ranks; returns the process's exit code. */
int session_close(struct session *session, int code);

/* The table of exit codes, for --help. */
void session_print_exit_codes(FILE *out);

#endif
