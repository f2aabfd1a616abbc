/* numerics = fastest: how far it may be from the scalar specification, stage by stage, and that it
 * keeps every token's bits whatever else is in the batch. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/support/harness.h"
#include "tests/support/random.h"
#include "tests/support/road.h"

#define TOLERANCE 2e-6 /* of switchyard.h, relative L2 */

static const sy_mode modes[] = {SY_MODE_W4A4, SY_MODE_W4A16, SY_MODE_BF16};

/* What the experts stage of one walk wrote, all chunks in a row. */
struct written {
  size_t rows, hidden, intermediate;
  float *fc1;          /* [rows, 2 intermediate] */
  unsigned char *kept; /* [rows, kept_bytes]: the intermediate, scales and globals left out */
  size_t kept_bytes;   /* of a row */
  float *out;          /* [rows, hidden] */
};

static void *append(void *old, size_t old_bytes, const void *data, size_t bytes) {
  unsigned char *grown = realloc(old, old_bytes + bytes);
  if (grown == NULL) {
    abort();
  }
  memcpy(grown + old_bytes, data, bytes);
  return grown;
}

static void keep(const struct road *road, int32_t rank, const struct road_chunk *chunk,
                 void *user) {
  const struct sy_stage_env *env = &road->ranks[rank].env;
  const struct sy_experts_args *x = &chunk->experts;
  struct written *w = user;
  const size_t rows = (size_t)chunk->routed.num_routed;
  w->hidden = (size_t)env->hidden;
  w->intermediate = (size_t)env->intermediate;
  w->kept_bytes = sy_intermediate_row_bytes(env->mode, env->intermediate);
  const size_t fc1_bytes = 2 * w->intermediate * sizeof(float);
  const size_t out_bytes = w->hidden * sizeof(float);
  w->fc1 = append(w->fc1, w->rows * fc1_bytes, x->fc1_trace, rows * fc1_bytes);
  w->kept = append(w->kept, w->rows * w->kept_bytes, x->intermediate, rows * w->kept_bytes);
  w->out = append(w->out, w->rows * out_bytes, x->expert_out, rows * out_bytes);
  w->rows += rows;
}

static struct written walk(const struct road_shape *shape, const struct road_tokens *tokens) {
  struct written w = {0};
  struct road road;
  road_begin(&road, shape, tokens, NULL);
  road_walk(&road, keep, &w);
  road_end(&road);
  return w;
}

static void forget(struct written *w) {
  free(w->fc1);
  free(w->kept);
  free(w->out);
}

/* Relative L2; NaN when anything is. */
static double distance(const float *got, const float *right, size_t n) {
  double gap = 0.0;
  double size = 0.0;
  for (size_t i = 0; i < n; ++i) {
    const double d = (double)got[i] - (double)right[i];
    gap += d * d;
    size += (double)right[i] * (double)right[i];
  }
  return gap == 0.0 ? 0.0 : sqrt(gap / size);
}

/* FC2 is compared on rows whose intermediates came out alike: one BF16 that was rounded the other
 * way moves a row by more than any sum does. Returns how many rows those were. */
static size_t compare(const struct written *got, const struct written *right, bool gated,
                      double *worst) {
  size_t alike = 0;
  CHECK_EQ_I64((int64_t)got->rows, (int64_t)right->rows);
  const size_t n = got->intermediate;
  for (size_t r = 0; r < got->rows; ++r) {
    for (size_t p = gated ? 0 : 1; p < 2; ++p) { /* without a gate there is no trace of one */
      const size_t at = (2 * r + p) * n;
      const double fc1 = distance(got->fc1 + at, right->fc1 + at, n);
      CHECK(fc1 <= TOLERANCE);
      *worst = fmax(*worst, fc1);
    }
    if (memcmp(got->kept + r * got->kept_bytes, right->kept + r * got->kept_bytes,
               got->kept_bytes) == 0) {
      const double fc2 =
          distance(got->out + r * got->hidden, right->out + r * got->hidden, got->hidden);
      CHECK(fc2 <= TOLERANCE);
      *worst = fmax(*worst, fc2);
      ++alike;
    }
  }
  return alike;
}

static struct road_shape make_shape(const struct sy_kernels *kernels, int64_t hidden,
                                    int64_t intermediate) {
  return (struct road_shape){.kernels = kernels,
                             .hidden = hidden,
                             .intermediate = intermediate,
                             .num_experts = 2,
                             .top_k = 2,
                             .world = 1,
                             .return_dtype = SY_DTYPE_F32,
                             .output_dtype = SY_DTYPE_F32};
}

TEST(fastest_stays_within_the_tolerance_at_every_stage) {
  static const int64_t sizes[][2] = {{32, 32}, {96, 288}, {1056, 160}, {64, 1056}};
  size_t num_levels = 0;
  const struct sy_kernels *levels = sy_kernels_cpu_levels(&num_levels);
  for (int c = 0; c < 16; ++c) {
    struct random_stream random = random_stream_make(sy_test_seed(), "numerics", c);
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(&levels[num_levels - 1], sizes[c / 4][0], sizes[c / 4][1]);
    shape.mode = modes[1 + c % 2];
    shape.format = c % 3 == 2 ? SY_FORMAT_MXFP4 : SY_FORMAT_NVFP4;
    shape.activation = (sy_activation)(c / 2 % 4);
    shape.has_bias = c % 5 == 0;
    const struct road_tokens tokens =
        road_tokens_make(&fences, &shape, c < 8 ? random_between(&random, 1, 40) : 3);
    struct written right = walk(&shape, &tokens);
    shape.fastest = true;
    for (size_t i = 0; i < num_levels; ++i) {
      if (levels[i].is_available()) {
        double worst = 0.0;
        shape.kernels = &levels[i];
        shape.num_threads = 1 + (int32_t)i % 2;
        struct written got = walk(&shape, &tokens);
        const size_t alike = compare(&got, &right, shape.activation != SY_ACTIVATION_RELU2, &worst);
        printf("%s hidden %d: at most %.1e; FC2 on %d of %d rows\n", levels[i].name,
               (int)shape.hidden, worst, (int)alike, (int)got.rows);
        CHECK(alike > 0);
        forget(&got);
      }
    }
    forget(&right);
    fences_free(&fences);
  }
}

TEST(fastest_keeps_the_bits_of_w4a4) {
  size_t num_levels = 0;
  const struct sy_kernels *levels = sy_kernels_cpu_levels(&num_levels);
  struct fences fences = {NULL};
  struct road_shape shape = make_shape(&levels[num_levels - 1], 192, 160);
  const struct road_tokens tokens = road_tokens_make(&fences, &shape, 11);
  struct written right = walk(&shape, &tokens);
  shape.fastest = true;
  shape.kernels = sy_kernels_cpu();
  struct written got = walk(&shape, &tokens);
  CHECK_EQ_I64((int64_t)got.rows, 22);
  CHECK_EQ_BYTES(got.out, right.out, got.rows * got.hidden * sizeof *got.out);
  forget(&got);
  forget(&right);
  fences_free(&fences);
}

/* Any number of rows, threads and chunks. */
TEST(fastest_gives_a_token_the_same_bits_in_any_batch) {
  enum { TOKENS = 37, HIDDEN = 160 };
  for (int m = 0; m < 3; ++m) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(sy_kernels_cpu(), HIDDEN, 144);
    shape.mode = modes[m];
    shape.fastest = true;
    const struct road_tokens all = road_tokens_make(&fences, &shape, TOKENS);
    float expected[TOKENS][HIDDEN];
    for (int count = TOKENS; count >= 1; count -= count > 12 ? 7 : 1) {
      struct road road;
      struct road_tokens some = all;
      some.count = count;
      shape.num_threads = 1 + count % 3;
      shape.chunk_rows = count % 4 == 0 ? 5 : 0;
      road_begin(&road, &shape, &some, NULL);
      road_walk(&road, NULL, NULL);
      for (int64_t i = 0; i < (int64_t)count * HIDDEN; ++i) {
        const float value = road_output(&road, i / HIDDEN, i % HIDDEN);
        if (count == TOKENS) {
          expected[i / HIDDEN][i % HIDDEN] = value;
        } else {
          CHECK_EQ_BYTES(&value, &expected[i / HIDDEN][i % HIDDEN], sizeof value);
        }
      }
      road_end(&road);
    }
    fences_free(&fences);
  }
}
