/* How a rank's keeper tells the supervisor what becomes of its rank: one line on its standard
 * error, which mpirun carries from every host. The supervisor takes the lines out of the stream. */
#ifndef LAUNCH_RUN_REPORT_H
#define LAUNCH_RUN_REPORT_H

#include <stdbool.h>
#include <stddef.h>

enum report_kind {
  REPORT_BEGUN,     /* value: the rank's process id */
  REPORT_EXITED,    /* value: exit code */
  REPORT_SIGNALLED, /* value: the signal that ended it */
  REPORT_STOPPED,   /* value: the deadline in seconds that it stayed stopped for; it was killed */
  NUM_REPORT_KINDS
};

#define REPORT_HOST_BYTES 65

struct report {
  enum report_kind kind;
  int rank;
  int value;
  char host[REPORT_HOST_BYTES];
};

/* A report's line is shorter, and short enough for a pipe to take it whole. */
#define REPORT_LINE_BYTES 256

size_t report_write(const struct report *report, char line[REPORT_LINE_BYTES]);

/* Takes reports out of a stream that comes in pieces. */
struct report_filter {
  char held[REPORT_LINE_BYTES]; /* what may yet become a report */
  size_t num_held;
};

/* Of bytes of the stream: others go to `pass`, in order; each report to `take`. */
struct report_sinks {
  void (*pass)(void *user, const char *bytes, size_t count);
  void (*take)(void *user, const struct report *report);
  void *user;
};
void report_filter_feed(struct report_filter *filter, const char *bytes, size_t count,
                        const struct report_sinks *sinks);

/* The stream has ended: what is held was no report. */
void report_filter_end(struct report_filter *filter, const struct report_sinks *sinks);

#endif
