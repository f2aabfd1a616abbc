/* The bytes that plans expect to move against those that groups have really moved, over all ranks:
 * equal where the routing plays no part, near where it is random. */
#include <mpi.h>

#include "tests/support/harness.h"
#include "tests/support/team.h"

enum { TOKENS_OF_A_RANK = 400 };

struct traffic {
  double expected, sent, received;
};

/* Sums over the ranks. */
static struct traffic measure(const struct team *team, const struct call_options *options) {
  const struct token_split split = split_evenly(team->c.num_tokens, sy_test_world());
  struct traffic mine = {0.0, 0.0, 0.0};
  struct traffic all = mine;
  struct layer_call call;
  sy_stats stats = SY_STATS_INIT;
  sy_plan_info info = SY_PLAN_INFO_INIT;
  if (layer_call_open(&call, &team->rank, options, &split)) {
    CHECK_OK(sy_group_stats(team->group, 1, &stats));
    CHECK_OK(layer_call_forward(&call));
    CHECK_OK(sy_group_stats(team->group, 0, &stats));
    CHECK_OK(sy_plan_query(call.plan, &info));
    mine = (struct traffic){info.exchange_traffic_bytes, (double)stats.bytes_sent,
                            (double)stats.bytes_received};
    layer_call_close(&call);
  }
  MPI_Allreduce(&mine, &all, 3, MPI_DOUBLE, MPI_SUM, MPI_COMM_WORLD);
  return all;
}

static void check_traffic(const struct team *team, sy_strategy strategy, double tolerance) {
  for (int combine = SY_COMBINE_PER_RANK; combine <= SY_COMBINE_PER_SLOT; ++combine) {
    for (int64_t wave_tokens = 0; wave_tokens <= 150; wave_tokens += 150) {
      const struct call_options options = {
          .strategy = strategy, .combine = (sy_combine)combine, .wave_tokens = wave_tokens};
      const struct traffic traffic = measure(team, &options);
      CHECK_NEAR(traffic.sent, traffic.received, 0.0);
      CHECK_NEAR(traffic.sent, traffic.expected, tolerance * traffic.expected);
      CHECK(traffic.sent > 0.0 || sy_test_world() == 1);
    }
  }
}

TEST(plans_expect_the_bytes_that_move) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 32, 21, 4);
  struct team team;
  if (team_open(&team, &shape, TOKENS_OF_A_RANK * sy_test_world())) {
    check_traffic(&team, SY_STRATEGY_FIXED, 0.0);
    check_traffic(&team, SY_STRATEGY_GATHER, 0.0);
    check_traffic(&team, SY_STRATEGY_EXACT, 0.02); /* some ten standard deviations at W = 2 */
  }
  team_close(&team);
}
