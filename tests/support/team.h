/* A case on the ranks that mpirun started: a group of all of them, and the case's layer in it. */
#ifndef SY_TESTS_SUPPORT_TEAM_H
#define SY_TESTS_SUPPORT_TEAM_H

#include "tests/support/layer_case.h"

struct team {
  struct layer_case c;
  sy_group *group;
  struct layer_rank rank;
};

/* Collective. A peer's absence is noticed after timeout_ms (0: longer than any test waits). */
sy_group *team_group(int32_t timeout_ms, int32_t num_threads);

bool team_open(struct team *team, const sy_shape *shape, int64_t num_tokens);
void team_close(struct team *team);

/* Runs a call; this rank's outputs must have the bits of `expected` (all tokens). */
void team_check(struct team *team, const struct call_options *options,
                const struct token_split *split, const void *expected, const char *what);

/* The same, with the bits that expect_outputs derives, and counters that expect_counts does. */
void team_check_derived(struct team *team, const struct call_options *options,
                        const struct token_split *split, const char *what);

/* Every rank gets every rank's rows of the outputs. */
void team_share(const struct team *team, sy_dtype dtype, const struct token_split *split,
                void *outputs);

#endif
