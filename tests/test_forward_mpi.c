/* sy_forward over MPI: same token, same bits, in every world. */
#include <stdio.h>

#include "tests/support/backend.h"
#include "tests/support/expect.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"
#include "tests/support/team.h"

enum { NUM_TOKENS = 13, NUM_EXPERTS = 10, TOP_K = 4 };

/* An odd share of everything: waves and chunks that do not divide, strategies in turn. */
static struct call_options random_options(sy_combine combine) {
  return (struct call_options){
      .strategy = (sy_strategy)sy_test_random_between(SY_STRATEGY_EXACT, SY_STRATEGY_GATHER),
      .combine = combine,
      .output_dtype = SY_DTYPE_F32,
      .max_tokens = NUM_TOKENS,
      .wave_tokens = sy_test_random_between(2, NUM_TOKENS),
      .chunk_rows = sy_test_random_between(0, 8),
      .gap = sy_test_random_between(0, 3)};
}

static struct token_split any_split(int turn) {
  const int world = sy_test_world();
  return turn == 0   ? split_evenly(NUM_TOKENS, world)
         : turn == 1 ? split_all_to(NUM_TOKENS, world, world - 1)
                     : split_randomly(NUM_TOKENS, world);
}

/* ---- Per slot: nothing about the ranks matters ---- */

static void check_as_alone(const sy_shape *shape, int turns, const char *what) {
  struct team team;
  if (team_open(&team, shape, NUM_TOKENS)) {
    const struct call_options plain = {.combine = SY_COMBINE_PER_SLOT,
                                       .output_dtype = SY_DTYPE_F32};
    float *alone = layer_case_outputs(&team.c, SY_DTYPE_F32);
    layer_case_alone(&team.c, &plain, alone);
    for (int turn = 0; turn < turns; ++turn) {
      const struct token_split split = any_split(turn);
      const struct call_options options = random_options(SY_COMBINE_PER_SLOT);
      team_check(&team, &options, &split, alone, what);
    }
  }
  team_close(&team);
}

TEST(per_slot_bits_do_not_depend_on_the_world) {
  for (int mode = 0; mode < 3; ++mode) {
    const sy_shape shape = small_shape((sy_mode)mode, 64, 144, NUM_EXPERTS, TOP_K);
    check_as_alone(&shape, 4, "another world");
  }
}

/* Any rank owns any experts, in any local order; some may own none. */
static void draw_placement(int32_t world, int32_t *rank_of, int32_t *local_of) {
  int32_t owned[LAYER_CASE_MAX_WORLD] = {0};
  for (int32_t e = 0; e < NUM_EXPERTS; ++e) {
    rank_of[e] = (int32_t)sy_test_random_between(0, world - 1);
    local_of[e] = owned[rank_of[e]]++;
  }
  for (int32_t e = 0; e < NUM_EXPERTS; ++e) {
    const int32_t other = (int32_t)sy_test_random_between(0, NUM_EXPERTS - 1);
    if (rank_of[other] == rank_of[e]) {
      const int32_t local = local_of[e];
      local_of[e] = local_of[other];
      local_of[other] = local;
    }
  }
}

TEST(per_slot_bits_do_not_depend_on_the_placement) {
  for (int mode = 0; mode < 3; ++mode) {
    int32_t rank_of[NUM_EXPERTS];
    int32_t local_of[NUM_EXPERTS];
    draw_placement(sy_test_world(), rank_of, local_of);
    sy_shape shape = small_shape((sy_mode)mode, 64, 32, NUM_EXPERTS, TOP_K);
    shape.expert_rank = rank_of;
    shape.expert_local = mode == 0 ? NULL : local_of;
    check_as_alone(&shape, 2, "another placement");
  }
}

/* ---- Per rank: all but the world matters not ---- */

TEST(per_rank_bits_do_not_depend_on_who_brings_the_token) {
  for (int mode = 0; mode < 3; ++mode) {
    const sy_shape shape = small_shape((sy_mode)mode, 64, 144, NUM_EXPERTS, TOP_K);
    struct team team;
    if (team_open(&team, &shape, NUM_TOKENS)) {
      const struct call_options plain = {.strategy = SY_STRATEGY_EXACT,
                                         .output_dtype = SY_DTYPE_F32};
      const struct token_split even = any_split(0);
      float *expected = layer_case_outputs(&team.c, SY_DTYPE_F32);
      layer_rank_run(&team.rank, &plain, &even, expected);
      team_share(&team, SY_DTYPE_F32, &even, expected);
      for (int turn = 0; turn < 5; ++turn) {
        const struct token_split split = any_split(turn);
        const struct call_options options = random_options(SY_COMBINE_PER_RANK);
        team_check(&team, &options, &split, expected, "another split");
      }
    }
    team_close(&team);
  }
}

TEST(bits_do_not_depend_on_threads) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 144, NUM_EXPERTS, TOP_K);
  struct team team;
  if (team_open(&team, &shape, NUM_TOKENS)) {
    const struct call_options options = {.strategy = SY_STRATEGY_EXACT,
                                         .output_dtype = SY_DTYPE_F32};
    const struct token_split split = any_split(2);
    float *expected = layer_case_outputs(&team.c, SY_DTYPE_F32);
    layer_rank_run(&team.rank, &options, &split, expected);
    sy_group *group = team_group(0, 2 + sy_test_rank() % 2);
    struct layer_rank threaded;
    float *got = layer_case_outputs(&team.c, SY_DTYPE_F32);
    if (layer_rank_open(&threaded, &team.c, group) &&
        layer_rank_run(&threaded, &options, &split, got) == SY_OK) {
      same_bits(&team.c, SY_DTYPE_F32, got, expected, split.first[sy_test_rank()],
                split.first[sy_test_rank() + 1], "other threads");
    }
    layer_rank_close(&threaded);
    sy_group_destroy(group);
  }
  team_close(&team);
}

/* ---- The seed's shapes ---- */

/* (tokens, top-k, experts) of the seed's tests, split over the ranks; to the bit and
 * to the oracle. */
TEST(the_seeds_shapes) {
  static const int32_t seeds[][3] = {{2, 8, 8}, {4, 8, 16}, {4, 4, 8}};
  for (int i = 0; i < 3 * NUM_SHAPE_KINDS; ++i) {
    const int32_t *seed = seeds[i / NUM_SHAPE_KINDS];
    const sy_shape shape = shape_of_kind(i % NUM_SHAPE_KINDS, 64, 96, seed[2], seed[1]);
    struct team team;
    if (team_open(&team, &shape, seed[0])) {
      const struct token_split split = split_evenly(seed[0], sy_test_world());
      struct call_options options = {.strategy = (sy_strategy)(1 + i % 3),
                                     .output_dtype = SY_DTYPE_F32};
      team_check_derived(&team, &options, &split, "the seed's shape");
      options.combine = SY_COMBINE_PER_SLOT;
      team_check_derived(&team, &options, &split, "the seed's shape, per slot");
      float *outputs = layer_case_outputs(&team.c, SY_DTYPE_F32);
      layer_rank_run(&team.rank, &options, &split, outputs);
      team_share(&team, SY_DTYPE_F32, &split, outputs);
      const double distance = layer_case_distance(&team.c, outputs, 0, seed[0]);
      CHECK(distance <= layer_case_tolerance(shape.mode));
      if (sy_test_rank() == 0) {
        printf("tokens %d, top-k %d, experts %d, kind %d: %.3g from the oracle\n", seed[0], seed[1],
               seed[2], i % NUM_SHAPE_KINDS, distance);
      }
    }
    team_close(&team);
  }
}
