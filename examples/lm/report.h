/* Where each rank's work and time went. */
#ifndef LM_REPORT_H
#define LM_REPORT_H

#include <jansson.h>
#include <stdio.h>
#include <switchyard.h>

#include "options.h"
#include "team.h"

struct lm_rank_report {
  sy_stats stats;
  int32_t threads;
  char place[LAUNCH_ERROR_BYTES]; /* what became of its binding, and why */
};

struct lm_report {
  struct lm_rank_report *ranks; /* [world] on rank 0, NULL elsewhere */
  int32_t world;
  double seconds; /* of the run, without loading */
};

/* Brings every rank's counters to rank 0. Collective. The report can be destroyed whether this
 * succeeds or not. */
enum lm_exit lm_report_gather(struct lm_report *report, struct lm_team *team, sy_group *group);
void lm_report_destroy(struct lm_report *report);

/* On rank 0. */
void lm_report_print(const struct lm_report *report, FILE *file);

/* On rank 0, the last keys of a run's JSON: world, options, seconds, and "ranks", an array. */
json_t *lm_report_json(const struct lm_report *report, const struct lm_options *options);

/* Prints an object on standard output and releases it. */
enum lm_exit lm_print_json(struct lm_team *team, json_t *object);

#endif
