/* Random layers, placements, splits, routings, plans and tensors: every output compared to the bit
 * with plain loops, every counter with what the routing says. SY_TEST_SEED gives other ones; what
 * fails names its round and call. */
#include <stdio.h>

#include "tests/support/backend.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"
#include "tests/support/team.h"

enum { MAX_EXPERTS = 12, MAX_TOKENS = 16, CALLS_OF_A_ROUND = 10 };

static int64_t between(int64_t low, int64_t high) { return sy_test_random_between(low, high); }

static bool chance(int percent) { return between(0, 99) < percent; }

/* ---- Layers ---- */

struct placement {
  int32_t rank_of[MAX_EXPERTS];
  int32_t local_of[MAX_EXPERTS];
};

/* Local experts of each rank in a random order: each expert takes any place still free. */
static void draw_placement(int32_t num_experts, struct placement *placement) {
  int32_t owned[LAYER_CASE_MAX_WORLD] = {0};
  bool taken[LAYER_CASE_MAX_WORLD][MAX_EXPERTS] = {{false}};
  for (int32_t e = 0; e < num_experts; ++e) {
    placement->rank_of[e] = (int32_t)between(0, sy_test_world() - 1);
    ++owned[placement->rank_of[e]];
  }
  for (int32_t e = 0; e < num_experts; ++e) {
    const int32_t rank = placement->rank_of[e];
    int32_t local = (int32_t)between(0, owned[rank] - 1);
    while (taken[rank][local]) {
      local = (local + 1) % owned[rank];
    }
    taken[rank][local] = true;
    placement->local_of[e] = local;
  }
}

static sy_shape draw_shape(struct placement *placement) {
  sy_shape shape = small_shape((sy_mode)between(0, 2), 16 * between(1, 2), 16 * between(1, 2),
                               (int32_t)between(1, MAX_EXPERTS), (int32_t)between(1, 6));
  shape.activation = (sy_activation)between(0, 3);
  shape.has_bias = chance(25) ? 1 : 0;
  if (chance(50)) {
    draw_placement(shape.num_experts, placement);
    shape.expert_rank = placement->rank_of;
    shape.expert_local = chance(50) ? placement->local_of : NULL;
  }
  return shape;
}

/* ---- Routings ---- */

/* Anything: repeated and masked ids; more or less skewed towards expert `favourite`. */
static void draw_ids(struct layer_case *c) {
  const int32_t top_k = c->shape.top_k;
  const int masked = (int)between(0, 3) * 15;
  const int skew = chance(50) ? 0 : (int)between(10, 100);
  const int32_t favourite = (int32_t)between(0, c->shape.num_experts - 1);
  const bool distinct = chance(50);
  for (int64_t i = 0; i < c->num_tokens * top_k; ++i) {
    int32_t id = (int32_t)between(0, c->shape.num_experts - 1);
    id = chance(skew) ? favourite : id;
    for (int64_t k = i - i % top_k; distinct && k < i; ++k) {
      id = c->ids[k] == id ? -1 : id;
    }
    c->ids[i] = chance(masked) ? -1 : id;
    c->weights[i] = (float)(2.0 * sy_test_random_unit() - 1.0);
  }
}

/* ---- Calls ---- */

static int64_t largest_share(const struct token_split *split) {
  int64_t most = 1;
  for (int32_t r = 0; r < sy_test_world(); ++r) {
    const int64_t share = split->first[r + 1] - split->first[r];
    most = share > most ? share : most;
  }
  return most;
}

/* What ranks may choose for themselves. */
static void draw_own_options(const struct token_split *split, struct call_options *options) {
  for (int rank = 0; rank < sy_test_world(); ++rank) { /* all ranks draw the same numbers */
    const int64_t chunk_rows = chance(30) ? 0 : between(1, sy_test_world() * largest_share(split));
    const sy_dtype output_dtype = (sy_dtype)between(0, 1);
    const int64_t gap = between(0, 2);
    const bool accumulate = chance(25);
    const bool own_scratch = chance(50);
    if (rank == sy_test_rank()) {
      options->chunk_rows = chunk_rows;
      options->output_dtype = output_dtype;
      options->gap = gap;
      options->accumulate = accumulate;
      options->own_scratch = own_scratch;
    }
  }
}

static struct call_options draw_options(const struct token_split *split) {
  const int64_t most = largest_share(split);
  struct call_options options = {.strategy =
                                     (sy_strategy)between(SY_STRATEGY_AUTO, SY_STRATEGY_GATHER),
                                 .combine = (sy_combine)between(0, 1),
                                 .return_dtype = (sy_dtype)between(0, 1),
                                 .output_dtype = (sy_dtype)between(0, 1),
                                 .max_tokens = most + between(0, 3),
                                 .wave_tokens = chance(30) ? 0 : between(1, most + 1),
                                 .chunk_rows = chance(30) ? 0 : between(1, sy_test_world() * most),
                                 .gap = between(0, 2),
                                 .accumulate = chance(25),
                                 .own_scratch = chance(50)};
  options.halves = chance(25) && (options.wave_tokens == 0 || options.wave_tokens >= most);
  draw_own_options(split, &options);
  return options;
}

static void run_round(sy_group *group, int64_t round) {
  struct placement placement;
  const sy_shape shape = draw_shape(&placement);
  struct team team = {.group = group};
  layer_case_make(&team.c, &shape, between(0, MAX_TOKENS));
  const bool open = layer_rank_open(&team.rank, &team.c, group);
  for (int i = 0; i < CALLS_OF_A_ROUND && open; ++i) {
    const struct token_split split = chance(70) ? split_randomly(team.c.num_tokens, sy_test_world())
                                                : split_evenly(team.c.num_tokens, sy_test_world());
    const struct call_options o = draw_options(&split);
    char what[200];
    draw_ids(&team.c);
    snprintf(what, sizeof what,
             "round %lld call %d (seed %llu): E %d K %d mode %d, strategy %d combine %d C %lld M "
             "%lld halves %d",
             (long long)round, i, (unsigned long long)sy_test_seed(), (int)shape.num_experts,
             (int)shape.top_k, (int)shape.mode, (int)o.strategy, (int)o.combine,
             (long long)o.wave_tokens, (long long)o.chunk_rows, (int)o.halves);
    team_check_derived(&team, &o, &split, what);
  }
  layer_rank_close(&team.rank);
  layer_case_free(&team.c);
}

static void run_rounds(int64_t rounds) {
  sy_group *group = team_group(0, 1);
  for (int64_t round = 0; round < rounds && group != NULL; ++round) {
    run_round(group, round);
  }
  sy_group_destroy(group);
  if (sy_test_rank() == 0) {
    printf("%lld calls\n", (long long)(rounds * CALLS_OF_A_ROUND));
  }
}

/* An emulated GPU takes its time. */
TEST(random_routings) { run_rounds(backend_is_gpu() ? 2 : 200); }

TEST_SLOW(many_random_routings) { run_rounds(1000); }
