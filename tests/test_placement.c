/* Placements: global expert -> rank and local expert there. */
#include <stdio.h>

#include "tests/support/failure.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"

enum { MAX_EXPERTS = 64 };

static sy_shape shape_of(int32_t num_experts) {
  return small_shape(SY_MODE_W4A4, 16, 16, num_experts, 2);
}

/* The shares differ by one at most, the larger ones first; experts ascend through them. */
TEST(contiguous_placement_deals_evenly) {
  for (int32_t experts = 1; experts <= 40; ++experts) {
    for (int32_t world = 1; world <= 50; ++world) {
      const sy_shape shape = shape_of(experts);
      int32_t rank[MAX_EXPERTS];
      int32_t local[MAX_EXPERTS];
      if (!CHECK_OK(sy_placement_resolve(&shape, world, rank, local))) {
        return;
      }
      int32_t e = 0;
      for (int32_t p = 0; p < world; ++p) {
        const int32_t share = experts / world + (p < experts % world ? 1 : 0);
        for (int32_t i = 0; i < share; ++i, ++e) {
          CHECK_EQ_I64(rank[e], p);
          CHECK_EQ_I64(local[e], i);
        }
      }
      CHECK_EQ_I64(e, experts);
    }
  }
}

TEST(local_experts_ascend_where_no_table_says_otherwise) {
  const int32_t rank_table[] = {2, 0, 2, 1, 0, 2};
  sy_shape shape = shape_of(6);
  shape.expert_rank = rank_table;
  int32_t rank[6];
  int32_t local[6];
  CHECK_OK(sy_placement_resolve(&shape, 4, rank, local)); /* rank 3 owns none */
  const int32_t expected[] = {0, 0, 1, 0, 1, 2};
  CHECK_EQ_BYTES(rank, rank_table, sizeof rank);
  CHECK_EQ_BYTES(local, expected, sizeof local);
}

TEST(tables_are_taken_as_they_are) {
  for (int32_t world = 1; world <= 5; ++world) {
    int32_t rank_table[MAX_EXPERTS];
    int32_t local_table[MAX_EXPERTS];
    int32_t owned[5] = {0};
    for (int32_t e = 0; e < 20; ++e) {
      rank_table[e] = (int32_t)sy_test_random_between(0, world - 1);
      local_table[e] = owned[rank_table[e]]++;
    }
    for (int32_t e = 0; e < 20; ++e) { /* local experts of a rank trade places */
      const int32_t other = (int32_t)sy_test_random_between(0, 19);
      if (rank_table[other] == rank_table[e]) {
        const int32_t local = local_table[e];
        local_table[e] = local_table[other];
        local_table[other] = local;
      }
    }
    sy_shape shape = shape_of(20);
    shape.expert_rank = rank_table;
    shape.expert_local = local_table;
    int32_t rank[20];
    int32_t local[20];
    CHECK_OK(sy_placement_resolve(&shape, world, rank, local));
    CHECK_EQ_BYTES(rank, rank_table, sizeof rank);
    CHECK_EQ_BYTES(local, local_table, sizeof local);
    CHECK_OK(sy_placement_resolve(&shape, world, NULL, NULL));
  }
}

static void check_refused(int32_t world, const int32_t *rank_table, const int32_t *local_table,
                          const char *thing, const char *range) {
  sy_shape shape = shape_of(4);
  shape.expert_rank = rank_table;
  shape.expert_local = local_table;
  int32_t rank[4] = {-7, -7, -7, -7};
  int32_t local[4] = {-7, -7, -7, -7};
  CHECK_FAILS(sy_placement_resolve(&shape, world, rank, local), NULL, SY_ERR_ARGUMENT, thing,
              range);
  for (int i = 0; i < 4; ++i) {
    CHECK(rank[i] == -7 && local[i] == -7);
  }
}

TEST(bad_tables_are_refused) {
  const int32_t good[] = {0, 1, 1, 0};
  check_refused(2, (const int32_t[]){0, 1, 2, 0}, NULL, "expert_rank[2] is 2", "0 to 1");
  check_refused(2, (const int32_t[]){0, -1, 1, 0}, NULL, "expert_rank[1] is -1", "0 to 1");
  check_refused(2, good, (const int32_t[]){0, 0, 1, 2}, "expert_local[3] is 2", "0 to 1");
  check_refused(2, good, (const int32_t[]){0, 0, -1, 1}, "expert_local[2] is -1", "0 to 1");
  check_refused(2, good, (const int32_t[]){0, 1, 1, 1}, "expert_local[2] is 1",
                "rank 1 has given already");
  check_refused(1, (const int32_t[]){0, 0, 0, 0}, (const int32_t[]){0, 1, 2, 2},
                "expert_local[3] is 2", "rank 0 has given already");
  check_refused(2, NULL, good, "expert_local", "without expert_rank");
  check_refused(0, NULL, NULL, "world is 0", "1 to 65536");
}
