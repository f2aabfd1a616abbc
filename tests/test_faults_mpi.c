/* One rank is wrong: all ranks fail the same call in the same words, and the next call works. */
#include <mpi.h>
#include <stdio.h>

#include "runtime/internal.h"
#include "tests/support/backend.h"
#include "tests/support/expect.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"
#include "tests/support/spoil.h"
#include "tests/support/team.h"

/* Linked with --wrap=sy_alloc: one rank may run out of memory. */
static size_t memory_limit = SIZE_MAX; /* of one block */

void *__real_sy_alloc(size_t bytes);
void *__wrap_sy_alloc(size_t bytes);

void *__wrap_sy_alloc(size_t bytes) { return bytes > memory_limit ? NULL : __real_sy_alloc(bytes); }

/* ---- One call, and what it must give ---- */

struct subject {
  struct team team;
  struct token_split split;
  struct layer_call call;
  void *expected;
  void *got;
};

static bool subject_open(struct subject *s, const sy_shape *shape,
                         const struct call_options *options, int64_t tokens_per_rank) {
  const int64_t num_tokens = tokens_per_rank * sy_test_world();
  s->split = split_evenly(num_tokens, sy_test_world());
  if (!team_open(&s->team, shape, num_tokens)) {
    return false;
  }
  s->expected = layer_case_outputs(&s->team.c, options->output_dtype);
  s->got = layer_case_outputs(&s->team.c, options->output_dtype);
  expect_outputs(&s->team.c, options, sy_test_world(), s->expected);
  return layer_call_open(&s->call, &s->team.rank, options, &s->split);
}

static void subject_close(struct subject *s) {
  layer_call_close(&s->call);
  team_close(&s->team);
}

/* The group lives, and a call gives what it must. */
static void check_works(struct subject *s, const char *after) {
  const int rank = sy_test_rank();
  CHECK_OK(sy_group_poll(s->team.group));
  CHECK_OK(layer_call_forward(&s->call));
  layer_call_read(&s->call, s->got);
  same_bits(&s->team.c, s->call.options.output_dtype, s->got, s->expected, s->split.first[rank],
            s->split.first[rank + 1], after);
  layer_call_renew(&s->call);
}

/* Every rank has the text of rank 0. */
static void check_same_text(const struct subject *s) {
  char text[SY_ERROR_TEXT_BYTES];
  snprintf(text, sizeof text, "%s", sy_last_error(s->team.group));
  MPI_Bcast(text, sizeof text, MPI_CHAR, 0, MPI_COMM_WORLD);
  CHECK_EQ_STR(sy_last_error(s->team.group), text);
}

static void check_names(const struct subject *s, int rank) {
  char name[32];
  snprintf(name, sizeof name, "rank %d: ", rank);
  CHECK_STR_HAS(sy_last_error(s->team.group), name);
}

/* ---- Bad calls ---- */

/* The ranks of a bit mask apply the spoil; the lowest of them is named. */
static void check_spoilt(struct subject *s, const struct spoil *spoil, unsigned culprits) {
  const bool guilty = (culprits >> sy_test_rank() & 1u) != 0;
  struct spoilt spoilt;
  int lowest = 0;
  while ((culprits >> lowest & 1u) == 0) {
    ++lowest;
  }
  if (guilty) {
    spoilt = spoil_apply(spoil, &s->call);
  }
  const bool failed = CHECK_STATUS(layer_call_forward(&s->call), spoil->status);
  if (guilty) {
    spoil_undo(&spoilt, &s->call);
  }
  check_names(s, lowest);
  check_same_text(s);
  for (int part = 0; part < 3 && spoil->said[part] != NULL; ++part) {
    CHECK_STR_HAS(sy_last_error(s->team.group), spoil->said[part]);
  }
  if (!CHECK(layer_call_is_untouched(&s->call)) || !failed) {
    fprintf(stderr, "this was about %s\n", spoil->name);
  }
  check_works(s, spoil->name);
}

static void check_all_spoils(bool halves) {
  size_t count = 0;
  const struct spoil *list = spoils(&count);
  const sy_shape shape = spoil_shape();
  for (int kind = 0; kind < 3; ++kind) {
    struct call_options options = spoil_options();
    options.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind);
    options.combine = (sy_combine)(kind % 2);
    options.halves = halves;
    struct subject s;
    if (subject_open(&s, &shape, &options, 3)) {
      for (size_t i = 0; i < count; ++i) {
        check_spoilt(&s, &list[i], 1u << (int)i % sy_test_world());
      }
    }
    subject_close(&s);
  }
}

TEST(a_bad_call_on_one_rank_fails_all_alike) { check_all_spoils(false); }
TEST(bad_halves_on_one_rank_fail_all_alike) { check_all_spoils(true); }

/* Of several the lowest is named, also where they are wrong in different ways. */
TEST(of_several_bad_calls_the_lowest_rank_is_named) {
  size_t count = 0;
  const struct spoil *list = spoils(&count);
  const sy_shape shape = spoil_shape();
  const struct call_options options = spoil_options();
  const unsigned everyone = (1u << sy_test_world()) - 1u;
  struct subject s;
  if (subject_open(&s, &shape, &options, 3)) {
    check_spoilt(&s, &list[0], everyone);
    check_spoilt(&s, &list[4], everyone & ~1u);
    struct spoilt spoilt = spoil_apply(&list[sy_test_rank() % 2 == 0 ? 3 : 5], &s.call);
    CHECK_FAILS(layer_call_forward(&s.call), s.team.group, list[3].status,
                "rank 0: ", list[3].said[0]);
    spoil_undo(&spoilt, &s.call);
    check_same_text(&s);
    check_works(&s, "different errors on all ranks");
  }
  subject_close(&s);
}

/* Messages that MPI does not send eagerly meet receives that have room for a header only. */
TEST(a_bad_call_among_large_messages) {
  size_t count = 0;
  const struct spoil *list = spoils(&count);
  sy_shape shape = spoil_shape();
  shape.mode = SY_MODE_BF16;
  shape.hidden = 4096;
  shape.intermediate = 16;
  for (int kind = 0; kind < 3; ++kind) {
    struct call_options options = spoil_options();
    options.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind);
    struct subject s;
    if (subject_open(&s, &shape, &options, 9)) {
      check_spoilt(&s, &list[0], 1u << (sy_test_world() - 1));
      check_spoilt(&s, &list[0], 1u);
    }
    subject_close(&s);
  }
}

static const struct sy_transport_ops *true_ops;
static size_t least_room; /* of the receives of dispatched messages since it was set */

static sy_status open_and_note_room(struct sy_transport *t, enum sy_direction direction,
                                    bool broadcast, const struct sy_message_bytes *messages) {
  for (int32_t p = 0; p < t->world && direction == SY_DISPATCH; ++p) {
    least_room = messages[p].receive_max < least_room ? messages[p].receive_max : least_room;
  }
  return true_ops->open(t, direction, broadcast, messages);
}

/* Whatever this rank brings, its peers may bring any plan that was reserved. MPI need not stop at
 * the end of a receive that is too short: Open MPI 4.1, where processes read each other's memory,
 * writes all of the message. */
TEST(receives_have_room_for_every_plans_message) {
  if (backend_is_gpu()) {
    SKIP("on a GPU both sides know the size of every message");
  }
  size_t count = 0;
  const struct spoil *list = spoils(&count);
  const sy_shape shape = spoil_shape();
  const struct call_options large = {.max_tokens = 50, .return_dtype = SY_DTYPE_F32};
  const struct call_options options = spoil_options();
  struct subject s;
  struct layer_call other;
  sy_plan_info info = SY_PLAN_INFO_INIT;
  if (subject_open(&s, &shape, &options, 3) &&
      layer_call_open(&other, &s.team.rank, &large, &s.split) &&
      CHECK_OK(sy_plan_query(other.plan, &info))) {
    const size_t longest = sizeof(struct sy_wire_header) + 50 * info.row_bytes;
    true_ops = s.team.group->transport->ops;
    struct sy_transport_ops noting = *true_ops;
    noting.open = open_and_note_room;
    s.team.group->transport->ops = &noting;
    for (size_t i = 0; i < count; ++i) {
      least_room = SIZE_MAX;
      check_spoilt(&s, &list[i], 1u << (int)i % sy_test_world());
      CHECK_EQ_U64(least_room, longest);
    }
    s.team.group->transport->ops = true_ops;
    layer_call_close(&other);
  }
  subject_close(&s);
}

TEST(an_expert_not_loaded_on_one_rank) {
  const sy_shape shape = spoil_shape();
  const struct call_options options = spoil_options();
  const int culprit = sy_test_world() - 1;
  struct subject s;
  if (subject_open(&s, &shape, &options, 3)) {
    struct fences memory = {NULL};
    sy_layer *layer = s.team.rank.layer;
    const sy_expert_weights good =
        layer_case_expert(&s.team.c, sy_layer_global_expert(layer, 0), &memory);
    sy_expert_weights bad = good;
    bad.up = FENCED(&memory, float, 48 * SPOIL_HIDDEN, "NaN in every format");
    if (sy_test_rank() == culprit) {
      CHECK_STATUS(sy_layer_load_expert(layer, 0, &bad), SY_ERR_ARGUMENT);
    }
    CHECK_FAILS(layer_call_forward(&s.call), s.team.group, SY_ERR_STATE, "local expert 0",
                "is not loaded");
    check_names(&s, culprit);
    check_same_text(&s);
    CHECK(layer_call_is_untouched(&s.call));
    if (sy_test_rank() == culprit) {
      CHECK_OK(sy_layer_load_expert(layer, 0, &good));
    }
    check_works(&s, "an expert that was not loaded");
    fences_free(&memory);
  }
  subject_close(&s);
}

/* ---- Bad rows ---- */

static const struct sy_kernels *true_kernels;

/* The last row that goes to rank 0 names an expert that is not there. */
static sy_status pack_a_bad_row(const struct sy_stage_env *env, const struct sy_pack_args *args) {
  const sy_status status = true_kernels->pack(env, args);
  const int32_t rows = args->send_offset[1] - args->send_offset[0];
  unsigned char *row = args->landing[0] + (size_t)(rows - 1) * env->wire_row.bytes;
  struct sy_wire_slot *slot = (struct sy_wire_slot *)(void *)(row + env->wire_row.slots);
  slot->expert = 0xFFF0u;
  return status;
}

/* What a rank cannot know of its own call: the receiver says so, on the way back. */
TEST(a_bad_row_is_reported_by_its_receiver) {
  if (backend_is_gpu()) {
    SKIP("a GPU takes a slot that names what is not there for a masked one");
  }
  const sy_shape shape = spoil_shape();
  struct call_options options = spoil_options();
  options.strategy = SY_STRATEGY_EXACT;
  struct subject s;
  if (subject_open(&s, &shape, &options, 3)) {
    for (int64_t t = 0; t < s.team.c.num_tokens; ++t) { /* each token has a row on rank 0 */
      s.team.c.ids[t * SPOIL_TOP_K] = 0;
    }
    layer_call_close(&s.call);
    CHECK(layer_call_open(&s.call, &s.team.rank, &options, &s.split));
    expect_outputs(&s.team.c, &options, sy_test_world(), s.expected);
    true_kernels = s.team.group->kernels;
    struct sy_kernels bad = *true_kernels;
    bad.pack = pack_a_bad_row;
    if (sy_test_rank() == sy_test_world() - 1) {
      s.team.group->kernels = &bad;
    }
    CHECK_FAILS(layer_call_forward(&s.call), s.team.group, SY_ERR_MISMATCH,
                "rank 0: ", "a received row names an expert");
    check_same_text(&s);
    CHECK(layer_call_is_untouched(&s.call));
    s.team.group->kernels = true_kernels;
    check_works(&s, "a bad row");
  }
  subject_close(&s);
}

/* ---- Plans that differ ---- */

/* "rank 2 and rank 0, 1 disagree" on the last rank, "rank 0 and rank 2 disagree" on rank 0. */
static void check_names_who_differ(const struct subject *s) {
  const int last = sy_test_world() - 1;
  char text[64];
  int used = snprintf(text, sizeof text, "rank %d and rank ", sy_test_rank());
  if (sy_test_rank() == last) {
    for (int r = 0; r < last; ++r) {
      used += snprintf(text + used, sizeof text - (size_t)used, "%s%d", r > 0 ? ", " : "", r);
    }
  } else {
    used += snprintf(text + used, sizeof text - (size_t)used, "%d", last);
  }
  snprintf(text + used, sizeof text - (size_t)used, " disagree");
  CHECK_STR_HAS(sy_last_error(s->team.group), text);
}

/* All ranks have reserved for both plans; the last one brings the other. */
static void check_other_plan(const struct call_options *options, const struct call_options *other,
                             const char *what) {
  const sy_shape shape = spoil_shape();
  struct subject s;
  struct layer_call strange;
  if (subject_open(&s, &shape, options, 3) &&
      layer_call_open(&strange, &s.team.rank, other, &s.split)) {
    struct layer_call *call = sy_test_rank() == sy_test_world() - 1 ? &strange : &s.call;
    if (!CHECK_STATUS(layer_call_forward(call), SY_ERR_MISMATCH)) {
      fprintf(stderr, "this was about %s\n", what);
    }
    check_names_who_differ(&s);
    CHECK(layer_call_is_untouched(call));
    check_works(&s, what);
    layer_call_close(&strange);
  }
  subject_close(&s);
}

TEST(plans_that_differ_fail_all_ranks) {
  const struct call_options options = {
      .strategy = SY_STRATEGY_EXACT, .max_tokens = 9, .wave_tokens = 3};
  struct call_options other = options;
  other.wave_tokens = 9; /* longer messages than the others have room for */
  check_other_plan(&options, &other, "another wave_tokens");
  other = options;
  other.max_tokens = 10;
  check_other_plan(&options, &other, "another max_tokens");
  other = options;
  other.strategy = SY_STRATEGY_FIXED;
  check_other_plan(&options, &other, "another strategy");
  other.strategy = SY_STRATEGY_GATHER;
  check_other_plan(&options, &other, "another strategy");
  check_other_plan(&other, &options, "another strategy");
  other = options;
  other.combine = SY_COMBINE_PER_SLOT;
  check_other_plan(&options, &other, "another combine");
  other = options;
  other.return_dtype = SY_DTYPE_F32;
  check_other_plan(&options, &other, "another return_dtype");
}

TEST(halves_among_forwards_fail_all_ranks) {
  const struct call_options options = {.strategy = SY_STRATEGY_EXACT};
  struct call_options other = options;
  other.halves = true;
  check_other_plan(&options, &other, "halves on the last rank");
  check_other_plan(&other, &options, "forward on the last rank");
}

/* ---- Reserving ---- */

TEST(reserving_different_plans_names_the_ranks) {
  const sy_shape shape = spoil_shape();
  const struct call_options options = {.max_tokens = 9};
  const int last = sy_test_world() - 1;
  struct subject s;
  if (subject_open(&s, &shape, &options, 3)) {
    struct call_options other = options;
    other.max_tokens = sy_test_rank() == last ? 11 : 10;
    sy_plan *plan = layer_case_plan(&s.team.c, &other, &s.split, sy_test_world(), sy_test_rank());
    char differing[32];
    snprintf(differing, sizeof differing, "rank %d", sy_test_rank() == last ? 0 : last);
    CHECK_FAILS(sy_group_reserve(s.team.group, plan, 1), s.team.group, SY_ERR_MISMATCH,
                "sy_group_reserve", "differs from that of", differing);
    sy_plan_destroy(plan);
    check_works(&s, "different plans were reserved");
  }
  subject_close(&s);
}

TEST(one_rank_that_cannot_reserve_fails_all) {
  if (backend_is_gpu()) {
    SKIP("the limit is one of host memory");
  }
  const sy_shape shape = spoil_shape();
  const struct call_options options = {.max_tokens = 9};
  const int culprit = sy_test_world() - 1;
  struct subject s;
  if (subject_open(&s, &shape, &options, 3)) {
    sy_plan *plan = sy_test_rank() == culprit ? NULL : s.call.plan;
    char name[32];
    snprintf(name, sizeof name, "rank %d", culprit);
    CHECK_FAILS(sy_group_reserve(s.team.group, plan, 1), s.team.group, SY_ERR_ARGUMENT, name);
    struct call_options larger = options;
    larger.max_tokens = 1000;
    plan = layer_case_plan(&s.team.c, &larger, &s.split, sy_test_world(), sy_test_rank());
    for (int with_scratch = 0; with_scratch < 2; ++with_scratch) {
      memory_limit = sy_test_rank() == culprit ? 20000 : SIZE_MAX;
      CHECK_STATUS(sy_group_reserve(s.team.group, plan, with_scratch), SY_ERR_MEMORY);
      memory_limit = SIZE_MAX;
      if (with_scratch != 0) {
        CHECK_STR_HAS(sy_last_error(s.team.group), name);
      }
      check_works(&s, "a rank without memory");
    }
    CHECK_OK(sy_group_reserve(s.team.group, plan, 1));
    check_works(&s, "more was reserved");
    sy_plan_destroy(plan);
  }
  subject_close(&s);
}
