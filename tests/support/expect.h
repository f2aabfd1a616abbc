/* What forward must give, derived once more in plain loops over tokens and slots: each routed
 * slot's expert output from a layer of one slot in one process, then the weighted sums as the
 * numeric rules order them. To the bit. And what the counters must say. */
#ifndef SY_TESTS_SUPPORT_EXPECT_H
#define SY_TESTS_SUPPORT_EXPECT_H

#include "tests/support/layer_case.h"

/* Outputs of all tokens in a world of this size, with the placement of the case's shape. */
void expect_outputs(const struct layer_case *c, const struct call_options *options, int32_t world,
                    void *outputs);

/* One rank's counters after one forward. load_counts by global expert. */
struct expected_counts {
  uint64_t waves;
  uint64_t received_rows;
  uint64_t routed_rows;
  uint64_t active_experts;
  uint64_t local_experts;
  uint64_t bytes_sent;
  uint64_t bytes_received;
  uint64_t load_counts[64];
};

struct expected_counts expect_counts(const struct layer_case *c, const struct call_options *options,
                                     const struct token_split *split, int32_t world, int32_t rank);

/* Reads and resets the group's counters and the layer's load counts; compares, times left out. */
void check_counts(const struct layer_rank *rank, const struct expected_counts *expected,
                  int64_t num_tokens, const char *what);

#endif
