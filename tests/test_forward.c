/* sy_forward in a world of one: same token, same bits; every form of the tensors; every routing. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "kernels/fp4.h"
#include "kernels/kernels.h"
#include "tests/support/backend.h"
#include "tests/support/expect.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"

/* A case, a group of one process, and the case's layer in it. */
struct alone {
  struct layer_case c;
  sy_group *group;
  struct layer_rank rank;
};

static bool alone_open(struct alone *a, const sy_shape *shape, int64_t num_tokens) {
  layer_case_make(&a->c, shape, num_tokens);
  a->group = local_group(1);
  return layer_rank_open(&a->rank, &a->c, a->group);
}

static void alone_close(struct alone *a) {
  layer_rank_close(&a->rank);
  sy_group_destroy(a->group);
  layer_case_free(&a->c);
}

static struct token_split tokens_between(int64_t begin, int64_t end) {
  return (struct token_split){{begin, end}};
}

static struct token_split all_tokens(const struct alone *a) {
  return tokens_between(0, a->c.num_tokens);
}

/* Runs tokens [begin, end) and compares them with what they gave before. */
static void check_same(struct alone *a, const struct call_options *options, const void *expected,
                       int64_t begin, int64_t end, const char *what) {
  const struct token_split split = tokens_between(begin, end);
  void *got = layer_case_outputs(&a->c, options->output_dtype);
  if (layer_rank_run(&a->rank, options, &split, got) == SY_OK) {
    same_bits(&a->c, options->output_dtype, got, expected, begin, end, what);
  }
}

/* ---- Same token, same bits ---- */

enum { NUM_TOKENS = 11 };

/* Calls body for every mode and combine, with outputs of all tokens in one exact wave. */
static void for_every_kind(void (*body)(struct alone *a, const struct call_options *options,
                                        const float *expected)) {
  for (int kind = 0; kind < NUM_SHAPE_KINDS * 2; ++kind) {
    const sy_shape shape = shape_of_kind(kind % NUM_SHAPE_KINDS, 64, 160, 7, 3);
    const struct call_options options = {.strategy = SY_STRATEGY_EXACT,
                                         .combine = (sy_combine)(kind / NUM_SHAPE_KINDS),
                                         .output_dtype = SY_DTYPE_F32};
    struct alone a;
    if (alone_open(&a, &shape, NUM_TOKENS)) {
      float *expected = layer_case_outputs(&a.c, SY_DTYPE_F32);
      const struct token_split split = all_tokens(&a);
      layer_rank_run(&a.rank, &options, &split, expected);
      body(&a, &options, expected);
    }
    alone_close(&a);
  }
}

static void vary_batch(struct alone *a, const struct call_options *options, const float *expected) {
  for (int64_t begin = 0; begin < NUM_TOKENS; ++begin) {
    for (int64_t end = begin + 1; end <= NUM_TOKENS; end += 3) {
      check_same(a, options, expected, begin, end, "another batch");
    }
  }
}

TEST(bits_do_not_depend_on_the_batch) { for_every_kind(vary_batch); }

static void vary_waves_and_chunks(struct alone *a, const struct call_options *options,
                                  const float *expected) {
  static const int64_t counts[] = {1, 2, 3, 5, NUM_TOKENS - 1, NUM_TOKENS};
  enum { NUM_COUNTS = sizeof counts / sizeof counts[0] };
  for (int i = 0; i < NUM_COUNTS * NUM_COUNTS; ++i) {
    struct call_options varied = *options;
    varied.wave_tokens = counts[i % NUM_COUNTS];
    varied.chunk_rows = counts[i / NUM_COUNTS];
    check_same(a, &varied, expected, 0, NUM_TOKENS, "other waves and chunks");
  }
}

TEST(bits_do_not_depend_on_waves_and_chunks) { for_every_kind(vary_waves_and_chunks); }

static void vary_strategy(struct alone *a, const struct call_options *options,
                          const float *expected) {
  for (int strategy = SY_STRATEGY_AUTO; strategy <= SY_STRATEGY_GATHER; ++strategy) {
    for (int64_t wave_tokens = 4; wave_tokens <= NUM_TOKENS + 1; wave_tokens += 4) {
      struct call_options varied = *options;
      varied.strategy = (sy_strategy)strategy;
      varied.wave_tokens = wave_tokens;
      varied.max_tokens = NUM_TOKENS + 7; /* fixed: waves in which there is nothing */
      check_same(a, &varied, expected, 0, NUM_TOKENS, "another strategy");
      varied.halves = wave_tokens >= NUM_TOKENS;
      check_same(a, &varied, expected, 0, NUM_TOKENS, "halves");
    }
  }
}

TEST(bits_do_not_depend_on_the_strategy) { for_every_kind(vary_strategy); }

static void vary_group(struct alone *a, sy_group *group, const struct call_options *options,
                       const float *expected, const char *what) {
  struct alone other = {.c = a->c, .group = group};
  if (layer_rank_open(&other.rank, &other.c, group)) {
    check_same(&other, options, expected, 0, NUM_TOKENS, what);
  }
  layer_rank_close(&other.rank);
  sy_group_destroy(group);
  a->c.memory = other.c.memory;
}

static void vary_threads(struct alone *a, const struct call_options *options,
                         const float *expected) {
  for (int32_t threads = 0; threads <= 4; ++threads) {
    vary_group(a, local_group(threads), options, expected, "other threads");
  }
}

TEST(bits_do_not_depend_on_threads) { for_every_kind(vary_threads); }

static void vary_level(struct alone *a, const struct call_options *options, const float *expected) {
  size_t count = 0;
  const struct sy_kernels *levels = sy_kernels_cpu_levels(&count);
  for (size_t i = 0; i < count; ++i) {
    if (levels[i].is_available()) {
      setenv("SWITCHYARD_CPU_LEVEL", levels[i].name, 1);
      vary_group(a, local_group(1), options, expected, levels[i].name);
      unsetenv("SWITCHYARD_CPU_LEVEL");
    }
  }
}

TEST(bits_do_not_depend_on_the_instruction_level) { for_every_kind(vary_level); }

static void run_again(struct alone *a, const struct call_options *options, const float *expected) {
  for (int i = 0; i < 5; ++i) {
    check_same(a, options, expected, 0, NUM_TOKENS, "another run");
  }
}

TEST(bits_do_not_depend_on_the_run) { for_every_kind(run_again); }

/* ---- The tensors ---- */

static float rounded(float x) { return sy_bf16_to_f32(sy_f32_to_bf16(x)); }

/* What the output must be, from the f32 output of a call that did not accumulate. */
static void check_output(struct alone *a, const struct call_options *options, const float *plain) {
  const struct token_split split = all_tokens(a);
  void *got = layer_case_outputs(&a->c, options->output_dtype);
  if (layer_rank_run(&a->rank, options, &split, got) != SY_OK) {
    return;
  }
  for (int64_t i = 0; i < a->c.num_tokens * a->c.shape.hidden; ++i) {
    const float initial = layer_case_initial(i / a->c.shape.hidden, i % a->c.shape.hidden);
    const float sum = options->accumulate ? initial + plain[i] : plain[i];
    if (options->output_dtype == SY_DTYPE_F32) {
      CHECK_EQ_BYTES(&((const float *)got)[i], &sum, sizeof sum);
    } else {
      const float value = sy_bf16_to_f32(((const uint16_t *)got)[i]);
      const float expected = rounded(sum);
      CHECK_EQ_BYTES(&value, &expected, sizeof value);
    }
  }
}

TEST(outputs_take_every_form) {
  const sy_shape shape = small_shape(SY_MODE_BF16, 48, 32, 6, 2);
  struct alone a;
  if (alone_open(&a, &shape, 9)) {
    struct call_options options = {.output_dtype = SY_DTYPE_F32};
    float *plain = layer_case_outputs(&a.c, SY_DTYPE_F32);
    const struct token_split split = all_tokens(&a);
    layer_rank_run(&a.rank, &options, &split, plain);
    for (int form = 0; form < 2 * 2 * 3 * 2 * 2; ++form) {
      options = (struct call_options){.output_dtype = (sy_dtype)(form % 2),
                                      .accumulate = form / 2 % 2 != 0,
                                      .gap = form / 4 % 3 * 5,
                                      .own_scratch = form / 12 % 2 != 0,
                                      .wave_tokens = form / 24 * 4};
      check_output(&a, &options, plain);
    }
  }
  alone_close(&a);
}

/* With f32 return rows nothing is rounded to BF16 on the way back. */
TEST(return_rows_may_be_f32) {
  const sy_shape shape = small_shape(SY_MODE_BF16, 64, 64, 6, 2);
  for (int combine = 0; combine < 2; ++combine) {
    struct alone a;
    if (alone_open(&a, &shape, 8)) {
      const struct call_options options = {.combine = (sy_combine)combine,
                                           .return_dtype = SY_DTYPE_F32,
                                           .output_dtype = SY_DTYPE_F32};
      const struct token_split split = all_tokens(&a);
      float *got = layer_case_outputs(&a.c, SY_DTYPE_F32);
      if (layer_rank_run(&a.rank, &options, &split, got) == SY_OK) {
        const double distance = layer_case_distance(&a.c, got, 0, 8);
        printf("combine %d: %.3g from the oracle\n", combine, distance);
        CHECK(distance < 5e-4); /* a BF16 row would be 2e-3 away */
      }
    }
    alone_close(&a);
  }
}

/* ---- From end to end ---- */

static void check_against_oracle(const sy_shape *shape, int64_t num_tokens) {
  struct alone a;
  if (alone_open(&a, shape, num_tokens)) {
    const struct call_options options = {.output_dtype = SY_DTYPE_F32};
    const struct token_split split = all_tokens(&a);
    float *got = layer_case_outputs(&a.c, SY_DTYPE_F32);
    if (layer_rank_run(&a.rank, &options, &split, got) == SY_OK) {
      const double distance = layer_case_distance(&a.c, got, 0, num_tokens);
      printf("mode %d, format %d, activation %d, bias %d, hidden %d: %.3g from the oracle\n",
             (int)shape->mode, (int)shape->format, (int)shape->activation, (int)shape->has_bias,
             (int)shape->hidden, distance);
      CHECK(distance <= layer_case_tolerance(shape->mode));
    }
  }
  alone_close(&a);
}

TEST(outputs_are_near_the_oracle) {
  for (int kind = 0; kind < NUM_SHAPE_KINDS * 4 * 2; ++kind) {
    sy_shape shape = shape_of_kind(kind % NUM_SHAPE_KINDS, 96, 160, 8, 3);
    shape.activation = (sy_activation)(kind / NUM_SHAPE_KINDS % 4);
    shape.has_bias = kind / (4 * NUM_SHAPE_KINDS);
    check_against_oracle(&shape, 12);
  }
}

TEST_SLOW(wide_layers_are_near_the_oracle) {
  for (int mode = 0; mode < 3; ++mode) {
    const sy_shape shape = small_shape((sy_mode)mode, 1024, 512, 4, 2);
    check_against_oracle(&shape, 3);
  }
}

/* (tokens, top-k, experts) of the seed's tests. */
TEST(the_seeds_shapes) {
  static const int32_t seeds[][3] = {{2, 8, 8}, {4, 8, 16}, {4, 4, 8}};
  for (int i = 0; i < 3 * 3; ++i) {
    const int32_t *seed = seeds[i / 3];
    const sy_shape shape = small_shape((sy_mode)(i % 3), 128, 64, seed[2], seed[1]);
    check_against_oracle(&shape, seed[0]);
  }
}

/* ---- Routings ---- */

static void set_ids(struct alone *a, int32_t (*id_of)(int64_t token, int32_t slot)) {
  const int32_t top_k = a->c.shape.top_k;
  for (int64_t i = 0; i < a->c.num_tokens * top_k; ++i) {
    a->c.ids[i] = id_of(i / top_k, (int32_t)(i % top_k));
  }
}

/* Tokens one by one give what all of them together give, in every strategy, and the
 * oracle agrees. */
static void check_routing(struct alone *a, const char *what) {
  float *expected = layer_case_outputs(&a->c, SY_DTYPE_F32);
  for (int kind = 0; kind < 3 * 2; ++kind) {
    struct call_options options = {.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3),
                                   .combine = (sy_combine)(kind / 3),
                                   .output_dtype = SY_DTYPE_F32};
    expect_outputs(&a->c, &options, 1, expected);
    check_same(a, &options, expected, 0, a->c.num_tokens, what);
    options.wave_tokens = 7;
    options.chunk_rows = 5;
    check_same(a, &options, expected, 0, a->c.num_tokens, what);
  }
  CHECK(layer_case_distance(&a->c, expected, 0, a->c.num_tokens) <=
        layer_case_tolerance(a->c.shape.mode));
}

static int32_t always_five(int64_t token, int32_t slot) {
  (void)token;
  return slot == 0 ? 5 : -1;
}

/* Around the tile sizes that kernels like. */
TEST(many_rows_to_one_expert) {
  static const int64_t counts[] = {1, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; ++i) {
    const sy_shape shape = small_shape((sy_mode)(i % 3), 32, 48, 8, 2);
    struct alone a;
    if (alone_open(&a, &shape, counts[i])) {
      set_ids(&a, always_five);
      check_routing(&a, "many rows to one expert");
    }
    alone_close(&a);
  }
}

/* The bug this project starts from: buffers of one entry per routed row, sized by experts. */
TEST(routed_rows_below_at_and_above_the_experts) {
  static const int32_t experts[] = {2, 3, 4, 5, 8, 16};
  for (size_t i = 0; i < sizeof experts / sizeof experts[0]; ++i) {
    for (int64_t rows = experts[i] - 1; rows <= experts[i] + 1; ++rows) {
      for (int32_t top_k = 1; top_k <= 2; ++top_k) {
        const sy_shape shape = small_shape(SY_MODE_W4A4, 16, 16, experts[i], top_k);
        struct alone a;
        if (rows % top_k == 0 && alone_open(&a, &shape, rows / top_k)) {
          check_routing(&a, "routed rows near the number of experts");
        }
        if (rows % top_k == 0) {
          alone_close(&a);
        }
      }
    }
  }
}

TEST(routed_rows_far_beyond_the_experts) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 16, 16, 3, 3);
  struct alone a;
  if (alone_open(&a, &shape, 100)) {
    check_routing(&a, "300 routed rows to 3 experts");
  }
  alone_close(&a);
}

TEST(one_expert_alone) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 16, 16, 1, 1);
  struct alone a;
  if (alone_open(&a, &shape, 9)) {
    check_routing(&a, "one expert");
  }
  alone_close(&a);
}

TEST(more_slots_than_experts) {
  const sy_shape shape = small_shape(SY_MODE_W4A16, 16, 16, 3, 8); /* five slots stay masked */
  struct alone a;
  if (alone_open(&a, &shape, 9)) {
    check_routing(&a, "more slots than experts");
  }
  alone_close(&a);
}

static int32_t every_third_masked(int64_t token, int32_t slot) {
  return (token + slot) % 3 == 0 ? -1 : (int32_t)((3 * token + slot) % 8);
}

TEST(masked_slots) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 8, 4);
  struct alone a;
  if (alone_open(&a, &shape, 13)) {
    set_ids(&a, every_third_masked);
    check_routing(&a, "masked slots");
  }
  alone_close(&a);
}

static bool is_zero(const void *bytes, size_t count) {
  const unsigned char *byte = bytes;
  for (size_t i = 0; i < count; ++i) {
    if (byte[i] != 0) {
      return false;
    }
  }
  return true;
}

static int32_t odd_tokens_masked(int64_t token, int32_t slot) {
  return token % 2 != 0 ? -1 : slot + 1;
}

/* Plus zero, whatever the token and its weights are. */
TEST(tokens_without_experts_give_zeros) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 8, 4);
  struct alone a;
  if (alone_open(&a, &shape, 6)) {
    set_ids(&a, odd_tokens_masked);
    a.c.hidden[32] = 0x7FC0u; /* token 1 is not finite */
    for (int32_t k = 0; k < 4; ++k) {
      a.c.weights[3 * 4 + k] = NAN;
    }
    for (int kind = 0; kind < 3 * 2; ++kind) {
      const struct call_options options = {.strategy = (sy_strategy)(SY_STRATEGY_EXACT + kind % 3),
                                           .combine = (sy_combine)(kind / 3),
                                           .output_dtype = SY_DTYPE_F32};
      const struct token_split split = all_tokens(&a);
      float *got = layer_case_outputs(&a.c, SY_DTYPE_F32);
      layer_rank_run(&a.rank, &options, &split, got);
      for (int64_t t = 0; t < 6; ++t) {
        CHECK_EQ_I64(is_zero(got + t * 32, 32 * sizeof *got), t % 2 != 0);
      }
      const struct token_split masked = tokens_between(1, 2); /* a batch of nothing else */
      memset(got, 0xFF, 6 * 32 * sizeof *got);
      layer_rank_run(&a.rank, &options, &masked, got);
      CHECK(is_zero(got + 32, 32 * sizeof *got));
    }
  }
  alone_close(&a);
}

/* An expert named again adds its weight to the first slot that names it. */
TEST(experts_named_twice_have_their_weights_added) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 8, 4);
  struct alone a;
  if (alone_open(&a, &shape, 2)) {
    const int32_t twice[] = {3, 6, 3, 3, 3, 6, -1, -1};
    const float weights[] = {0.5f, 0.25f, 0.125f, 0.75f, 0.5f + 0.125f + 0.75f, 0.25f, 9.0f, 9.0f};
    memcpy(a.c.ids, twice, sizeof twice);
    memcpy(a.c.weights, weights, sizeof weights);
    memcpy(a.c.hidden + 32, a.c.hidden, 32 * sizeof *a.c.hidden);
    check_routing(&a, "experts named twice");
    for (int combine = 0; combine < 2; ++combine) {
      const struct call_options options = {.combine = (sy_combine)combine,
                                           .output_dtype = SY_DTYPE_F32};
      const struct token_split split = all_tokens(&a);
      float *got = layer_case_outputs(&a.c, SY_DTYPE_F32);
      layer_rank_run(&a.rank, &options, &split, got);
      CHECK_EQ_BYTES(got, got + 32, 32 * sizeof *got);
    }
  }
  alone_close(&a);
}

TEST(no_tokens_at_all) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 8, 4);
  struct alone a;
  if (alone_open(&a, &shape, 0)) {
    for (int strategy = SY_STRATEGY_EXACT; strategy <= SY_STRATEGY_GATHER; ++strategy) {
      struct layer_call call;
      const struct call_options options = {
          .strategy = (sy_strategy)strategy, .max_tokens = 5, .wave_tokens = 2};
      const struct token_split split = all_tokens(&a);
      if (layer_call_open(&call, &a.rank, &options, &split)) {
        CHECK_OK(layer_call_forward(&call));
        call.io.hidden = NULL; /* a rank without tokens may have no tensors */
        call.io.expert_ids = NULL;
        call.io.expert_weights = NULL;
        call.io.output = NULL;
        CHECK_OK(layer_call_forward(&call));
      }
      layer_call_close(&call);
    }
  }
  alone_close(&a);
}

/* ---- What is not finite ---- */

static bool is_all_nan(const float *values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    if (!isnan(values[i])) {
      return false;
    }
  }
  return true;
}

TEST(a_value_that_is_not_finite_stays_with_its_token) {
  static const uint16_t bad[] = {0x7F80u, 0xFF80u, 0x7FC0u, 0xFF81u}; /* inf, -inf, NaN, NaN */
  for (int kind = 0; kind < 3 * 2; ++kind) {
    const sy_shape shape = small_shape((sy_mode)(kind % 3), 64, 32, 6, 2);
    struct alone a;
    if (alone_open(&a, &shape, 8)) {
      const struct call_options options = {.combine = (sy_combine)(kind / 3),
                                           .output_dtype = SY_DTYPE_F32};
      const struct token_split split = all_tokens(&a);
      float *clean = layer_case_outputs(&a.c, SY_DTYPE_F32);
      float *got = layer_case_outputs(&a.c, SY_DTYPE_F32);
      layer_rank_run(&a.rank, &options, &split, clean);
      for (int64_t i = 0; i < 4; ++i) {
        a.c.hidden[2 * i * 64 + 13 * i] = bad[i];
      }
      layer_rank_run(&a.rank, &options, &split, got);
      for (int64_t t = 0; t < 8; ++t) {
        if (t % 2 == 0) {
          CHECK(is_all_nan(got + t * 64, 64));
        } else {
          same_bits(&a.c, SY_DTYPE_F32, got, clean, t, t + 1, "beside a token that is NaN");
        }
      }
    }
    alone_close(&a);
  }
}

/* ---- Counting ---- */

static void check_counters(struct alone *a, int64_t forwards, int64_t waves) {
  uint64_t expected[8] = {0};
  uint64_t counts[8];
  uint64_t routed = 0;
  size_t count = 0;
  for (int64_t i = 0; i < a->c.num_tokens * a->c.shape.top_k; ++i) {
    expected[a->c.ids[i]] += (uint64_t)forwards;
    routed += (uint64_t)forwards;
  }
  CHECK_OK(sy_layer_load_counts(a->rank.layer, 1, counts, 8, &count));
  CHECK_EQ_U64(count, 8);
  CHECK_EQ_BYTES(counts, expected, sizeof counts);
  sy_stats stats = SY_STATS_INIT;
  CHECK_OK(sy_group_stats(a->group, 1, &stats));
  CHECK_EQ_I64((int64_t)stats.forwards, forwards);
  CHECK_EQ_I64((int64_t)stats.waves, waves);
  CHECK_EQ_I64((int64_t)stats.tokens, forwards * a->c.num_tokens);
  CHECK_EQ_I64((int64_t)stats.received_rows, forwards * a->c.num_tokens);
  CHECK_EQ_U64(stats.routed_rows, routed);
  CHECK_EQ_I64((int64_t)stats.local_experts, waves * 8);
  CHECK(stats.active_experts <= stats.local_experts && stats.active_experts > 0);
  CHECK_EQ_U64(stats.bytes_sent, 0); /* nothing goes to another rank */
  CHECK_EQ_U64(stats.bytes_received, 0);
  CHECK((stats.experts_ns > 0) == (sy_group_memory(a->group) == SY_MEMORY_HOST));
}

TEST(counters_count) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 32, 32, 8, 3);
  struct alone a;
  if (alone_open(&a, &shape, 10)) {
    struct call_options options = {.wave_tokens = 4, .chunk_rows = 3};
    const struct token_split split = all_tokens(&a);
    void *outputs = layer_case_outputs(&a.c, SY_DTYPE_BF16);
    layer_rank_run(&a.rank, &options, &split, outputs);
    layer_rank_run(&a.rank, &options, &split, outputs);
    check_counters(&a, 2, 6);
    options = (struct call_options){.halves = true};
    layer_rank_run(&a.rank, &options, &split, outputs);
    check_counters(&a, 1, 1);

    sy_stats stats = SY_STATS_INIT; /* check_counters has reset them */
    const sy_stats zeros = SY_STATS_INIT;
    CHECK_OK(sy_group_stats(a.group, 0, &stats));
    CHECK_EQ_BYTES(&stats, &zeros, sizeof stats);
    uint64_t counts[8] = {7};
    size_t count = 0;
    CHECK_FAILS(sy_layer_load_counts(a.rank.layer, 0, counts, 7, &count), a.group, SY_ERR_TOO_SMALL,
                "capacity is 7", "8 experts");
    CHECK_EQ_U64(count, 8);
    CHECK_EQ_U64(counts[0], 7);
    stats.struct_size = 1;
    CHECK_FAILS(sy_group_stats(a.group, 0, &stats), NULL, SY_ERR_ARGUMENT, "SY_STATS_INIT");
  }
  alone_close(&a);
}
