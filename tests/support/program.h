/* Runs another program to its end and keeps what it printed. */
#ifndef SY_TESTS_SUPPORT_PROGRAM_H
#define SY_TESTS_SUPPORT_PROGRAM_H

#include <sys/types.h>

struct program_run {
  int code;  /* exit code; -1: it could not be run, or was ended by a signal */
  char *out; /* what it printed; never NULL */
  char *err;
};

/* Words of the command line are separated by single spaces; there is no shell. */
struct program_run program_run(const char *command_line);

/* The same with stdout going to a file: `out` stays empty. */
struct program_run program_run_into(const char *out_path, const char *command_line);

/* Starts it, without output, and returns its process; 0: it could not be started. */
pid_t program_start(const char *command_line);

void program_run_free(struct program_run *run);

/* For people: plain ASCII without escapes, and no line beyond 100 columns. */
void check_readable(const char *out);

#endif
