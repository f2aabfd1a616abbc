/* Plans: every bound derived once more, from what the buffer holds. */
#include <math.h>
#include <stdio.h>
#include <time.h>

#include "tests/support/failure.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"

#if defined(SY_FENCES)
enum { FENCE_BYTES = 64 };
#else
enum { FENCE_BYTES = 0 };
#endif
enum { MAX_BUFFERS = 64 };

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t round_up(int64_t x, int64_t unit) { return (x + unit - 1) / unit * unit; }

/* ---- The bounds, from what the buffers hold ---- */

/* A plan's description in plain numbers. */
struct sizes {
  int64_t W, K, H, I, C, M;
  int64_t E_local, E_max;
  sy_mode mode;
  sy_format format;
  sy_strategy strategy;
  sy_combine combine;
  sy_dtype return_dtype;
};

struct bound {
  const char *name;
  int64_t rows;
  int64_t row_bytes;
};

/* A dispatched row: values (and FP4 scales, to a multiple of 8), 8 bytes per slot that it may have,
 * for NVFP4 an f32; to a multiple of 16. */
static int64_t dispatched_row_bytes(const struct sizes *s) {
  const int64_t slots = s->strategy == SY_STRATEGY_GATHER ? s->K : least(s->K, s->E_max);
  if (s->mode == SY_MODE_W4A4 && s->format == SY_FORMAT_MXFP4) {
    return round_up(round_up(s->H / 2 + s->H / 32, 8) + 8 * slots, 16);
  }
  if (s->mode == SY_MODE_W4A4) {
    return round_up(round_up(s->H / 2 + s->H / 16, 8) + 8 * slots + 4, 16);
  }
  return round_up(2 * s->H + 8 * slots, 16);
}

/* The own rank's message is written where it is read: out buffers hold those of W - 1 others. */
static size_t exchange_bounds(const struct sizes *s, struct bound *bounds) {
  const int64_t others = s->W - 1;
  const int64_t back = s->combine == SY_COMBINE_PER_SLOT ? least(s->K, s->E_max) : 1;
  const int64_t return_row = s->H * (s->return_dtype == SY_DTYPE_F32 ? 4 : 2);
  const int64_t row = dispatched_row_bytes(s);
  int64_t out = 0; /* gather: one message for all, sent from where it is read */
  int64_t back_in = s->W * s->C * back; /* each row has room for its own return rows */
  if (s->strategy == SY_STRATEGY_EXACT) {
    out = s->C * least(s->K, others);
    back_in = s->C * (s->combine == SY_COMBINE_PER_SLOT ? s->K : least(s->K, s->W));
  } else if (s->strategy == SY_STRATEGY_FIXED) {
    out = others * s->C;
  }
  const struct bound list[] = {
      {"dispatch_out_headers", s->strategy == SY_STRATEGY_GATHER ? 0 : others, 64},
      {"dispatch_out", out, row},
      {"dispatch_in_headers", s->W, 64},
      {"dispatch_in", s->W * s->C, row},
      {"return_out_headers", others, 64},
      {"return_out", others * s->C * back, return_row},
      {"return_in_headers", s->W, 64},
      {"return_in", back_in, return_row}};
  memcpy(bounds, list, sizeof list);
  return sizeof list / sizeof list[0];
}

static size_t scratch_bounds(const struct sizes *s, struct bound *bounds) {
  const bool gather = s->strategy == SY_STRATEGY_GATHER;
  const bool fp4 = s->mode == SY_MODE_W4A4;
  const bool mxfp4 = s->format == SY_FORMAT_MXFP4;
  const int64_t refs = s->C * least(s->K, s->W);
  const int64_t routed = s->M * least(s->K, s->E_local);
  const int64_t pointer = (int64_t)sizeof(void *);
  const struct bound list[] = {
      {"send_offset", s->W + 1, 4},
      {"token_offset", s->C + 1, 4},
      {"token_row", refs, 8},
      {"send_slot_offset", (gather ? s->C : refs) + 1, 4},
      {"send_slots", s->C * s->K, 8},
      {"slot_return", s->combine == SY_COMBINE_PER_SLOT ? s->C * s->K : 0, 8},
      {"return_rows", s->W, 4},
      {"route_cursor", 2 * s->W, 4},
      {"received_row", s->M, pointer},
      {"return_row", s->M, pointer},
      {"row_slot_offset", s->M + 1, 4},
      {"slot_routed", routed, 4},
      {"routed_source", routed, 4},
      {"routed_weight", routed, 4},
      {"expert_offset", s->E_local + 1, 4},
      {"active_expert", least(s->E_local, routed), 4},
      {"intermediate", routed, fp4 ? s->I / 2 : 2 * s->I},
      {"intermediate_scales", fp4 ? routed : 0, s->I / (mxfp4 ? 32 : 16)},
      {"intermediate_global", fp4 && !mxfp4 ? routed : 0, 4 * ((s->I + 127) / 128)},
      {"expert_out", routed, 4 * s->H}};
  memcpy(bounds, list, sizeof list);
  return sizeof list / sizeof list[0];
}

static void check_buffers(const sy_buffer_info *buffers, size_t count, const char *memory,
                          const struct bound *bounds, size_t num_bounds) {
  size_t found = 0;
  for (size_t i = 0; i < count; ++i) {
    if (strcmp(buffers[i].memory, memory) != 0 || !CHECK(found < num_bounds)) {
      continue;
    }
    const struct bound *bound = &bounds[found++];
    CHECK_EQ_STR(buffers[i].name, bound->name);
    CHECK_EQ_I64((int64_t)buffers[i].rows, bound->rows);
    CHECK_EQ_I64((int64_t)buffers[i].row_bytes, bound->row_bytes);
    CHECK_EQ_I64((int64_t)buffers[i].bytes, bound->rows * bound->row_bytes);
    CHECK(buffers[i].formula[0] != '\0');
  }
  CHECK_EQ_U64(found, num_bounds);
}

static void check_plan(const sy_plan *plan, const struct sizes *s) {
  sy_plan_info info = SY_PLAN_INFO_INIT;
  sy_buffer_info buffers[MAX_BUFFERS];
  struct bound bounds[MAX_BUFFERS];
  size_t count = 0;
  if (!CHECK_OK(sy_plan_query(plan, &info)) ||
      !CHECK_OK(sy_plan_describe(plan, buffers, MAX_BUFFERS, &count))) {
    return;
  }
  CHECK_EQ_I64(info.wave_tokens, s->C);
  CHECK_EQ_I64(info.chunk_rows, s->M);
  CHECK_EQ_I64(info.local_experts, s->E_local);
  CHECK_EQ_I64(info.max_local_experts, s->E_max);
  CHECK_EQ_I64((int64_t)info.row_bytes, dispatched_row_bytes(s));

  int64_t total = 0;
  size_t num_bounds = exchange_bounds(s, bounds);
  for (size_t i = 0; i < num_bounds; ++i) {
    total += bounds[i].rows * bounds[i].row_bytes;
  }
  check_buffers(buffers, count, "exchange", bounds, num_bounds);
  CHECK_EQ_I64((int64_t)info.exchange_bytes, total);

  total = 0;
  num_bounds = scratch_bounds(s, bounds);
  for (size_t i = 0; i < num_bounds; ++i) {
    total += round_up(bounds[i].rows * bounds[i].row_bytes, 64) + FENCE_BYTES;
  }
  check_buffers(buffers, count, "scratch", bounds, num_bounds);
  CHECK_EQ_I64((int64_t)info.scratch_bytes, total);
  CHECK_EQ_U64(sy_plan_scratch_bytes(plan), info.scratch_bytes);
}

static sy_plan_desc make_desc(const sy_shape *shape, const struct sizes *s, int32_t rank) {
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = shape;
  desc.world = (int32_t)s->W;
  desc.rank = rank;
  desc.max_tokens = 3 * s->C;
  desc.wave_tokens = s->C;
  desc.chunk_rows = s->M;
  desc.strategy = s->strategy;
  desc.combine = s->combine;
  desc.return_dtype = s->return_dtype;
  return desc;
}

/* Contiguous: rank r owns one more when r < E mod W. */
static void check_all_kinds(const sy_shape *shape, int64_t W, int64_t C, int64_t M) {
  const int64_t E = shape->num_experts;
  for (int kind = 0; kind < 3 * 2 * 2; ++kind) {
    for (int32_t rank = 0; rank < W; ++rank) {
      const struct sizes s = {.W = W,
                              .K = shape->top_k,
                              .H = shape->hidden,
                              .I = shape->intermediate,
                              .C = C,
                              .M = M,
                              .E_local = E / W + (rank < E % W ? 1 : 0),
                              .E_max = (E + W - 1) / W,
                              .mode = shape->mode,
                              .format = shape->format,
                              .strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3),
                              .combine = (sy_combine)(kind / 3 % 2),
                              .return_dtype = (sy_dtype)(kind / 6)};
      const sy_plan_desc desc = make_desc(shape, &s, rank);
      sy_plan *plan = NULL;
      if (CHECK_OK(sy_plan_create(&desc, &plan))) {
        check_plan(plan, &s);
        sy_plan_destroy(plan);
      }
    }
  }
}

TEST(every_buffer_has_its_bound) {
  static const struct {
    int64_t H, I, W, C, M;
    int32_t E, K;
  } list[] = {{.H = 64, .I = 32, .E = 8, .K = 2, .W = 1, .C = 5, .M = 3},
              {.H = 64, .I = 32, .E = 8, .K = 2, .W = 4, .C = 5, .M = 20},
              {.H = 16, .I = 16, .E = 10, .K = 4, .W = 3, .C = 1, .M = 1},
              {.H = 144, .I = 272, .E = 3, .K = 8, .W = 5, .C = 7, .M = 11},
              {.H = 2048, .I = 768, .E = 128, .K = 8, .W = 8, .C = 64, .M = 100},
              {.H = 7168, .I = 2048, .E = 256, .K = 8, .W = 8, .C = 4096, .M = 512}};
  for (size_t i = 0; i < sizeof list / sizeof list[0]; ++i) {
    for (int mode = 0; mode < 3; ++mode) {
      sy_shape shape = small_shape((sy_mode)mode, list[i].H, list[i].I, list[i].E, list[i].K);
      check_all_kinds(&shape, list[i].W, list[i].C, list[i].M);
      if (shape.hidden % 32 == 0 && shape.intermediate % 32 == 0) {
        shape.format = SY_FORMAT_MXFP4;
        check_all_kinds(&shape, list[i].W, list[i].C, list[i].M);
      }
    }
  }
}

/* All of it in figures worked out by hand, so that no program's arithmetic is trusted. */
TEST(a_plan_worked_out_by_hand) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 32, 10, 3);
  const struct sizes s = {
      .W = 4, .C = 5, .M = 7, .strategy = SY_STRATEGY_EXACT, .combine = SY_COMBINE_PER_SLOT};
  const sy_plan_desc desc = make_desc(&shape, &s, 0);
  sy_plan *plan = NULL;
  sy_plan_info info = SY_PLAN_INFO_INIT;
  if (!CHECK_OK(sy_plan_create(&desc, &plan)) || !CHECK_OK(sy_plan_query(plan, &info))) {
    return;
  }
  CHECK_EQ_I64(info.local_experts, 3); /* 10 = 3 + 3 + 2 + 2 */
  CHECK_EQ_I64(info.slots_per_row, 3);
  CHECK_EQ_I64((int64_t)info.row_bytes, 80); /* 32 codes, 4 scales, to 40; 24; 4; to 80 */
  CHECK_EQ_I64((int64_t)info.return_row_bytes, 128);
  /* headers 3 + 4 + 3 + 4; rows out 5 * 3, in 4 * 5; return rows out 3 * 5 * 3, in 5 * 3 */
  CHECK_EQ_I64((int64_t)info.exchange_bytes, 14 * 64 + 15 * 80 + 20 * 80 + 45 * 128 + 15 * 128);
  /* 5 * 4 -> 64, 6 * 4 -> 64, 15 * 8 -> 128, 16 * 4, 15 * 8 -> 128, 15 * 8 -> 128, 4 * 4 -> 64,
   * 8 * 4 -> 64; 7 pointers -> 64, 64, 8 * 4 -> 64; 21 routed rows: 84 -> 128 three times; 16 ->
   * 64; 3 * 4 -> 64; 21 * 16 -> 384; 21 * 2 -> 64; 84 -> 128; 21 * 256 */
  CHECK_EQ_I64((int64_t)info.scratch_bytes, (64 + 64 + 128 + 64 + 128 + 128 + 64 + 64) +
                                                (64 + 64 + 64) + 3 * 128 + 64 + 64 + 384 + 64 +
                                                128 + 5376 + 20 * FENCE_BYTES);
  CHECK_EQ_I64(info.max_waves, 3);
  CHECK_EQ_I64(info.max_chunks, 3); /* 20 rows by 7 */
  sy_plan_destroy(plan);
}

/* ---- Limits and budgets ---- */

static sy_plan_info info_of(const sy_plan_desc *desc) {
  sy_plan_info info = SY_PLAN_INFO_INIT;
  sy_plan *plan = NULL;
  if (CHECK_OK(sy_plan_create(desc, &plan))) {
    CHECK_OK(sy_plan_query(plan, &info));
    sy_plan_destroy(plan);
  }
  return info;
}

static sy_plan_desc desc_of(const sy_shape *shape, int32_t world, int64_t max_tokens) {
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = shape;
  desc.world = world;
  desc.max_tokens = max_tokens;
  return desc;
}

TEST(sizes_grow_with_each_limit) {
  for (int kind = 0; kind < 3 * 2; ++kind) {
    const sy_shape shape = small_shape((sy_mode)(kind % 3), 64, 48, 12, 4);
    sy_plan_desc desc = desc_of(&shape, 4, 40);
    desc.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3);
    desc.combine = (sy_combine)(kind / 3);
    sy_plan_info before = {0};
    for (int64_t tokens = 1; tokens <= 40; ++tokens) { /* C, and with it the largest M */
      desc.wave_tokens = tokens;
      desc.chunk_rows = INT64_MAX;
      const sy_plan_info info = info_of(&desc);
      CHECK(info.exchange_bytes > before.exchange_bytes);
      CHECK(info.scratch_bytes > before.scratch_bytes);
      before = info;
    }
    before = (sy_plan_info){0};
    for (int64_t rows = 1; rows <= 160; ++rows) {
      desc.chunk_rows = rows;
      const sy_plan_info info = info_of(&desc);
      CHECK(info.scratch_bytes > before.scratch_bytes);
      CHECK_EQ_I64(info.chunk_rows, rows);
      before = info;
    }
    desc.chunk_rows = 161; /* more than W * C rows there cannot be */
    CHECK_EQ_I64(info_of(&desc).chunk_rows, 160);
    desc.wave_tokens = 41;
    CHECK_EQ_I64(info_of(&desc).wave_tokens, 40);
  }
}

/* The budget is obeyed, and one more would exceed it. */
static void check_exchange_budget(const sy_plan_desc *of, size_t budget) {
  sy_plan_desc desc = *of;
  desc.exchange_budget_bytes = budget;
  const sy_plan_info info = info_of(&desc);
  CHECK(info.exchange_bytes <= budget);
  CHECK_EQ_I64(info.max_waves, (desc.max_tokens + info.wave_tokens - 1) / info.wave_tokens);
  if (info.wave_tokens < desc.max_tokens) {
    desc.wave_tokens = info.wave_tokens + 1;
    CHECK(info_of(&desc).exchange_bytes > budget);
  }
}

static void check_scratch_budget(const sy_plan_desc *of, size_t budget) {
  sy_plan_desc desc = *of;
  desc.scratch_budget_bytes = budget;
  const sy_plan_info info = info_of(&desc);
  const int64_t most = desc.world * info.wave_tokens;
  CHECK(info.scratch_bytes <= budget);
  CHECK_EQ_I64(info.max_chunks, (most + info.chunk_rows - 1) / info.chunk_rows);
  if (info.chunk_rows < most) {
    desc.chunk_rows = info.chunk_rows + 1;
    CHECK(info_of(&desc).scratch_bytes > budget);
  }
}

TEST(budgets_are_obeyed_and_used_up) {
  for (int kind = 0; kind < 3 * 2; ++kind) {
    const sy_shape shape = small_shape((sy_mode)(kind % 3), 256, 128, 16, 4);
    sy_plan_desc desc = desc_of(&shape, 4, 1000);
    desc.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3);
    desc.combine = (sy_combine)(kind / 3);
    for (size_t budget = 20000; budget < (size_t)1 << 26; budget += budget / 3) {
      check_exchange_budget(&desc, budget);
    }
    desc.wave_tokens = 50;
    for (size_t budget = 60000; budget < (size_t)1 << 24; budget += budget / 3) {
      check_scratch_budget(&desc, budget);
    }
  }
}

TEST(a_larger_scratch_budget_never_gives_less) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 256, 128, 16, 4);
  sy_plan_desc desc = desc_of(&shape, 4, 64);
  sy_plan_info before = {0};
  for (size_t budget = 100000; budget < 400000; budget += 777) {
    desc.scratch_budget_bytes = budget;
    const sy_plan_info info = info_of(&desc);
    CHECK(info.scratch_bytes >= before.scratch_bytes && info.chunk_rows >= before.chunk_rows);
    before = info;
  }
}

/* Every budget from none to enough for one: the sentence names what would do, and that does. */
TEST(budgets_too_small_name_the_bytes_needed) {
  const sy_shape shape = small_shape(SY_MODE_BF16, 64, 32, 8, 2);
  sy_plan_desc one = desc_of(&shape, 2, 100);
  one.wave_tokens = 1;
  one.chunk_rows = 1;
  const sy_plan_info need = info_of(&one);
  char text[64];
  sy_plan *plan = NULL;

  sy_plan_desc desc = desc_of(&shape, 2, 100);
  desc.exchange_budget_bytes = need.exchange_bytes - 1;
  snprintf(text, sizeof text, "needs %zu", need.exchange_bytes);
  CHECK_FAILS(sy_plan_create(&desc, &plan), NULL, SY_ERR_TOO_SMALL, "exchange_budget_bytes", text);
  desc.exchange_budget_bytes = need.exchange_bytes;
  CHECK_EQ_I64(info_of(&desc).wave_tokens, 1);

  desc.wave_tokens = 1;
  desc.scratch_budget_bytes = need.scratch_bytes - 1;
  snprintf(text, sizeof text, "needs %zu", need.scratch_bytes);
  CHECK_FAILS(sy_plan_create(&desc, &plan), NULL, SY_ERR_TOO_SMALL, "scratch_budget_bytes", text);
  desc.scratch_budget_bytes = 0;
  CHECK_FAILS(sy_plan_create(&desc, &plan), NULL, SY_ERR_TOO_SMALL, "scratch_budget_bytes", text);
  desc.scratch_budget_bytes = need.scratch_bytes;
  CHECK_EQ_I64(info_of(&desc).chunk_rows, 1);
  CHECK(plan == NULL);
}

TEST(sizes_beyond_size_t_are_an_error) {
  const sy_shape shape = small_shape(SY_MODE_BF16, INT64_C(1) << 20, 16, 65534, 1);
  sy_plan_desc desc = desc_of(&shape, 65536, INT32_MAX);
  desc.wave_tokens = INT32_MAX;
  desc.chunk_rows = 1;
  sy_plan *plan = NULL;
  CHECK_FAILS(sy_plan_create(&desc, &plan), NULL, SY_ERR_OVERFLOW, "SIZE_MAX");
  CHECK(plan == NULL);
  desc.wave_tokens = 0; /* a budget has a C that fits */
  desc.exchange_budget_bytes = SIZE_MAX;
  CHECK(info_of(&desc).wave_tokens < INT32_MAX);
}

/* Rows and slots are counted in int32: C and M stop short of what it cannot count. */
TEST(rows_stay_countable) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 16, 16, 2048, 1024);
  sy_plan_desc desc = desc_of(&shape, 4, INT32_MAX);
  desc.wave_tokens = INT32_MAX;
  desc.chunk_rows = INT64_MAX;
  const sy_plan_info info = info_of(&desc);
  CHECK_EQ_I64(info.wave_tokens, INT32_MAX / 1024);
  CHECK_EQ_I64(info.chunk_rows, INT32_MAX / 512);
}

/* ---- Large worlds ---- */

TEST(all_ranks_of_1024_are_planned_quickly) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 7168, 2048, 1500, 8);
  sy_plan_desc desc = desc_of(&shape, 1024, 4096);
  const clock_t begin = clock();
  sy_plan_info first = {0};
  int64_t experts = 0;
  for (int32_t rank = 0; rank < 1024; ++rank) {
    desc.rank = rank;
    const sy_plan_info info = info_of(&desc);
    first = rank == 0 ? info : first;
    experts += info.local_experts;
    CHECK_EQ_U64(info.hash, first.hash);
    CHECK_EQ_U64(info.exchange_bytes, first.exchange_bytes);
    CHECK_EQ_I64(info.max_local_experts, 2);
  }
  const double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
  CHECK_EQ_I64(experts, 1500);
  printf("1024 plans in %.3f s\n", seconds);
  CHECK(seconds < 20.0); /* a loop too many shows; a slow machine or a sanitizer does not */
}

/* ---- Hash ---- */

/* What shapes a message changes the hash; what a rank may choose for itself does not. */
TEST(the_hash_tells_plans_that_cannot_work_together) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 32, 8, 2);
  sy_plan_desc desc = desc_of(&shape, 2, 10);
  desc.wave_tokens = 5;
  desc.strategy = SY_STRATEGY_EXACT;
  const uint64_t hash = info_of(&desc).hash;
  sy_plan_desc same = desc;
  same.rank = 1;
  same.chunk_rows = 3;
  same.scratch_budget_bytes *= 2;
  CHECK_EQ_U64(info_of(&same).hash, hash);

#define DIFFERS(change)                                  \
  do {                                                   \
    sy_shape other_shape = shape;                        \
    sy_plan_desc other = desc;                           \
    other.shape = &other_shape;                          \
    change;                                              \
    if (!CHECK(info_of(&other).hash != hash)) {          \
      fprintf(stderr, "not in the hash: %s\n", #change); \
    }                                                    \
  } while (0)
  const int32_t swapped[] = {1, 1, 1, 1, 0, 0, 0, 0};
  const int32_t backward[] = {3, 2, 1, 0, 3, 2, 1, 0};
  const int32_t contiguous[] = {0, 0, 0, 0, 1, 1, 1, 1};
  DIFFERS(other_shape.hidden = 80);
  DIFFERS(other_shape.intermediate = 48);
  DIFFERS(other_shape.num_experts = 9);
  DIFFERS(other_shape.top_k = 3);
  DIFFERS(other_shape.mode = SY_MODE_W4A16);
  DIFFERS(other_shape.format = SY_FORMAT_MXFP4);
  DIFFERS(other_shape.activation = SY_ACTIVATION_RELU2);
  DIFFERS(other_shape.has_bias = 1);
  DIFFERS(other_shape.expert_rank = swapped);
  DIFFERS((other_shape.expert_rank = contiguous, other_shape.expert_local = backward));
  DIFFERS(other.world = 3);
  DIFFERS(other.max_tokens = 11);
  DIFFERS(other.wave_tokens = 4);
  DIFFERS(other.strategy = SY_STRATEGY_FIXED);
  DIFFERS(other.combine = SY_COMBINE_PER_SLOT);
  DIFFERS(other.return_dtype = SY_DTYPE_F32);
  DIFFERS(other.numerics = SY_NUMERICS_FASTEST);
#undef DIFFERS
}

TEST(mode_bf16_does_not_look_at_the_format) {
  sy_shape shape = small_shape(SY_MODE_BF16, 48, 16, 8, 2);
  const sy_plan_desc desc = desc_of(&shape, 2, 10);
  const uint64_t hash = info_of(&desc).hash;
  shape.format = SY_FORMAT_MXFP4;
  CHECK_EQ_U64(info_of(&desc).hash, hash);
}

/* ---- Strategy ---- */

TEST(auto_takes_what_it_predicts_to_be_fastest) {
  for (int32_t world = 1; world <= 8; ++world) {
    const sy_shape shape = small_shape(SY_MODE_W4A4, 2048, 768, 128, 8);
    sy_plan_desc desc = desc_of(&shape, world, 256);
    const sy_plan_info info = info_of(&desc);
    CHECK_EQ_I64(info.auto_dispatch_us > 0.0 && info.auto_gather_us > 0.0, world > 1);
    CHECK_EQ_I64(info.strategy, info.auto_gather_us < info.auto_dispatch_us ? SY_STRATEGY_GATHER
                                                                            : SY_STRATEGY_EXACT);
    desc.strategy = SY_STRATEGY_FIXED; /* predictions are given all the same */
    CHECK_EQ_I64(info_of(&desc).strategy, SY_STRATEGY_FIXED);
    CHECK_NEAR(info_of(&desc).auto_gather_us, info.auto_gather_us, 0.0);
  }
}

/* Ranks that own more or fewer experts, and a last host that is not full: all choose alike. */
TEST(auto_chooses_the_same_on_every_rank) {
  for (int32_t experts = 1; experts <= 40; ++experts) {
    for (int32_t world = 2; world <= 8; ++world) {
      const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 32, experts, 8);
      sy_plan_desc desc = desc_of(&shape, world, 256);
      desc.link.ranks_per_host = experts % 4;
      const sy_plan_info first = info_of(&desc);
      for (int32_t rank = 1; rank < world; ++rank) {
        desc.rank = rank;
        const sy_plan_info info = info_of(&desc);
        CHECK_EQ_U64(info.hash, first.hash);
        CHECK_NEAR(info.exchange_us, first.exchange_us, 0.0);
      }
    }
  }
}

/* A case that is worked out by hand: 2 hosts of 2 ranks, every token to every rank. */
TEST(the_exchange_is_predicted_from_the_link) {
  const sy_shape shape = small_shape(SY_MODE_BF16, 64, 32, 4, 4);
  sy_plan_desc desc = desc_of(&shape, 4, 100);
  desc.wave_tokens = 30; /* 4 waves */
  desc.strategy = SY_STRATEGY_EXACT;
  desc.link = (sy_link){.in_host = {2.0, 0.5, 10.0}, .between_hosts = {20.0, 1.5, 1.0}};
  desc.link.ranks_per_host = 2;
  const sy_plan_info info = info_of(&desc);
  const double row = (double)(info.row_bytes + info.return_row_bytes);
  const double beyond = 100.0 * 2.0 * row + 4.0 * 2.0 * 2.0 * 64.0;
  const double inside = 100.0 * row + 4.0 * 2.0 * 64.0;
  CHECK_NEAR(info.exchange_traffic_bytes, inside + beyond, 1e-6);
  CHECK_NEAR(info.exchange_us, 4.0 * 2.0 * (20.0 + 0.5 + 2.0 * 1.5) + beyond / 1e3, 1e-6);
  desc.link.ranks_per_host = 0; /* one host */
  CHECK_NEAR(info_of(&desc).exchange_us, 4.0 * 2.0 * (2.0 + 3.0 * 0.5) + (inside + beyond) / 10e3,
             1e-6);
  desc.strategy = SY_STRATEGY_FIXED; /* 4 waves of 30 rows, however many tokens there are */
  CHECK_NEAR(info_of(&desc).exchange_traffic_bytes, 3.0 * (120.0 * row + 4.0 * 2.0 * 64.0), 1e-6);
}

/* ---- What is refused ---- */

/* With one thing wrong, the sentence must name the thing, the value and the range. */
#define REFUSED(status, change, ...)                                        \
  do {                                                                      \
    sy_shape shape = small_shape(SY_MODE_W4A4, 64, 32, 8, 2);               \
    sy_plan_desc desc = desc_of(&shape, 4, 100);                            \
    sy_plan *plan = NULL;                                                   \
    change;                                                                 \
    CHECK_FAILS(sy_plan_create(&desc, &plan), NULL, (status), __VA_ARGS__); \
    CHECK(plan == NULL);                                                    \
  } while (0)

TEST(descriptions_out_of_range_are_refused) {
  const sy_status bad = SY_ERR_ARGUMENT;
  REFUSED(bad, desc.world = 0, "world is 0", "1 to 65536");
  REFUSED(bad, desc.world = 65537, "world is 65537", "1 to 65536");
  REFUSED(bad, desc.rank = -1, "rank is -1", "0 to 3");
  REFUSED(bad, desc.rank = 4, "rank is 4", "0 to 3");
  REFUSED(bad, desc.max_tokens = 0, "max_tokens is 0", "1 to 2147483647");
  REFUSED(bad, desc.max_tokens = INT64_C(1) << 31, "max_tokens is 2147483648", "1 to 2147483647");
  REFUSED(bad, desc.wave_tokens = -1, "wave_tokens is -1", "0 to 2147483647");
  REFUSED(bad, desc.wave_tokens = INT64_MAX, "wave_tokens is 9223372036854775807", "2147483647");
  REFUSED(bad, desc.chunk_rows = -1, "chunk_rows is -1", "0 to");
  REFUSED(bad, desc.strategy = (sy_strategy)4, "strategy is 4", "0 to 3");
  REFUSED(bad, desc.combine = (sy_combine)2, "combine is 2", "0 to 1");
  REFUSED(bad, desc.return_dtype = (sy_dtype)2, "return_dtype is 2", "0 to 1");
  REFUSED(bad, desc.numerics = (sy_numerics)2, "numerics is 2", "0 to 1");
  REFUSED(bad, desc.link.in_host.latency_us = 0.0, "in_host", "latency is 0 us", "above 0");
  REFUSED(bad, desc.link.in_host.latency_us = NAN, "latency is", "finite");
  REFUSED(bad, desc.link.in_host.message_us = -1.0, "a message costs -1 us", "finite");
  REFUSED(bad, desc.link.between_hosts.bandwidth_gbs = -1.0, "between_hosts", "bandwidth is -1");
  REFUSED(bad, desc.link.between_hosts.bandwidth_gbs = INFINITY, "bandwidth is inf", "finite");
  REFUSED(bad, desc.link.ranks_per_host = -1, "link ranks_per_host is -1", "0 to 2147483647");
}

TEST(shapes_out_of_range_are_refused) {
  const sy_status bad = SY_ERR_ARGUMENT;
  REFUSED(bad, shape.hidden = 0, "hidden is 0", "multiples of 16", "16 to 1048576");
  REFUSED(bad, shape.hidden = 72, "hidden is 72", "multiples of 16");
  REFUSED(bad, shape.hidden = -64, "hidden is -64", "16 to 1048576");
  REFUSED(bad, shape.hidden = 1048592, "hidden is 1048592", "16 to 1048576");
  REFUSED(bad, shape.intermediate = 8, "intermediate is 8", "multiples of 16", "16 to 1048576");
  REFUSED(bad, shape.num_experts = 0, "num_experts is 0", "1 to 65534");
  REFUSED(bad, shape.num_experts = 65535, "num_experts is 65535", "1 to 65534");
  REFUSED(bad, shape.top_k = 0, "top_k is 0", "1 to 1024");
  REFUSED(bad, shape.top_k = 1025, "top_k is 1025", "1 to 1024");
  REFUSED(bad, shape.mode = (sy_mode)3, "mode is 3", "0 to 2");
  REFUSED(bad, shape.format = (sy_format)2, "format is 2", "0 to 1");
  REFUSED(bad, (shape.format = SY_FORMAT_MXFP4, shape.hidden = 48), "hidden is 48",
          "multiples of 32");
  REFUSED(bad, (shape.format = SY_FORMAT_MXFP4, shape.intermediate = 16), "intermediate is 16",
          "multiples of 32 from 32");
  REFUSED(bad, shape.activation = (sy_activation)4, "activation is 4", "0 to 3");
  REFUSED(bad, shape.has_bias = 2, "has_bias is 2", "0 to 1");
  REFUSED(bad, (shape.activation = SY_ACTIVATION_SWIGLU_CLAMPED, shape.swiglu_alpha = INFINITY),
          "swiglu_alpha is inf", "finite");
  REFUSED(bad, (shape.activation = SY_ACTIVATION_SWIGLU_CLAMPED, shape.swiglu_limit = 0.0f),
          "swiglu_limit 0", "above 0");
}

TEST(descriptions_of_another_version_are_refused) {
  const sy_status bad = SY_ERR_ARGUMENT;
  REFUSED(bad, desc.struct_size = 0, "plan desc", "SY_PLAN_DESC_INIT");
  REFUSED(bad, desc.struct_size -= 1, "plan desc", "SY_PLAN_DESC_INIT");
  REFUSED(bad, shape.struct_size = 0, "shape", "SY_SHAPE_INIT");
  REFUSED(bad, desc.shape = NULL, "shape is NULL");
  sy_plan *plan = NULL;
  CHECK_FAILS(sy_plan_create(NULL, &plan), NULL, bad, "plan desc is NULL");
  CHECK(plan == NULL);

  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 32, 8, 2);
  sy_plan_desc desc = desc_of(&shape, 4, 100);
  desc.struct_size += 8; /* a later version's, read as ours */
  if (!CHECK_OK(sy_plan_create(&desc, &plan))) {
    return;
  }
  sy_plan_info info = {.struct_size = sizeof info - 1, .wave_tokens = 7};
  CHECK_FAILS(sy_plan_query(plan, &info), NULL, bad, "SY_PLAN_INFO_INIT");
  CHECK_EQ_I64(info.wave_tokens, 7);
  CHECK_FAILS(sy_plan_query(NULL, &info), NULL, bad, "plan is NULL");
  CHECK_EQ_U64(sy_plan_scratch_bytes(NULL), 0);
  sy_plan_destroy(plan);
  sy_plan_destroy(NULL);
}

TEST(a_list_too_short_is_told_its_length) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 32, 8, 2);
  const sy_plan_desc desc = desc_of(&shape, 4, 100);
  sy_plan *plan = NULL;
  size_t count = 0;
  if (!CHECK_OK(sy_plan_create(&desc, &plan))) {
    return;
  }
  CHECK_FAILS(sy_plan_describe(plan, NULL, 0, &count), NULL, SY_ERR_TOO_SMALL, "capacity is 0");
  CHECK_EQ_U64(count, 28);
  sy_buffer_info buffers[MAX_BUFFERS];
  memset(buffers, 0x5A, sizeof buffers);
  const sy_buffer_info untouched = buffers[0];
  CHECK_FAILS(sy_plan_describe(plan, buffers, count - 1, &count), NULL, SY_ERR_TOO_SMALL,
              "capacity is 27", "28 buffers");
  CHECK_EQ_BYTES(&buffers[0], &untouched, sizeof untouched);
  CHECK_OK(sy_plan_describe(plan, buffers, count, &count));
  CHECK_STATUS(sy_plan_describe(plan, NULL, 1, &count), SY_ERR_ARGUMENT);
  CHECK_STATUS(sy_plan_describe(plan, buffers, MAX_BUFFERS, NULL), SY_ERR_ARGUMENT);
  CHECK_STATUS(sy_plan_describe(NULL, buffers, MAX_BUFFERS, &count), SY_ERR_ARGUMENT);
  sy_plan_destroy(plan);
}
