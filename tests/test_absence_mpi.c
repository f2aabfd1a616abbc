/* A rank that does not come: within the timeout the others have an error that names it, every later
 * call says so, and all of it can be left behind. At least two ranks. */
#include <mpi.h>
#include <stdio.h>
#include <time.h>

#include "comm/clock.h"
#include "tests/support/backend.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"
#include "tests/support/spoil.h"

/* Long enough for a busy machine to bring those that do come. */
enum { TIMEOUT_MS = 1500 };

static bool is_last(void) { return sy_test_rank() == sy_test_world() - 1; }

struct subject {
  struct layer_case c;
  sy_group *group;
  struct layer_rank rank;
  struct layer_call call;
};

static bool subject_open(struct subject *s, const sy_shape *shape,
                         const struct call_options *options) {
  const int64_t num_tokens = 3 * sy_test_world();
  const struct token_split split = split_evenly(num_tokens, sy_test_world());
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.timeout_ms = TIMEOUT_MS;
  desc.num_threads = 1;
  layer_case_make(&s->c, shape, num_tokens);
  const bool open = CHECK_OK(backend_group_mpi(&desc, &s->group)) &&
                    layer_rank_open(&s->rank, &s->c, s->group) &&
                    layer_call_open(&s->call, &s->rank, options, &split);
  MPI_Barrier(MPI_COMM_WORLD); /* who comes, comes at the same time */
  return open;
}

static void subject_close(struct subject *s) {
  layer_call_close(&s->call);
  layer_rank_close(&s->rank);
  sy_group_destroy(s->group);
  layer_case_free(&s->c);
  MPI_Barrier(MPI_COMM_WORLD);
}

/* From begin_ns until now: the timeout, and not much more. */
static void check_in_time(int64_t begin_ns) {
  const int64_t ms = (sy_clock_ns() - begin_ns) / 1000000;
  CHECK(ms >= TIMEOUT_MS - 1 && ms < TIMEOUT_MS + 10000);
}

static void check_dead(struct subject *s) {
  CHECK_FAILS(layer_call_forward(&s->call), s->group, SY_ERR_PEER, "the group is dead");
  CHECK_STATUS(sy_dispatch_start(s->rank.layer, s->call.plan, &s->call.io, NULL, 0, NULL),
               SY_ERR_PEER);
  CHECK_STATUS(sy_dispatch_finish(s->group), SY_ERR_PEER);
  CHECK_STATUS(sy_experts(s->group), SY_ERR_PEER);
  CHECK_STATUS(sy_group_reserve(s->group, s->call.plan, 1), SY_ERR_PEER);
  CHECK_STATUS(sy_group_poll(s->group), SY_ERR_PEER);
  CHECK_STATUS(sy_group_wait(s->group, NULL, 1), SY_ERR_PEER);
  CHECK(layer_call_is_untouched(&s->call));
}

/* The last rank, and nobody else. */
static const char *last_alone(void) {
  static char text[32];
  snprintf(text, sizeof text, "rank %d;", sy_test_world() - 1);
  return text;
}

static void check_is_named(struct subject *s, const char *ranks, const char *stage) {
  char text[64];
  snprintf(text, sizeof text, "nothing heard in time from %s", ranks);
  CHECK_FAILS(layer_call_forward(&s->call), s->group, SY_ERR_PEER, text, stage);
}

/* As check_is_named, of ranks that have begun the step: over NCCL that is all that others know. */
static void check_does_not_end(struct subject *s, const char *ranks, const char *stage) {
  if (backend_is_gpu()) {
    CHECK_FAILS(layer_call_forward(&s->call), s->group, SY_ERR_PEER,
                "every rank has begun this step, and it does not end");
  } else {
    check_is_named(s, ranks, stage);
  }
}

/* Everyone but the last rank calls. */
static void check_last_is_named(struct subject *s) {
  const int64_t begin_ns = sy_clock_ns();
  check_is_named(s, last_alone(), "dispatch");
  check_in_time(begin_ns);
}

static sy_shape large_rows(void) {
  sy_shape shape = spoil_shape();
  shape.mode = SY_MODE_BF16;
  shape.hidden = 4096; /* not sent eagerly: our messages stay pending, too */
  shape.intermediate = 16;
  return shape;
}

static void check_never_comes(const sy_shape *shape, const struct call_options *options) {
  struct subject s;
  if (subject_open(&s, shape, options) && !is_last()) {
    check_last_is_named(&s);
    check_dead(&s);
  }
  subject_close(&s);
}

TEST(a_rank_that_never_comes_is_named) {
  const sy_shape shape = spoil_shape();
  for (int strategy = SY_STRATEGY_EXACT; strategy <= SY_STRATEGY_GATHER; ++strategy) {
    const struct call_options options = {.strategy = (sy_strategy)strategy};
    check_never_comes(&shape, &options);
  }
}

TEST(a_rank_that_never_comes_among_large_messages) {
  const sy_shape shape = large_rows();
  const struct call_options options = {.strategy = SY_STRATEGY_EXACT};
  check_never_comes(&shape, &options);
}

/* It finds the dispatched rows of the others, and then nobody who returns its own. */
TEST(a_rank_that_comes_too_late_finds_nobody) {
  const sy_shape shape = spoil_shape();
  const struct call_options options = {.strategy = SY_STRATEGY_FIXED};
  struct subject s;
  if (subject_open(&s, &shape, &options)) {
    if (!is_last()) {
      check_last_is_named(&s);
    }
    MPI_Barrier(MPI_COMM_WORLD);
    if (is_last()) {
      check_does_not_end(&s, "rank 0", "return");
    }
    check_dead(&s);
  }
  subject_close(&s);
}

TEST(a_rank_that_leaves_between_halves_is_named) {
  const sy_shape shape = spoil_shape();
  const struct call_options options = {.halves = true};
  struct subject s;
  if (subject_open(&s, &shape, &options)) {
    if (is_last()) {
      CHECK_OK(sy_dispatch_start(s.rank.layer, s.call.plan, &s.call.io, NULL, 0, NULL));
      CHECK_OK(sy_dispatch_finish(s.group));
      CHECK_OK(sy_experts(s.group));
      sy_group_abort(s.group);
      CHECK_FAILS(sy_combine_start(s.group), s.group, SY_ERR_PEER, "sy_group_abort");
    } else {
      const int64_t begin_ns = sy_clock_ns();
      check_does_not_end(&s, last_alone(), "return");
      check_in_time(begin_ns);
    }
    check_dead(&s);
  }
  subject_close(&s);
}

/* Every second rank stays away: all of them are named, and nobody else. */
TEST(all_ranks_that_do_not_come_are_named) {
  const sy_shape shape = spoil_shape();
  const struct call_options options = {.strategy = SY_STRATEGY_EXACT};
  struct subject s;
  if (subject_open(&s, &shape, &options) && sy_test_rank() % 2 == 0) {
    char text[64];
    int used = snprintf(text, sizeof text, "nothing heard in time from rank 1");
    for (int r = 3; r < sy_test_world(); r += 2) {
      used += snprintf(text + used, sizeof text - (size_t)used, ", %d", r);
    }
    snprintf(text + used, sizeof text - (size_t)used, ";");
    CHECK_FAILS(layer_call_forward(&s.call), s.group, SY_ERR_PEER, text);
    check_dead(&s);
  }
  subject_close(&s);
}

/* Set-up and loading have a timeout of their own. */
TEST(a_rank_that_does_not_reserve_is_named) {
  const sy_shape shape = spoil_shape();
  const struct call_options options = {.strategy = SY_STRATEGY_EXACT};
  struct subject s;
  layer_case_make(&s.c, &shape, 3 * sy_test_world());
  const struct token_split split = split_evenly(s.c.num_tokens, sy_test_world());
  sy_plan *plan = layer_case_plan(&s.c, &options, &split, sy_test_world(), sy_test_rank());
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.load_timeout_ms = 2 * TIMEOUT_MS;
  if (CHECK_OK(backend_group_mpi(&desc, &s.group)) && !is_last()) {
    char name[32];
    snprintf(name, sizeof name, "from rank %d;", sy_test_world() - 1);
    CHECK_FAILS(sy_group_reserve(s.group, plan, 1), s.group, SY_ERR_PEER, "sy_group_reserve", name);
    CHECK_STATUS(sy_group_reserve(s.group, plan, 1), SY_ERR_PEER);
    CHECK_STATUS(sy_group_poll(s.group), SY_ERR_PEER);
  }
  sy_plan_destroy(plan);
  sy_group_destroy(s.group);
  layer_case_free(&s.c);
  MPI_Barrier(MPI_COMM_WORLD);
}
