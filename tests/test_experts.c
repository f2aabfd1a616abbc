/* The experts stage against the float64 oracle: all modes, activations and biases, ragged sizes,
 * any number of rows, and the same bits whatever else is in the batch. */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "tests/support/backends.h"
#include "tests/support/harness.h"
#include "tests/support/judge.h"
#include "tests/support/random.h"
#include "tests/support/road.h"

/* Every mode, and the FP4 ones in both formats. */
enum { NUM_KINDS = 5 };
static const struct {
  sy_mode mode;
  sy_format format;
  const char *name;
} kinds[NUM_KINDS] = {{SY_MODE_W4A4, SY_FORMAT_NVFP4, "w4a4"},
                      {SY_MODE_W4A16, SY_FORMAT_NVFP4, "w4a16"},
                      {SY_MODE_BF16, SY_FORMAT_NVFP4, "bf16"},
                      {SY_MODE_W4A4, SY_FORMAT_MXFP4, "w4a4 mxfp4"},
                      {SY_MODE_W4A16, SY_FORMAT_MXFP4, "w4a16 mxfp4"}};

/* Makes the shape one of kind m; false when its sizes do not allow that. */
static bool set_kind(struct road_shape *shape, int m) {
  shape->mode = kinds[m].mode;
  shape->format = kinds[m].format;
  return shape->format == SY_FORMAT_NVFP4 ||
         (shape->hidden % SY_MXFP4_BLOCK == 0 && shape->intermediate % SY_MXFP4_BLOCK == 0);
}

/* End to end the distance is reported; an intermediate code may flip where the kernel's f32 and the
 * oracle's float64 fall on two sides of a boundary, and one code of 16 can cost its routed row 0.2.
 * The bound only keeps out what no flip explains. */
#define END_TO_END_TOLERANCE 0.1

static struct road_shape make_shape(const struct sy_kernels *kernels, int64_t hidden,
                                    int64_t intermediate, int32_t top_k, int32_t num_experts) {
  return (struct road_shape){.kernels = kernels,
                             .hidden = hidden,
                             .intermediate = intermediate,
                             .num_experts = num_experts,
                             .top_k = top_k,
                             .world = 1,
                             .return_dtype = SY_DTYPE_F32,
                             .output_dtype = SY_DTYPE_F32};
}

/* Walks the road and judges it; returns the distance from end to end. */
static double walk_and_judge(const struct road_shape *shape, const struct road_tokens *tokens,
                             int64_t min_routed_rows) {
  struct road road;
  struct judge judge;
  road_begin(&road, shape, tokens, NULL);
  judge_begin(&judge, &road);
  road_walk(&road, judge_experts, &judge);
  CHECK(judge.routed_rows >= min_routed_rows);
  const double distance = judge_outputs(&judge, &road);
  CHECK(distance <= END_TO_END_TOLERANCE);
  judge_end(&judge);
  road_end(&road);
  return distance;
}

/* The same in all modes. */
static void judge_modes(struct road_shape shape, const struct road_tokens *tokens,
                        int64_t min_routed_rows) {
  for (int m = 0; m < NUM_KINDS; ++m) {
    if (set_kind(&shape, m)) {
      const double distance = walk_and_judge(&shape, tokens, min_routed_rows);
      printf("%s hidden %d intermediate %d tokens %d: end to end %.2e\n", kinds[m].name,
             (int)shape.hidden, (int)shape.intermediate, (int)tokens->count, distance);
    }
  }
}

/* ---- Sizes and kinds ---- */

static void all_kinds(const struct sy_kernels *kernels) {
  struct fences fences = {NULL};
  struct road_shape shape = make_shape(kernels, 64, 160, 2, 4);
  const struct road_tokens tokens = road_tokens_make(&fences, &shape, 9);
  for (int kind = 0; kind < 8; ++kind) {
    shape.activation = (sy_activation)(kind / 2);
    shape.has_bias = kind % 2 != 0;
    judge_modes(shape, &tokens, 18);
  }
  fences_free(&fences);
}

TEST(every_mode_activation_and_bias) { on_every_backend(all_kinds); }

/* FP4 weights are taken code for code: the oracle takes them at their word. Sizes beyond a block of
 * 128, and, in one kind for each dtype, beyond a panel of 4096 columns. */
static void weights_of_dtypes(const struct sy_kernels *kernels) {
  static const int64_t sizes[][2] = {{160, 160}, {4128, 32}, {32, 4160}};
  static const int long_kind[] = {1, 2, 0, 3}; /* F16, FP8, NVFP4, MXFP4 */
  for (int c = 0; c < 4 * 3 * NUM_KINDS; ++c) {
    const bool is_long = c / 4 % 3 > 0;
    struct road_shape shape =
        make_shape(kernels, sizes[c / 4 % 3][0], sizes[c / 4 % 3][1], 2, is_long ? 1 : 2);
    if (is_long && c / 12 != long_kind[c % 4]) {
      continue;
    }
    shape.dtype_is_set = true;
    shape.dtype = (sy_dtype)(SY_DTYPE_F16 + c % 4);
    shape.activation = c % 3 == 0 ? SY_ACTIVATION_RELU2 : SY_ACTIVATION_SWIGLU;
    const bool mx = shape.dtype == SY_DTYPE_MXFP4;
    const bool fp4 = mx || shape.dtype == SY_DTYPE_NVFP4;
    if (!set_kind(&shape, c / 12) ||
        (fp4 && (shape.mode == SY_MODE_BF16 || mx != (shape.format == SY_FORMAT_MXFP4)))) {
      continue;
    }
    struct fences fences = {NULL};
    const struct road_tokens tokens = road_tokens_make(&fences, &shape, 5);
    walk_and_judge(&shape, &tokens, 5);
    fences_free(&fences);
  }
}

TEST(weights_of_every_dtype) { on_every_backend(weights_of_dtypes); }

/* Intermediates below, at and beyond the 128 columns that share a global scale; hidden sizes that
 * no tile of 32 or 128 divides. */
static void ragged_sizes(const struct sy_kernels *kernels) {
  static const int64_t sizes[][2] = {{16, 16},   {16, 704},  {48, 112},  {48, 128},
                                     {48, 144},  {2880, 16}, {272, 304}, {32, 32},
                                     {2880, 32}, {32, 96},   {96, 288}};
  for (int s = 0; s < 11; ++s) {
    struct fences fences = {NULL};
    const struct road_shape shape = make_shape(kernels, sizes[s][0], sizes[s][1], 2, 2);
    const struct road_tokens tokens = road_tokens_make(&fences, &shape, 3);
    judge_modes(shape, &tokens, 6);
    fences_free(&fences);
  }
}

TEST(ragged_hidden_and_intermediate) { on_every_backend(ragged_sizes); }

static void rows_to_one_expert(const struct sy_kernels *kernels) {
  static const int64_t rows[] = {1, 7, 8, 9, 31, 32, 33, 63, 64, 65, 127, 128, 129};
  for (int c = 0; c < 13; ++c) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, 32, 96, 2, 3);
    struct road_tokens tokens = road_tokens_make(&fences, &shape, rows[c]);
    for (int64_t t = 0; t < tokens.count; ++t) {
      tokens.ids[2 * t] = 1;
      tokens.ids[2 * t + 1] = t % 16 == 0 ? 2 : -1; /* and a few to another */
    }
    shape.num_threads = 1 + c % 3;
    judge_modes(shape, &tokens, rows[c]);
    fences_free(&fences);
  }
}

TEST(rows_to_one_expert_around_tile_sizes) { on_every_backend(rows_to_one_expert); }

/* (tokens, top-k, experts) at the sizes of the report that the project starts from. */
static void seed_shapes(const struct sy_kernels *kernels) {
  static const int32_t shapes[][3] = {{2, 8, 8}, {4, 8, 16}, {4, 4, 8}};
  for (int s = 0; s < 3; ++s) {
    for (int32_t world = 1; world <= 4; world *= 2) {
      struct fences fences = {NULL};
      const bool full_size = s == 0 && world == 1;
      struct road_shape shape = make_shape(kernels, full_size ? 256 : 64, full_size ? 512 : 144,
                                           shapes[s][1], shapes[s][2]);
      const struct road_tokens tokens = road_tokens_make(&fences, &shape, shapes[s][0]);
      shape.world = world;
      shape.mode = SY_MODE_W4A4;
      walk_and_judge(&shape, &tokens, (int64_t)shapes[s][0] * shapes[s][1]);
      fences_free(&fences);
    }
  }
}

TEST(seed_shapes_alone_and_over_2_and_4_ranks) { on_every_backend(seed_shapes); }

static void routed_rows_against_experts(const struct sy_kernels *kernels) {
  static const int64_t routed_rows[] = {7, 8, 9, 200};
  for (int c = 0; c < 4; ++c) {
    struct fences fences = {NULL};
    const struct road_shape shape = make_shape(kernels, 48, 48, 4, 8);
    struct road_tokens tokens = road_tokens_make(&fences, &shape, (routed_rows[c] + 3) / 4);
    for (int64_t i = routed_rows[c]; i < 4 * tokens.count; ++i) {
      tokens.ids[i] = -1;
    }
    judge_modes(shape, &tokens, routed_rows[c]);
    fences_free(&fences);
  }
}

TEST(routed_rows_around_and_far_beyond_local_experts) {
  on_every_backend(routed_rows_against_experts);
}

/* ---- Same token, same bits ---- */

enum { SAME_TOKENS = 13, SAME_HIDDEN = 32 };

/* The outputs of the first `count` tokens; token's data does not depend on how many there are. */
static void outputs(const struct road_shape *shape, int64_t count, float *out) {
  struct fences fences = {NULL};
  struct road road;
  const struct road_tokens tokens = road_tokens_make(&fences, shape, count);
  road_begin(&road, shape, &tokens, NULL);
  road_walk(&road, NULL, NULL);
  for (int64_t i = 0; i < count * SAME_HIDDEN; ++i) {
    out[i] = road_output(&road, i / SAME_HIDDEN, i % SAME_HIDDEN);
  }
  road_end(&road);
  fences_free(&fences);
}

static void same_bits(const struct sy_kernels *kernels) {
  static float expected[SAME_TOKENS * SAME_HIDDEN];
  static float got[SAME_TOKENS * SAME_HIDDEN];
  for (int m = 0; m < NUM_KINDS; ++m) {
    struct road_shape shape = make_shape(kernels, SAME_HIDDEN, 160, 3, 5);
    if (!set_kind(&shape, m)) {
      continue;
    }
    shape.per_slot = true;
    outputs(&shape, SAME_TOKENS, expected);
    CHECK(isfinite(expected[0]) && expected[0] != 0.0f);
    for (int variant = 0; variant < 12; ++variant) {
      static const int64_t chunks[] = {0, 1, 5};
      static const int32_t permuted[] = {1, 0, 2, 1, 0};
      shape.chunk_rows = chunks[variant % 3];
      shape.num_threads = 1 + variant % 4;
      shape.world = variant < 4 ? 1 : variant < 8 ? 3 : 4;
      shape.expert_rank = variant >= 6 && shape.world == 3 ? permuted : NULL;
      shape.gather = variant % 2 != 0;
      shape.padded_slots = shape.gather || variant % 4 == 2;
      const int64_t count = variant % 5 == 0 ? 1 : SAME_TOKENS - variant % 3;
      outputs(&shape, count, got);
      CHECK_EQ_BYTES(got, expected, (size_t)count * SAME_HIDDEN * sizeof *got);
    }
  }
}

TEST(same_token_same_bits_on_every_backend) { on_every_backend(same_bits); }

/* Everything that the stage writes, FC1 included, folded into one number (FNV-1a). */
static void fold(const void *data, size_t bytes, uint64_t *digest) {
  const unsigned char *byte = data;
  for (size_t i = 0; i < bytes && data != NULL; ++i) {
    *digest = (*digest ^ byte[i]) * 0x100000001B3u;
  }
}

static void fold_chunk(const struct road *road, int32_t rank, const struct road_chunk *chunk,
                       void *user) {
  const struct sy_stage_env *env = &road->ranks[rank].env;
  const struct sy_experts_args *x = &chunk->experts;
  const size_t rows = (size_t)chunk->routed.num_routed;
  const size_t n = (size_t)env->intermediate;
  const size_t slices = (n + SY_INTERMEDIATE_SLICE - 1) / SY_INTERMEDIATE_SLICE;
  const bool gated = env->activation != SY_ACTIVATION_RELU2;
  for (size_t r = 0; r < rows; ++r) {
    fold(x->fc1_trace + r * 2 * n + (gated ? 0 : n), (gated ? 2 * n : n) * sizeof(float), user);
  }
  fold(x->intermediate, rows * sy_intermediate_row_bytes(env->mode, env->intermediate), user);
  fold(x->intermediate_scales, rows * n / (size_t)sy_scale_block(env->format), user);
  fold(x->intermediate_global, rows * slices * sizeof(float), user);
  fold(x->expert_out, rows * (size_t)env->hidden * sizeof(float), user);
}

static uint64_t digest_of(const struct road_shape *shape, const struct road_tokens *tokens) {
  struct road road;
  uint64_t digest = 0xCBF29CE484222325u;
  road_begin(&road, shape, tokens, NULL);
  road_walk(&road, fold_chunk, &digest);
  road_end(&road);
  return digest;
}

/* Faster levels must give the bits of the scalar specification, tails of every kind included. */
TEST(every_level_has_the_bits_of_the_specification) {
  size_t num_levels = 0;
  const struct sy_kernels *levels = sy_kernels_cpu_levels(&num_levels);
  if (sy_kernels_cpu() == &levels[num_levels - 1]) {
    SKIP("this machine has the specification's level only");
  }
  for (int64_t c = 0; c < 40; ++c) {
    struct random_stream r = random_stream_make(sy_test_seed(), "level", c);
    struct fences fences = {NULL};
    const int64_t unit = sy_scale_block(kinds[c % NUM_KINDS].format);
    struct road_shape shape =
        make_shape(&levels[num_levels - 1], unit * random_between(&r, 1, 272 / unit),
                   unit * random_between(&r, 1, 272 / unit), 2, 2);
    if (c < 2 * NUM_KINDS) { /* contractions longer than a kernel may want to hold at once */
      shape.hidden = c < NUM_KINDS ? 8192 + 3 * unit : unit;
      shape.intermediate = c < NUM_KINDS ? unit : 8192 + 3 * unit;
      shape.top_k = shape.num_experts = 1;
    }
    CHECK(set_kind(&shape, (int)(c % NUM_KINDS)));
    shape.activation = (sy_activation)(c / NUM_KINDS % 4);
    shape.has_bias = c % 2 == 0;
    shape.num_threads = 1 + (int32_t)(c % 3);
    const struct road_tokens tokens = road_tokens_make(&fences, &shape, random_between(&r, 1, 40));
    const uint64_t digest = digest_of(&shape, &tokens);
    for (size_t i = 0; i + 1 < num_levels; ++i) {
      shape.kernels = &levels[i];
      CHECK(!levels[i].is_available() || digest_of(&shape, &tokens) == digest);
    }
    fences_free(&fences);
  }
}

/* ---- Hard values ---- */

static void one_nan_token(const struct sy_kernels *kernels) {
  static const uint16_t bad[] = {0x7F80, 0xFF80, 0x7FC0};
  struct fences fences = {NULL};
  struct road_shape shape = make_shape(kernels, 64, 160, 2, 3);
  struct road_tokens tokens = road_tokens_make(&fences, &shape, 20);
  for (int kind = 0; kind < 20; ++kind) {
    const int64_t victim = kind;
    const uint16_t healthy = tokens.hidden[victim * 64 + 17];
    shape.activation = (sy_activation)(kind / NUM_KINDS);
    if (!set_kind(&shape, kind % NUM_KINDS)) {
      continue;
    }
    tokens.hidden[victim * 64 + 17] = bad[kind % 3];
    struct road road;
    struct judge judge;
    road_begin(&road, &shape, &tokens, NULL);
    judge_begin(&judge, &road);
    road_walk(&road, judge_experts, &judge);
    for (int64_t i = 0; i < tokens.count * shape.hidden; ++i) {
      const int64_t token = i / shape.hidden;
      CHECK((isnan(road_output(&road, token, i % shape.hidden)) != 0) == (token == victim));
    }
    judge_end(&judge);
    road_end(&road);
    tokens.hidden[victim * 64 + 17] = healthy;
  }
  fences_free(&fences);
}

TEST(a_non_finite_token_gives_nan_and_harms_no_other) { on_every_backend(one_nan_token); }

/* The biases of expert 0 become a sweep; with a hidden state of zeros FC1 is the bias itself. */
static void sweep_biases(sy_expert_weights *w, int64_t n, double low, double high) {
  for (int64_t i = 0; i < n; ++i) {
    const double x = low + (high - low) * (double)i / (double)(n - 1);
    if (w->gate_bias != NULL) {
      ((float *)(uintptr_t)w->gate_bias)[i] = (float)x;
      ((float *)(uintptr_t)w->up_bias)[i] = (float)(12.0 * cos((double)i));
    } else {
      ((float *)(uintptr_t)w->up_bias)[i] = (float)x;
    }
  }
}

/* Activations far out on both sides, where exp over- and underflows and what is left is tiny. */
static void activation_sweeps(const struct sy_kernels *kernels) {
  static const double ranges[][2] = {{-1.0, 1.0},   {-12.0, 12.0}, {-130.0, 130.0},
                                     {-1e-6, 1e-6}, {-1e6, 1e6},   {6.5, 7.5}};
  for (int kind = 0; kind < 4 * 6; ++kind) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, 16, 2048, 1, 1);
    struct road_tokens tokens = road_tokens_make(&fences, &shape, 1);
    memset(tokens.hidden, 0, 16 * sizeof *tokens.hidden);
    tokens.ids[0] = 0;
    shape.mode = SY_MODE_BF16;
    shape.has_bias = true;
    shape.activation = (sy_activation)(kind / 6);
    struct road road;
    struct judge judge;
    road_begin(&road, &shape, &tokens, NULL);
    sweep_biases(&road.weights[0], shape.intermediate, ranges[kind % 6][0], ranges[kind % 6][1]);
    struct sy_bad_weight bad;
    CHECK_OK(road_load_expert(kernels, &road.ranks[0].env, &road.weights[0], road.ranks[0].weights,
                              &bad));
    judge_begin(&judge, &road);
    road_walk(&road, judge_experts, &judge);
    CHECK_EQ_I64(judge.routed_rows, 1);
    judge_end(&judge);
    road_end(&road);
    fences_free(&fences);
  }
}

TEST(activations_far_out) { on_every_backend(activation_sweeps); }

/* Hidden states and weights far from 1; what they make of the intermediate stays a normal f32. */
static void extreme_sizes(const struct sy_kernels *kernels) {
  static const int exponents[][2] = {{-30, 0}, {30, -30}, {-50, 60}, {50, -60}};
  for (int c = 0; c < 4; ++c) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, 64, 160, 1, 2);
    struct road_tokens tokens = road_tokens_make(&fences, &shape, 4);
    for (int64_t i = 0; i < tokens.count * shape.hidden; ++i) {
      tokens.hidden[i] =
          oracle_bf16_nearest(ldexp(oracle_bf16_value(tokens.hidden[i]), exponents[c][0]));
    }
    for (int m = 0; m < NUM_KINDS; ++m) {
      struct road road;
      struct judge judge;
      if (!set_kind(&shape, m)) {
        continue;
      }
      road_begin(&road, &shape, &tokens, NULL);
      for (int64_t i = 0; i < shape.hidden * shape.intermediate; ++i) {
        float *up = (float *)(uintptr_t)road.weights[1].up; /* odd experts are F32 */
        up[i] = ldexpf(up[i], exponents[c][1]);
      }
      struct sy_bad_weight bad;
      CHECK_OK(road_load_expert(kernels, &road.ranks[0].env, &road.weights[1],
                                road.ranks[0].weights + road.ranks[0].expert_bytes, &bad));
      judge_begin(&judge, &road);
      road_walk(&road, judge_experts, &judge);
      judge_end(&judge);
      road_end(&road);
    }
    fences_free(&fences);
  }
}

TEST(hidden_states_and_weights_of_extreme_size) { on_every_backend(extreme_sizes); }

/* MXFP4's scales from one end to the other, where a code times its scale may lie beyond bf16, and hidden
 * states that make up for them. (Without block-scaled instructions w4a4 multiplies codes and scales in
 * bf16: there they must fit.) */
static void scales_far_out(const struct sy_kernels *kernels) {
  static const int scales[][2] = {{14, 113}, {100, 27}, {200, -73}, {252, -108}, {254, -110}};
  for (int c = 0; c < 9; ++c) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, 64, 96, 1, 1);
    struct road_tokens tokens = road_tokens_make(&fences, &shape, 3);
    shape.mode = c < 5 ? SY_MODE_W4A16 : SY_MODE_W4A4;
    shape.format = SY_FORMAT_MXFP4;
    shape.dtype_is_set = true;
    shape.dtype = SY_DTYPE_MXFP4;
    for (int64_t i = 0; i < tokens.count * shape.hidden; ++i) {
      tokens.hidden[i] =
          oracle_bf16_nearest(ldexp(oracle_bf16_value(tokens.hidden[i]), scales[c % 5][1]));
    }
    struct road road;
    struct judge judge;
    road_begin(&road, &shape, &tokens, NULL);
    const size_t num_scales = (size_t)(shape.hidden * shape.intermediate / SY_MXFP4_BLOCK);
    memset((void *)(uintptr_t)road.weights[0].gate_scales, scales[c % 5][0], num_scales);
    memset((void *)(uintptr_t)road.weights[0].up_scales, scales[c % 5][0], num_scales);
    struct sy_bad_weight bad;
    CHECK_OK(road_load_expert(kernels, &road.ranks[0].env, &road.weights[0], road.ranks[0].weights,
                              &bad));
    judge_begin(&judge, &road);
    road_walk(&road, judge_experts, &judge);
    CHECK(isfinite(road_output(&road, 0, 0)) && road_output(&road, 0, 0) != 0.0f);
    judge_end(&judge);
    road_end(&road);
    fences_free(&fences);
  }
}

TEST(mxfp4_scales_far_out) { on_every_backend(scales_far_out); }
