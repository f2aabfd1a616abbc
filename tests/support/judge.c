#include "tests/support/judge.h"

#include <math.h>
#include <string.h>

#include "tests/support/harness.h"

void judge_begin(struct judge *judge, const struct road *road) {
  const sy_shape shape = road_layer_shape(&road->shape);
  judge->routed_rows = 0;
  oracle_layer_make(&shape, road->weights, &judge->layer);
}

void judge_end(struct judge *judge) { oracle_layer_free(&judge->layer); }

/* What a received row is worth. */
static void read_row(const struct sy_stage_env *env, const unsigned char *row, double *values) {
  const unsigned char *scales = row + env->wire_row.scales;
  for (int64_t i = 0; i < env->hidden && env->mode != SY_MODE_W4A4; ++i) {
    uint16_t bf16;
    memcpy(&bf16, row + i * 2, sizeof bf16);
    values[i] = oracle_bf16_value(bf16);
  }
  for (int64_t i = 0; i < env->hidden && env->mode == SY_MODE_W4A4; ++i) {
    const uint8_t code = i % 2 == 0 ? row[i / 2] & 0xFu : row[i / 2] >> 4;
    if (env->format == SY_FORMAT_MXFP4) {
      oracle_mx_dequantise(&code, scales + i / SY_MXFP4_BLOCK, 1, &values[i]);
      continue;
    }
    float global;
    memcpy(&global, row + env->wire_row.global, sizeof global);
    oracle_dequantise(&code, scales + i / SY_NVFP4_BLOCK, global, 1, &values[i]);
  }
}

/* All of one routed row, in float64: hidden, then intermediate sizes. */
struct row_values {
  double *row, *out;
  double *gate, *up, *activated, *stored;
};

static bool is_nan_row(const float *values, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    if (!isnan(values[i])) {
      return false;
    }
  }
  return true;
}

static bool judge_fc1(const struct oracle_layer *layer, int64_t r, const float *trace,
                      const struct row_values *v) {
  const int64_t n = layer->shape.intermediate;
  const bool gated = layer->shape.activation != SY_ACTIVATION_RELU2;
  return (!gated || oracle_is_near("FC1 gate", r, trace, v->gate, n, ORACLE_SUM_TOLERANCE)) &&
         oracle_is_near("FC1 up", r, trace + n, v->up, n, ORACLE_SUM_TOLERANCE);
}

static bool judge_intermediate(const struct sy_stage_env *env, const struct sy_experts_args *args,
                               int64_t r, const struct row_values *v) {
  const int64_t n = env->intermediate;
  const unsigned char *stored =
      args->intermediate + (size_t)r * sy_intermediate_row_bytes(env->mode, n);
  if (env->mode != SY_MODE_W4A4) {
    return oracle_judge_bf16(r, (const uint16_t *)(const void *)stored, v->activated, n, v->stored);
  }
  const unsigned char *scales = args->intermediate_scales + r * n / sy_scale_block(env->format);
  if (env->format == SY_FORMAT_MXFP4) {
    return oracle_judge_mxfp4(r, stored, scales, v->activated, n, v->stored);
  }
  const int64_t slices = (n + SY_INTERMEDIATE_SLICE - 1) / SY_INTERMEDIATE_SLICE;
  return oracle_judge_nvfp4(r, stored, scales, args->intermediate_global + r * slices, v->activated,
                            n, v->stored);
}

static bool judge_row(const struct sy_stage_env *env, const struct sy_experts_args *args,
                      const struct oracle_layer *layer, int64_t r, int32_t global_expert,
                      const struct row_values *v) {
  const int64_t h = env->hidden;
  const int64_t n = env->intermediate;
  const float *trace = args->fc1_trace + r * 2 * n;
  const float *out = args->expert_out + r * h;
  read_row(env, args->routed->received_row[args->routed->routed_source[r]], v->row);
  if (isnan(v->row[0])) {
    return is_nan_row(out, h);
  }
  oracle_fc1(layer, global_expert, v->row, v->gate, v->up);
  if (!judge_fc1(layer, r, trace, v)) {
    return false;
  }
  for (int64_t i = 0; i < n; ++i) {
    v->activated[i] = oracle_activate(layer, (double)trace[i], (double)trace[n + i]);
  }
  if (!judge_intermediate(env, args, r, v)) {
    return false;
  }
  oracle_fc2(layer, global_expert, v->stored, v->out);
  return oracle_is_near("FC2", r, out, v->out, h, ORACLE_SUM_TOLERANCE);
}

void judge_experts(const struct road *road, int32_t rank, const struct road_chunk *chunk,
                   void *user) {
  struct judge *judge = user;
  const struct sy_stage_env *env = &road->ranks[rank].env;
  const struct sy_routed *routed = &chunk->routed;
  const int64_t h = env->hidden;
  const int64_t n = env->intermediate;
  struct fences fences = {NULL};
  double *row = FENCED(&fences, double, 2 * h + 4 * n, "routed row");
  const struct row_values v = {.row = row,
                               .out = row + h,
                               .gate = row + 2 * h,
                               .up = row + 2 * h + n,
                               .activated = row + 2 * h + 2 * n,
                               .stored = row + 2 * h + 3 * n};
  for (int32_t e = 0; e < env->local_experts; ++e) {
    const int32_t global_expert = road->ranks[rank].global_expert[e];
    for (int64_t r = routed->expert_offset[e]; r < routed->expert_offset[e + 1]; ++r) {
      CHECK(judge_row(env, &chunk->experts, &judge->layer, r, global_expert, &v));
      ++judge->routed_rows;
    }
  }
  CHECK(fences_hold(&fences));
  fences_free(&fences);
}

double judge_outputs(const struct judge *judge, const struct road *road) {
  const int64_t h = road->shape.hidden;
  const int32_t top_k = road->shape.top_k;
  struct fences fences = {NULL};
  double *exact = FENCED(&fences, double, h, "exact output");
  double error = 0.0;
  double norm = 0.0;
  for (int64_t t = 0; t < road->tokens.count; ++t) {
    oracle_forward(&judge->layer, road->tokens.hidden + t * h, road->tokens.ids + t * top_k,
                   road->tokens.weights + t * top_k, exact);
    for (int64_t i = 0; i < h && !isnan(exact[0]); ++i) {
      const double difference = (double)road_output(road, t, i) - exact[i];
      error += difference * difference;
      norm += exact[i] * exact[i];
    }
  }
  fences_free(&fences);
  return norm == 0.0 ? 0.0 : sqrt(error / norm);
}
