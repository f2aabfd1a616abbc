/* In a world of one nothing is allocated after set-up. */
#include "tests/support/alloc_free.h"
#include "tests/support/backend.h"
#include "tests/support/harness.h"
#include "tests/support/spoil.h"

TEST(allocations_of_the_library_are_noticed) {
  const sy_shape shape = spoil_shape();
  const struct call_options options = {.max_tokens = 9};
  const struct token_split split = {{0}};
  struct layer_case c;
  layer_case_make(&c, &shape, 1);
  alloc_watch();
  sy_plan *plan = layer_case_plan(&c, &options, &split, 1, 0);
  const uint64_t calls_of_create = alloc_watched();
  alloc_watch();
  sy_plan_destroy(plan);
  CHECK(alloc_watched() > 0 && calls_of_create > 0);
  layer_case_free(&c);
}

TEST(forward_allocates_nothing) {
  const int num_kinds = backend_is_gpu() ? 3 : 3 * 2; /* threads are the CPU's */
  for (int kind = 0; kind < num_kinds; ++kind) {
    sy_shape shape = spoil_shape();
    shape.mode = (sy_mode)(kind % 3);
    struct layer_case c;
    layer_case_make(&c, &shape, 7);
    sy_group *group = local_group(1 + kind / 3);
    struct layer_rank rank;
    if (layer_rank_open(&rank, &c, group)) {
      const struct token_split split = split_evenly(7, 1);
      check_forward_is_alloc_free(&rank, &split);
    }
    layer_rank_close(&rank);
    sy_group_destroy(group);
    layer_case_free(&c);
  }
}
