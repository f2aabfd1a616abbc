/* What the exchange of a plan is expected to move and to take, from link figures. Pure. */
#ifndef SY_RUNTIME_PREDICT_H
#define SY_RUNTIME_PREDICT_H

#include "runtime/internal.h"

struct sy_prediction {
  double rank_bytes; /* of the plan's rank: its tokens' rows out and back, and the headers */
  double us;         /* of the rank that takes longest: all ranks wait for it */
};

/* For T_max tokens on every rank, each naming K distinct experts, all alike likely; in waves of
 * wave_tokens. Equal on all ranks but for rank_bytes. */
struct sy_prediction sy_predict(const struct sy_plan *plan, sy_strategy strategy,
                                int64_t wave_tokens);

/* ARGUMENT, with a sentence, unless every figure is finite and in its range. */
sy_status sy_check_link(const sy_link *link);

#endif
