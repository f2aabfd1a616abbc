/* What has become of each rank, as far as its keeper has told. */
#ifndef LAUNCH_RUN_OUTCOME_H
#define LAUNCH_RUN_OUTCOME_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "launch/run/report.h"

struct rank_outcome {
  bool has_begun, has_ended;
  struct report last;
};

struct outcome {
  int num_ranks;
  int num_begun;
  int num_ended;
  int first_failed;  /* rank; -1: none has */
  int64_t failed_ns; /* when that was; 0: it was not */
  bool is_closed;    /* the job is being ended: how ranks end from now on is not their own doing */
  struct rank_outcome *ranks; /* [num_ranks] */
};

bool outcome_make(struct outcome *outcome, int num_ranks);
void outcome_free(struct outcome *outcome);

/* A report for a rank that the job does not have is ignored. */
void outcome_note(struct outcome *outcome, const struct report *report, int64_t now_ns);
void outcome_close(struct outcome *outcome);

int outcome_num_ended(const struct outcome *outcome);

/* One line for all ranks that ended alike, if any failed or was not heard of. Returns the exit code
 * of the rank that failed first, 0 if none did. */
int outcome_print(const struct outcome *outcome, FILE *out);

#endif
