#include "tests/support/team.h"

#include "tests/support/backend.h"
#include "tests/support/expect.h"
#include "tests/support/harness.h"
#include "tests/support/world.h"

sy_group *team_group(int32_t timeout_ms, int32_t num_threads) {
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.timeout_ms = timeout_ms > 0 ? timeout_ms : 600000;
  desc.num_threads = num_threads;
  sy_group *group = NULL;
  CHECK_OK(backend_group_mpi(&desc, &group));
  return group;
}

bool team_open(struct team *team, const sy_shape *shape, int64_t num_tokens) {
  layer_case_make(&team->c, shape, num_tokens);
  team->group = team_group(0, 1);
  return layer_rank_open(&team->rank, &team->c, team->group);
}

void team_close(struct team *team) {
  layer_rank_close(&team->rank);
  sy_group_destroy(team->group);
  layer_case_free(&team->c);
}

void team_check(struct team *team, const struct call_options *options,
                const struct token_split *split, const void *expected, const char *what) {
  void *got = layer_case_outputs(&team->c, options->output_dtype);
  if (layer_rank_run(&team->rank, options, split, got) == SY_OK) {
    const int rank = sy_test_rank();
    same_bits(&team->c, options->output_dtype, got, expected, split->first[rank],
              split->first[rank + 1], what);
  }
}

void team_check_derived(struct team *team, const struct call_options *options,
                        const struct token_split *split, const char *what) {
  const int rank = sy_test_rank();
  void *expected = layer_case_outputs(&team->c, options->output_dtype);
  expect_outputs(&team->c, options, sy_test_world(), expected);
  team_check(team, options, split, expected, what);
  const struct expected_counts counts =
      expect_counts(&team->c, options, split, sy_test_world(), rank);
  check_counts(&team->rank, &counts, split->first[rank + 1] - split->first[rank], what);
}

void team_share(const struct team *team, sy_dtype dtype, const struct token_split *split,
                void *outputs) {
  const size_t row_bytes = layer_case_row_bytes(&team->c, dtype);
  size_t begins[LAYER_CASE_MAX_WORLD + 1];
  for (int r = 0; r <= sy_test_world(); ++r) {
    begins[r] = (size_t)split->first[r] * row_bytes;
  }
  sy_test_world_share(outputs, begins);
}
