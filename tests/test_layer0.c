/* One layer of a trained model on real hidden states, through the public API, against the exact
 * outputs of an independent implementation that ship with the model (its README says what they
 * are). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/switchyard_checkpoint.h"
#include "tests/support/backend.h"
#include "tests/support/fences.h"
#include "tests/support/harness.h"
#include "tests/support/oracle.h"

/* Few intermediate codes flip where sums in f32 and in float64 fall on two sides of a rounding
 * boundary; the coarser the intermediate, the dearer a flip, and the rarer. */
#define NEAR_W4A4 1e-3
#define NEAR_OTHERS 2e-3

/* BF16 return rows are rounded once (one rank, one row per token): at most 2^-9 of each value, so
 * of the whole. */
#define BF16_ROUNDING 0x1p-9

enum { NUM_MODES = 3 };

static const struct {
  sy_mode mode;
  const char *exact;
  double tolerance;
  double to_bf16; /* distance of the exact outputs from those of bf16 */
} modes[NUM_MODES] = {{SY_MODE_W4A4, "out_w4a4", NEAR_W4A4, 0.0561},
                      {SY_MODE_W4A16, "out_w4a16", NEAR_OTHERS, 0.0341},
                      {SY_MODE_BF16, "out_bf16", NEAR_OTHERS, 0.0}};

/* The shipped layer and its tensors, aligned. */
struct subject {
  sy_checkpoint *model;
  sy_checkpoint *sample;
  struct fences fences;
  sy_shape shape;
  int64_t num_tokens;
  uint16_t *hidden;
  int32_t *ids;
  float *weights;
  double *exact[NUM_MODES];
  double *exact_bf16;
};

static void *copy_tensor(struct subject *s, const sy_checkpoint *checkpoint, const char *name,
                         sy_tensor_dtype dtype, int64_t rows, int64_t columns) {
  sy_tensor tensor = SY_TENSOR_INIT;
  if (!CHECK_OK(sy_checkpoint_tensor(checkpoint, name, &tensor)) ||
      !CHECK_EQ_I64(tensor.dtype, dtype) || !CHECK_EQ_I64(tensor.num_dims, 2) ||
      !CHECK_EQ_I64(tensor.shape[0], rows) || !CHECK_EQ_I64(tensor.shape[1], columns)) {
    return NULL;
  }
  void *copy = fences_alloc(&s->fences, tensor.bytes, name);
  return CHECK_OK(sy_checkpoint_read(checkpoint, name, 0, copy, tensor.bytes)) ? copy : NULL;
}

static bool open_subject(struct subject *s) {
  *s = (struct subject){.num_tokens = 64};
  sy_model_info info = SY_MODEL_INFO_INIT;
  if (!CHECK_OK(sy_checkpoint_open(SY_TINY_MOE, &s->model)) ||
      !CHECK_OK(sy_checkpoint_open(SY_TINY_MOE "/layer0.safetensors", &s->sample)) ||
      !CHECK_OK(sy_checkpoint_model(s->model, &info))) {
    return false;
  }
  s->shape = info.shape;
  const int64_t h = s->shape.hidden;
  const int64_t k = s->shape.top_k;
  const int64_t t = s->num_tokens;
  s->hidden = copy_tensor(s, s->sample, "hidden", SY_TENSOR_BF16, t, h);
  s->ids = copy_tensor(s, s->sample, "ids", SY_TENSOR_I32, t, k);
  s->weights = copy_tensor(s, s->sample, "weights", SY_TENSOR_F32, t, k);
  bool all = s->hidden != NULL && s->ids != NULL && s->weights != NULL;
  for (int m = 0; m < NUM_MODES; ++m) {
    s->exact[m] = copy_tensor(s, s->sample, modes[m].exact, SY_TENSOR_F64, t, h);
    all = all && s->exact[m] != NULL;
  }
  s->exact_bf16 = s->exact[NUM_MODES - 1];
  return all;
}

static void close_subject(struct subject *s) {
  CHECK(fences_hold(&s->fences));
  fences_free(&s->fences);
  sy_checkpoint_close(s->sample);
  sy_checkpoint_close(s->model);
}

/* The layer's outputs in f32 [T, hidden]; false when a call failed. */
static bool run_layer(struct subject *s, sy_mode mode, const sy_plan_desc *wishes, float *output) {
  sy_group *group = NULL;
  sy_layer *layer = NULL;
  sy_plan *plan = NULL;
  sy_shape shape = s->shape;
  shape.mode = mode;
  sy_plan_desc desc = *wishes;
  desc.shape = &shape;
  desc.max_tokens = s->num_tokens;
  sy_io io = SY_IO_INIT;
  io.num_tokens = s->num_tokens;
  io.hidden = s->hidden;
  io.expert_ids = s->ids;
  io.expert_weights = s->weights;
  io.output = output;
  io.output_dtype = SY_DTYPE_F32;
  bool good = CHECK_OK(backend_group(NULL, &group)) &&
              CHECK_OK(sy_layer_create(group, &shape, &layer)) &&
              CHECK_OK(sy_layer_load_checkpoint(layer, s->model, 0)) &&
              CHECK_OK(sy_plan_create(&desc, &plan)) && CHECK_OK(sy_group_reserve(group, plan, 0));
  if (good) {
    const size_t scratch_bytes = sy_plan_scratch_bytes(plan);
    void *scratch = backend_alloc(scratch_bytes);
    good = CHECK_OK(sy_forward(layer, plan, &io, scratch, scratch_bytes, NULL));
    backend_free(scratch);
  }
  sy_plan_destroy(plan);
  sy_layer_destroy(layer);
  sy_group_destroy(group);
  return good;
}

static void judge_modes(const sy_plan_desc *wishes, double rounding) {
  struct subject s;
  const bool open = open_subject(&s);
  const int64_t values = s.num_tokens * s.shape.hidden;
  for (int m = 0; open && m < NUM_MODES; ++m) {
    float *output = FENCED(&s.fences, float, values, "output");
    if (!run_layer(&s, modes[m].mode, wishes, output)) {
      break;
    }
    const double distance = oracle_distance(output, s.exact[m], values);
    const double to_bf16 = oracle_distance(output, s.exact_bf16, values);
    printf("%s: %.3g from exact, %.4f from bf16\n", modes[m].exact, distance, to_bf16);
    CHECK(distance <= modes[m].tolerance + rounding);
    /* The mode asked for is the mode that ran. */
    CHECK_NEAR(to_bf16, modes[m].to_bf16, modes[m].tolerance + rounding + 5e-5);
  }
  close_subject(&s);
}

TEST(real_layer_with_f32_return_rows) {
  sy_plan_desc wishes = SY_PLAN_DESC_INIT;
  wishes.return_dtype = SY_DTYPE_F32;
  judge_modes(&wishes, 0.0);
}

TEST(real_layer_with_f32_return_rows_per_slot) {
  sy_plan_desc wishes = SY_PLAN_DESC_INIT;
  wishes.return_dtype = SY_DTYPE_F32;
  wishes.combine = SY_COMBINE_PER_SLOT;
  judge_modes(&wishes, 0.0);
}

TEST(real_layer_with_bf16_return_rows) {
  sy_plan_desc wishes = SY_PLAN_DESC_INIT;
  wishes.return_dtype = SY_DTYPE_BF16;
  judge_modes(&wishes, BF16_ROUNDING);
}

/* Waves of 5 tokens and chunks of 3 rows give the same bits as all at once. */
TEST(real_layer_in_waves_and_chunks_is_the_same) {
  struct subject s;
  const bool open = open_subject(&s);
  const int64_t values = s.num_tokens * s.shape.hidden;
  for (int m = 0; open && m < NUM_MODES; ++m) {
    float *whole = FENCED(&s.fences, float, values, "output");
    float *parts = FENCED(&s.fences, float, values, "output in parts");
    sy_plan_desc wishes = SY_PLAN_DESC_INIT;
    if (run_layer(&s, modes[m].mode, &wishes, whole)) {
      wishes.wave_tokens = 5;
      wishes.chunk_rows = 3;
      CHECK(run_layer(&s, modes[m].mode, &wishes, parts));
      CHECK_EQ_BYTES(parts, whole, (size_t)values * sizeof *whole);
    }
  }
  close_subject(&s);
}

/* ---- The judge judged ---- */

static bool expert_weights(struct subject *s, int32_t expert, sy_expert_weights *w) {
  static const char *const names[] = {"gate_proj", "up_proj", "down_proj"};
  const void **data[] = {&w->gate, &w->up, &w->down};
  *w = (sy_expert_weights)SY_EXPERT_WEIGHTS_INIT;
  w->dtype = SY_DTYPE_BF16;
  for (int p = 0; p < 3; ++p) {
    const int64_t rows = p < 2 ? s->shape.intermediate : s->shape.hidden;
    const int64_t columns = p < 2 ? s->shape.hidden : s->shape.intermediate;
    char name[96];
    snprintf(name, sizeof name, "model.layers.0.mlp.experts.%d.%s.weight", (int)expert, names[p]);
    *data[p] = copy_tensor(s, s->model, name, SY_TENSOR_BF16, rows, columns);
    if (*data[p] == NULL) {
      return false;
    }
  }
  return true;
}

/* Both work in float64 from the same rules, so every code must be equal. The other one rounds what
 * NVFP4 codes are worth to f32, twice: up to 2^-23 of each weight, activation and intermediate. */
static double allowed_distance(sy_mode mode) {
  return mode == SY_MODE_BF16 ? 1e-14 : 3.0 * 0x1p-23;
}

TEST(the_oracle_agrees_with_an_independent_one) {
  struct subject s;
  bool good = open_subject(&s);
  const int32_t experts = s.shape.num_experts;
  sy_expert_weights *weights = FENCED(&s.fences, sy_expert_weights, experts, "weights");
  for (int32_t e = 0; good && e < experts; ++e) {
    good = expert_weights(&s, e, &weights[e]);
  }
  const int64_t h = s.shape.hidden;
  const int64_t k = s.shape.top_k;
  double *out = FENCED(&s.fences, double, h, "out");
  for (int m = 0; good && m < NUM_MODES; ++m) {
    struct oracle_layer layer;
    sy_shape shape = s.shape;
    shape.mode = modes[m].mode;
    oracle_layer_make(&shape, weights, &layer);
    double error = 0.0;
    double norm = 0.0;
    for (int64_t t = 0; t < s.num_tokens; ++t) {
      const double *exact = s.exact[m] + t * h;
      oracle_forward(&layer, s.hidden + t * h, s.ids + t * k, s.weights + t * k, out);
      for (int64_t i = 0; i < h; ++i) {
        error += (out[i] - exact[i]) * (out[i] - exact[i]);
        norm += exact[i] * exact[i];
      }
    }
    printf("%s: oracles are %.3g apart\n", modes[m].exact, sqrt(error / norm));
    CHECK(sqrt(error / norm) <= allowed_distance(shape.mode));
    oracle_layer_free(&layer);
  }
  close_subject(&s);
}
