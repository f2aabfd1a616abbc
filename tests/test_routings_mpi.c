/* Routings that fill every buffer to its bound, and those that leave nearly all of them empty. Each
 * result is compared to the bit with what plain loops derive, each counter with what the routing
 * says; buffers are fenced, or have redzones around them. */
#include <math.h>
#include <mpi.h>

#include "tests/support/expect.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"
#include "tests/support/team.h"

/* Everything that routings here are made from. */
struct situation {
  int32_t world;
  int32_t num_experts;
  int32_t per_rank; /* of the first ranks: ceil(E / W) */
};

typedef int32_t (*id_fn)(const struct situation *s, int64_t token, int32_t slot);

static void set_ids(struct team *team, id_fn id_of) {
  const struct situation s = {sy_test_world(), team->c.shape.num_experts,
                              (team->c.shape.num_experts + sy_test_world() - 1) / sy_test_world()};
  const int32_t top_k = team->c.shape.top_k;
  for (int64_t i = 0; i < team->c.num_tokens * top_k; ++i) {
    team->c.ids[i] = id_of(&s, i / top_k, (int32_t)(i % top_k));
  }
}

/* Every strategy and combine; one wave and one chunk with exactly the room there must be, then the
 * smallest of both. */
static void check_everywhere(struct team *team, const struct token_split *split, const char *what) {
  for (int kind = 0; kind < 3 * 2 * 2; ++kind) {
    struct call_options options = {.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3),
                                   .combine = (sy_combine)(kind / 3 % 2),
                                   .own_scratch = true,
                                   .chunk_rows = INT32_MAX};
    if (kind >= 6) {
      options.wave_tokens = 2;
      options.chunk_rows = 1;
    }
    team_check_derived(team, &options, split, what);
  }
}

/* The most that any rank receives and computes in one exact wave of everything. */
struct peak {
  uint64_t received_rows;
  uint64_t routed_rows;
};

static struct peak find_peak(const struct team *team, const struct token_split *split) {
  const struct call_options options = {.strategy = SY_STRATEGY_EXACT};
  struct peak peak = {0};
  for (int32_t rank = 0; rank < sy_test_world(); ++rank) {
    const struct expected_counts n =
        expect_counts(&team->c, &options, split, sy_test_world(), rank);
    peak.received_rows =
        n.received_rows > peak.received_rows ? n.received_rows : peak.received_rows;
    peak.routed_rows = n.routed_rows > peak.routed_rows ? n.routed_rows : peak.routed_rows;
  }
  return peak;
}

/* Opens a team, sets the ids, checks everywhere. */
static struct peak check_routing(const sy_shape *shape, int64_t num_tokens, id_fn id_of,
                                 const char *what) {
  struct team team;
  struct peak peak = {0};
  if (team_open(&team, shape, num_tokens)) {
    if (id_of != NULL) {
      set_ids(&team, id_of);
    }
    const struct token_split even = split_evenly(num_tokens, sy_test_world());
    check_everywhere(&team, &even, what);
    peak = find_peak(&team, &even);
  }
  team_close(&team);
  return peak;
}

/* ---- At the bounds ---- */

enum { C = 4 }; /* tokens of each rank */

/* Distinct experts, all of the last rank that has as many as the first. */
static int32_t of_one_rank(const struct situation *s, int64_t token, int32_t slot) {
  (void)token;
  const int32_t first = (s->num_experts / s->per_rank - 1) * s->per_rank;
  return first + slot % s->per_rank;
}

TEST(all_tokens_to_one_rank) {
  const int32_t world = sy_test_world();
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 3 * world, 3);
  const struct peak peak = check_routing(&shape, C * world, of_one_rank, "all to one rank");
  CHECK_EQ_I64((int64_t)peak.received_rows, world * C);
  CHECK_EQ_I64((int64_t)peak.routed_rows, world * C * 3); /* W C min(K, E_local) */
}

static int32_t always_the_last(const struct situation *s, int64_t token, int32_t slot) {
  (void)token;
  return slot == 0 ? s->num_experts - 1 : -1;
}

static int32_t always_the_first(const struct situation *s, int64_t token, int32_t slot) {
  (void)s, (void)token, (void)slot;
  return 0; /* named K times: routed once */
}

TEST(all_slots_to_one_expert) {
  const int32_t world = sy_test_world();
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 3 * world, 3);
  const struct peak last = check_routing(&shape, C * world, always_the_last, "the last expert");
  const struct peak first = check_routing(&shape, C * world, always_the_first, "the first expert");
  CHECK_EQ_I64((int64_t)last.routed_rows, world * C);
  CHECK_EQ_I64((int64_t)first.routed_rows, world * C);
}

static int32_t rank_by_rank(const struct situation *s, int64_t token, int32_t slot) {
  const int32_t rank = slot % s->world;
  return rank * s->per_rank + (int32_t)((token + slot / s->world) % s->per_rank);
}

/* C * min(K, W) rows sent by each rank, W * C received by each. */
TEST(every_token_to_every_rank) {
  const int32_t world = sy_test_world();
  sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 3 * world, world);
  struct peak peak = check_routing(&shape, C * world, rank_by_rank, "every rank, by one slot");
  CHECK_EQ_I64((int64_t)peak.received_rows, world * C);
  CHECK_EQ_I64((int64_t)peak.routed_rows, world * C);
  shape.top_k = 2 * world;
  peak = check_routing(&shape, C * world, rank_by_rank, "every rank, by two slots");
  CHECK_EQ_I64((int64_t)peak.received_rows, world * C);
  CHECK_EQ_I64((int64_t)peak.routed_rows, 2 * world * C);
}

/* min(K, E_max) slots per row, and still C * K slots in all. */
TEST(more_slots_than_local_experts) {
  const int32_t world = sy_test_world();
  const sy_shape shape = small_shape(SY_MODE_W4A16, 32, 32, 2 * world, 2 * world);
  check_routing(&shape, C * world, NULL, "every expert for every token");
  const sy_shape masked = small_shape(SY_MODE_W4A16, 32, 32, world, 2 * world + 1);
  check_routing(&masked, C * world, NULL, "more slots than experts");
}

TEST(waves_and_chunks_of_one) {
  const sy_shape shape = small_shape(SY_MODE_BF16, 32, 32, 9, 3);
  struct team team;
  if (team_open(&team, &shape, 8)) {
    const struct token_split even = split_evenly(8, sy_test_world());
    for (int kind = 0; kind < 3 * 2; ++kind) {
      const struct call_options options = {.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3),
                                           .combine = (sy_combine)(kind / 3),
                                           .wave_tokens = 1,
                                           .chunk_rows = 1,
                                           .own_scratch = true};
      team_check_derived(&team, &options, &even, "waves and chunks of one");
    }
  }
  team_close(&team);
}

/* Budgets that have room for C tokens, and M rows, and not for one more. */
static void check_budgets(struct team *team, struct call_options options, int64_t wave_tokens,
                          int64_t chunk_rows) {
  const struct token_split even = split_evenly(team->c.num_tokens, sy_test_world());
  sy_plan_info info = SY_PLAN_INFO_INIT;
  options.wave_tokens = wave_tokens;
  options.chunk_rows = chunk_rows;
  for (int pass = 0; pass < 2; ++pass) {
    sy_plan *plan = layer_case_plan(&team->c, &options, &even, sy_test_world(), sy_test_rank());
    CHECK_OK(sy_plan_query(plan, &info));
    sy_plan_destroy(plan);
    CHECK_EQ_I64(info.wave_tokens, wave_tokens);
    CHECK_EQ_I64(info.chunk_rows, chunk_rows);
    options.wave_tokens = 0;
    options.chunk_rows = 0;
    options.exchange_budget_bytes = info.exchange_bytes;
    options.scratch_budget_bytes = info.scratch_bytes;
  }
  team_check_derived(team, &options, &even, "budgets");
}

TEST(budgets_that_force_many_waves_and_chunks) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 160, 3 * sy_test_world(), 3);
  struct team team;
  if (team_open(&team, &shape, 6 * sy_test_world())) {
    for (int kind = 0; kind < 3 * 2; ++kind) {
      const struct call_options options = {.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3),
                                           .combine = (sy_combine)(kind / 3),
                                           .own_scratch = true};
      check_budgets(&team, options, 1, 1);
      check_budgets(&team, options, 4, 3);
    }
  }
  team_close(&team);
}

/* ---- Experts and ranks that do not match ---- */

TEST(experts_that_do_not_divide) {
  const int32_t world = sy_test_world();
  for (int32_t more = 1; more < world; ++more) {
    const sy_shape shape = small_shape(SY_MODE_W4A4, 16, 16, 2 * world + more, 3);
    check_routing(&shape, 7, NULL, "experts that do not divide");
  }
}

/* Ranks without experts still serve their tokens. */
TEST(more_ranks_than_experts) {
  for (int32_t experts = 1; experts < sy_test_world(); ++experts) {
    const sy_shape shape = small_shape(SY_MODE_W4A4, 16, 16, experts, 2);
    check_routing(&shape, 9, NULL, "more ranks than experts");
  }
}

static int32_t to_the_hot_one(const struct situation *s, int64_t token, int32_t slot) {
  (void)token;
  return slot == 0 ? s->num_experts / 2 : -1;
}

/* Around the tile sizes that kernels like, and the local experts. */
TEST(many_rows_to_one_expert) {
  static const int64_t counts[] = {1, 2, 3, 4, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; ++i) {
    const sy_shape shape = small_shape((sy_mode)(i % 3), 16, 32, 3 * sy_test_world(), 2);
    struct team team;
    if (team_open(&team, &shape, counts[i])) {
      set_ids(&team, to_the_hot_one);
      const struct token_split even = split_evenly(counts[i], sy_test_world());
      const struct call_options options = {.strategy = (sy_strategy)(SY_STRATEGY_EXACT + i % 3),
                                           .combine = (sy_combine)(i / 3 % 2)};
      team_check_derived(&team, &options, &even, "many rows to one expert");
    }
    team_close(&team);
  }
}

/* ---- Few tokens ---- */

TEST(uneven_tokens) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 7, 3);
  struct team team;
  if (team_open(&team, &shape, 11)) {
    for (int32_t rank = 0; rank < sy_test_world(); ++rank) { /* the others have none */
      const struct token_split split = split_all_to(11, sy_test_world(), rank);
      check_everywhere(&team, &split, "all tokens on one rank");
    }
    const struct token_split split = split_randomly(11, sy_test_world());
    check_everywhere(&team, &split, "uneven tokens");
  }
  team_close(&team);
}

TEST(no_tokens_on_any_rank) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 7, 3);
  check_routing(&shape, 0, NULL, "no tokens at all");
}

static int32_t some_masked(const struct situation *s, int64_t token, int32_t slot) {
  return (token + slot) % 3 == 0 ? -1 : (int32_t)((5 * token + slot) % s->num_experts);
}

static int32_t all_masked(const struct situation *s, int64_t token, int32_t slot) {
  (void)s, (void)token, (void)slot;
  return -1;
}

static int32_t named_again(const struct situation *s, int64_t token, int32_t slot) {
  return slot == 2 ? -1 : (int32_t)((token + slot / 3) % s->num_experts);
}

TEST(masked_and_repeated_ids) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 7, 6);
  check_routing(&shape, 9, some_masked, "masked slots");
  check_routing(&shape, 9, all_masked, "all slots masked: zeros");
  check_routing(&shape, 9, named_again, "experts named again");
}

/* ---- What is not finite ---- */

TEST(a_value_that_is_not_finite_stays_with_its_token) {
  for (int kind = 0; kind < 3 * 2; ++kind) {
    const sy_shape shape = small_shape((sy_mode)(kind % 3), 32, 32, 6, 2);
    struct team team;
    if (team_open(&team, &shape, 9)) {
      const struct call_options options = {.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3),
                                           .combine = (sy_combine)(kind / 3),
                                           .output_dtype = SY_DTYPE_F32};
      const struct token_split split = split_evenly(9, sy_test_world());
      float *clean = layer_case_outputs(&team.c, SY_DTYPE_F32);
      float *got = layer_case_outputs(&team.c, SY_DTYPE_F32);
      layer_rank_run(&team.rank, &options, &split, clean);
      team.c.hidden[4 * 32 + 5] = kind % 2 == 0 ? 0x7F80u : 0xFFC1u; /* inf; NaN */
      layer_rank_run(&team.rank, &options, &split, got);
      for (int64_t t = split.first[sy_test_rank()]; t < split.first[sy_test_rank() + 1]; ++t) {
        if (t != 4) {
          same_bits(&team.c, SY_DTYPE_F32, got, clean, t, t + 1, "beside a token that is NaN");
        }
        for (int64_t i = 0; t == 4 && i < 32; ++i) {
          CHECK(isnan(got[t * 32 + i]));
        }
      }
    }
    team_close(&team);
  }
}

/* ---- Halves ---- */

TEST(halves_give_what_the_whole_gives) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 7, 3);
  struct team team;
  if (team_open(&team, &shape, 10)) {
    for (int kind = 0; kind < 3 * 2; ++kind) {
      const struct call_options options = {.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3),
                                           .combine = (sy_combine)(kind / 3),
                                           .halves = true,
                                           .own_scratch = kind % 2 != 0,
                                           .chunk_rows = kind};
      const struct token_split split = split_randomly(10, sy_test_world());
      team_check_derived(&team, &options, &split, "halves");
    }
  }
  team_close(&team);
}

/* The halves in order, with calls out of order on some ranks in between. */
static void walk_with_slips(const struct layer_call *call) {
  sy_group *group = call->rank->group;
  CHECK_OK(sy_dispatch_start(call->rank->layer, call->plan, &call->io, NULL, 0, NULL));
  if (sy_test_rank() == 1) {
    CHECK_FAILS(sy_combine_finish(group), group, SY_ERR_STATE, "rank 1", "out of order");
  }
  CHECK_OK(sy_dispatch_finish(group));
  CHECK_OK(sy_experts(group));
  if (sy_test_rank() == 0) {
    CHECK_FAILS(sy_forward(call->rank->layer, call->plan, &call->io, NULL, 0, NULL), group,
                SY_ERR_STATE, "rank 0", "in flight");
  }
  CHECK_OK(sy_combine_start(group));
  CHECK_OK(sy_combine_finish(group));
}

/* A call out of order is its rank's alone; the halves go on where they were. */
TEST(halves_out_of_order_stay_on_their_rank) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 7, 3);
  const int rank = sy_test_rank();
  struct team team;
  if (team_open(&team, &shape, 10)) {
    const struct call_options options = {.halves = true};
    const struct token_split split = split_evenly(10, sy_test_world());
    void *expected = layer_case_outputs(&team.c, SY_DTYPE_BF16);
    void *got = layer_case_outputs(&team.c, SY_DTYPE_BF16);
    struct layer_call call;
    expect_outputs(&team.c, &options, sy_test_world(), expected);
    if (layer_call_open(&call, &team.rank, &options, &split)) {
      walk_with_slips(&call);
      layer_call_read(&call, got);
      same_bits(&team.c, SY_DTYPE_BF16, got, expected, split.first[rank], split.first[rank + 1],
                "halves with slips");
      const struct expected_counts counts =
          expect_counts(&team.c, &options, &split, sy_test_world(), rank);
      check_counts(&team.rank, &counts, call.num_tokens, "halves with slips");
    }
    layer_call_close(&call);
    team_check_derived(&team, &options, &split, "after halves out of order");
  }
  team_close(&team);
}

/* ---- Groups ---- */

/* Calls of one group begin and end between the halves of another. */
TEST(groups_are_independent) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 7, 3);
  const int rank = sy_test_rank();
  struct team team;
  struct team other;
  if (team_open(&team, &shape, 10) && team_open(&other, &shape, 6)) {
    const struct call_options options = {.halves = true};
    const struct token_split split = split_evenly(10, sy_test_world());
    const struct token_split other_split = split_randomly(6, sy_test_world());
    void *expected = layer_case_outputs(&team.c, SY_DTYPE_BF16);
    void *got = layer_case_outputs(&team.c, SY_DTYPE_BF16);
    struct layer_call call;
    expect_outputs(&team.c, &options, sy_test_world(), expected);
    if (layer_call_open(&call, &team.rank, &options, &split)) {
      CHECK_OK(sy_dispatch_start(team.rank.layer, call.plan, &call.io, NULL, 0, NULL));
      team_check_derived(&other, &options, &other_split, "between start and finish");
      CHECK_OK(sy_dispatch_finish(team.group));
      CHECK_OK(sy_experts(team.group));
      CHECK_OK(sy_combine_start(team.group));
      team_check_derived(&other, &options, &other_split, "during the return");
      CHECK_OK(sy_combine_finish(team.group));
      layer_call_read(&call, got);
      same_bits(&team.c, SY_DTYPE_BF16, got, expected, split.first[rank], split.first[rank + 1],
                "around calls of another group");
    }
    layer_call_close(&call);
  }
  team_close(&other);
  team_close(&team);
}

/* ---- Counters over all ranks ---- */

enum { TOKENS, ROUTED_ROWS, LOAD, BYTES_SENT, BYTES_RECEIVED, NUM_SUMS };

static void sum_counters(const struct team *team, uint64_t *sums) {
  sy_stats stats = SY_STATS_INIT;
  uint64_t counts[64];
  size_t count = 0;
  CHECK_OK(sy_group_stats(team->group, 0, &stats));
  CHECK_OK(sy_layer_load_counts(team->rank.layer, 0, counts, 64, &count));
  uint64_t mine[NUM_SUMS] = {[TOKENS] = stats.tokens,
                             [ROUTED_ROWS] = stats.routed_rows,
                             [BYTES_SENT] = stats.bytes_sent,
                             [BYTES_RECEIVED] = stats.bytes_received};
  for (size_t e = 0; e < count; ++e) {
    mine[LOAD] += counts[e];
  }
  MPI_Allreduce(mine, sums, NUM_SUMS, MPI_UINT64_T, MPI_SUM, MPI_COMM_WORLD);
}

/* No row is lost or counted twice, whatever the strategy. */
TEST(counters_add_up_over_all_ranks) {
  enum { NUM_TOKENS = 10, TOP_K = 3 };
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 7, TOP_K);
  struct team team;
  if (team_open(&team, &shape, NUM_TOKENS)) {
    void *outputs = layer_case_outputs(&team.c, SY_DTYPE_BF16);
    for (uint64_t calls = 1; calls <= 3 * 2; ++calls) {
      const struct call_options options = {.strategy = (sy_strategy)(1 + calls % 3),
                                           .combine = (sy_combine)(calls % 2),
                                           .wave_tokens = 3};
      const struct token_split split = split_randomly(NUM_TOKENS, sy_test_world());
      uint64_t sums[NUM_SUMS];
      layer_rank_run(&team.rank, &options, &split, outputs);
      sum_counters(&team, sums);
      CHECK_EQ_U64(sums[TOKENS], calls * NUM_TOKENS);
      CHECK_EQ_U64(sums[ROUTED_ROWS], calls * NUM_TOKENS * TOP_K); /* ids are distinct */
      CHECK_EQ_U64(sums[LOAD], sums[ROUTED_ROWS]);
      CHECK_EQ_U64(sums[BYTES_SENT], sums[BYTES_RECEIVED]);
      CHECK(sums[BYTES_SENT] > 0);
    }
  }
  team_close(&team);
}
