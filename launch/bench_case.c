#include <math.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "launch/bench.h"

/* A layer in a group of its own. */
struct bench_layer {
  sy_group *group;
  sy_layer *layer;
  sy_plan *plan;
};

struct bench_case {
  const struct bench_request *request;
  int64_t max_tokens;
  int num_threads;
  size_t row_bytes;
  struct bench_layer tested;
  struct bench_layer judge; /* of the first and the last top_k experts */
  int32_t judge_experts;
  uint16_t *source; /* one expert: gate, up, down, BF16 */
  float *biases;
  uint16_t *hidden; /* [max_tokens, hidden] */
  int32_t *ids;     /* [max_tokens, top_k] */
  float *weights;   /* [max_tokens, top_k] */
  uint16_t *output; /* [max_tokens, hidden] */
  int32_t *deck;    /* [num_experts]: shuffled as experts are drawn */
  uint64_t chance;
};

/* SplitMix64. */
static uint64_t draw(uint64_t *state) {
  uint64_t z = *state += 0x9E3779B97F4A7C15u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* BF16 values of either sign, with magnitudes in [2^exponent, 2^(exponent + 4)). */
static void fill_bf16(uint16_t *values, int64_t count, int exponent, uint64_t seed) {
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < (count + 1023) / 1024; ++block) {
    uint64_t state = seed ^ (uint64_t)block * 0x2545F4914F6CDD1Du;
    const int64_t end = count < (block + 1) * 1024 ? count : (block + 1) * 1024;
    for (int64_t i = block * 1024; i < end; ++i) {
      const uint64_t bits = draw(&state);
      values[i] = (uint16_t)((bits & 0x8000u) | (uint64_t)(127 + exponent + (int)(bits & 3u)) << 7 |
                             (bits >> 20 & 0x7Fu));
    }
  }
}

static int64_t matrix_values(const sy_shape *shape) { return shape->hidden * shape->intermediate; }

sy_expert_weights bench_case_weights(struct bench_case *c, int32_t expert) {
  const sy_shape *shape = &c->request->shape;
  const int64_t n = matrix_values(shape);
  const bool gated = shape->activation != SY_ACTIVATION_RELU2;
  sy_expert_weights weights = SY_EXPERT_WEIGHTS_INIT;
  fill_bf16(c->source, 3 * n, -8, (uint64_t)expert * 0x9E3779B97F4A7C15u + 1);
  weights.dtype = SY_DTYPE_BF16;
  weights.gate = gated ? c->source : NULL;
  weights.up = c->source + n;
  weights.down = c->source + 2 * n;
  if (shape->has_bias != 0) {
    weights.gate_bias = gated ? c->biases : NULL;
    weights.up_bias = c->biases + shape->intermediate;
    weights.down_bias = c->biases + 2 * shape->intermediate;
  }
  return weights;
}

static int fail(struct session *session, sy_status status) {
  return session_fail_status(session, status, "");
}

static int make_layer(struct session *session, const struct bench_request *request,
                      const sy_shape *shape, int64_t max_tokens, struct bench_layer *layer) {
  sy_group_desc group_desc = SY_GROUP_DESC_INIT;
  group_desc.num_threads = (int32_t)request->num_threads;
  sy_plan_desc plan_desc = SY_PLAN_DESC_INIT;
  plan_desc.shape = shape;
  plan_desc.max_tokens = max_tokens;
  plan_desc.numerics = request->numerics;
  sy_status status = sy_group_create_local(&group_desc, &layer->group);
  if (status == SY_OK) {
    status = sy_layer_create(layer->group, shape, &layer->layer);
  }
  if (status == SY_OK) {
    status = sy_plan_create(&plan_desc, &layer->plan);
  }
  if (status == SY_OK) {
    status = sy_group_reserve(layer->group, layer->plan, 1);
  }
  return status == SY_OK ? CLI_OK : fail(session, status);
}

static void release_layer(struct bench_layer *layer) {
  sy_plan_destroy(layer->plan);
  sy_layer_destroy(layer->layer);
  sy_group_destroy(layer->group);
}

/* The tested expert behind one of the judge's. */
static int32_t judged_expert(const struct bench_case *c, int32_t judge_expert) {
  const int32_t top_k = c->request->shape.top_k;
  return judge_expert < top_k ? judge_expert
                              : c->request->shape.num_experts - c->judge_experts + judge_expert;
}

static int load(struct session *session, struct bench_case *c) {
  for (int32_t e = 0; e < c->request->shape.num_experts; ++e) {
    const sy_expert_weights weights = bench_case_weights(c, e);
    sy_status status = sy_layer_load_expert(c->tested.layer, e, &weights);
    for (int32_t j = 0; status == SY_OK && j < c->judge_experts; ++j) {
      if (judged_expert(c, j) == e) {
        status = sy_layer_load_expert(c->judge.layer, j, &weights);
      }
    }
    if (status != SY_OK) {
      return fail(session, status);
    }
  }
  return CLI_OK;
}

/* The judge's group takes the specification's level: a group looks at the environment once, when it
 * is made. */
static int make_judge(struct session *session, struct bench_case *c) {
  static const char variable[] = "SWITCHYARD_CPU_LEVEL";
  const char *before = getenv(variable);
  char *kept = before == NULL ? NULL : strdup(before);
  struct bench_request request = *c->request;
  request.shape.num_experts = c->judge_experts;
  request.numerics = SY_NUMERICS_INVARIANT;
  setenv(variable, "generic", 1);
  const int code = make_layer(session, &request, &request.shape, 2, &c->judge);
  if (kept != NULL) {
    setenv(variable, kept, 1);
  } else {
    unsetenv(variable);
  }
  free(kept);
  return code;
}

static bool allocate(struct bench_case *c) {
  const sy_shape *shape = &c->request->shape;
  const size_t tokens = (size_t)c->max_tokens;
  const size_t hidden = (size_t)shape->hidden;
  const size_t slots = tokens * (size_t)shape->top_k;
  const size_t num_biases = 2 * (size_t)shape->intermediate + hidden;
  c->source = malloc(3 * (size_t)matrix_values(shape) * sizeof *c->source);
  c->biases = malloc(num_biases * sizeof *c->biases);
  c->hidden = malloc(tokens * hidden * sizeof *c->hidden);
  c->output = malloc(tokens * hidden * sizeof *c->output);
  c->ids = malloc(slots * sizeof *c->ids);
  c->weights = malloc(slots * sizeof *c->weights);
  c->deck = malloc((size_t)shape->num_experts * sizeof *c->deck);
  if (c->source == NULL || c->biases == NULL || c->hidden == NULL || c->output == NULL ||
      c->ids == NULL || c->weights == NULL || c->deck == NULL) {
    return false;
  }
  for (size_t i = 0; i < num_biases; ++i) {
    c->biases[i] = (float)(i % 7) * 0.125f - 0.375f;
  }
  for (size_t i = 0; i < slots; ++i) {
    c->weights[i] = 1.0f / (float)(1 + i % (size_t)shape->top_k);
  }
  for (int32_t e = 0; e < shape->num_experts; ++e) {
    c->deck[e] = e;
  }
  fill_bf16(c->hidden, (int64_t)(tokens * hidden), -2, 7);
  return true;
}

int bench_case_open(struct session *session, const struct bench_request *request,
                    struct bench_case **case_out) {
  struct bench_case *c = calloc(1, sizeof *c);
  if (c == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  *case_out = c;
  c->request = request;
  c->max_tokens = 2;
  for (size_t i = 0; i < request->tokens.count; ++i) {
    c->max_tokens =
        request->tokens.values[i] > c->max_tokens ? request->tokens.values[i] : c->max_tokens;
  }
  c->num_threads = request->num_threads > 0 ? (int)request->num_threads : omp_get_max_threads();
  c->judge_experts = request->shape.num_experts < 2 * request->shape.top_k
                         ? request->shape.num_experts
                         : 2 * request->shape.top_k;
  if (request->shape.top_k > request->shape.num_experts) {
    return session_fail(session, CLI_USAGE, "--top-k %d exceeds --experts %d",
                        (int)request->shape.top_k, (int)request->shape.num_experts);
  }
  if (!allocate(c)) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  int code = make_layer(session, request, &request->shape, c->max_tokens, &c->tested);
  if (code == CLI_OK) {
    code = make_judge(session, c);
  }
  if (code == CLI_OK) {
    sy_plan_info info = SY_PLAN_INFO_INIT;
    sy_plan_query(c->tested.plan, &info); /* both arguments are right: it cannot fail */
    c->row_bytes = info.row_bytes;
    code = load(session, c);
  }
  return code;
}

void bench_case_close(struct bench_case *c) {
  if (c != NULL) {
    release_layer(&c->tested);
    release_layer(&c->judge);
    free(c->source);
    free(c->biases);
    free(c->hidden);
    free(c->output);
    free(c->ids);
    free(c->weights);
    free(c->deck);
    free(c);
  }
}

int bench_case_threads(const struct bench_case *c) { return c->num_threads; }

size_t bench_case_source_bytes(const struct bench_case *c) {
  const sy_shape *shape = &c->request->shape;
  const int matrices = shape->activation == SY_ACTIVATION_RELU2 ? 2 : 3;
  return (size_t)matrices * (size_t)matrix_values(shape) * sizeof(uint16_t);
}

size_t bench_case_expert_bytes(const struct bench_case *c) {
  return sy_layer_weight_bytes(c->tested.layer) / (size_t)c->request->shape.num_experts;
}

size_t bench_case_row_bytes(const struct bench_case *c) { return c->row_bytes; }

int bench_case_load(struct session *session, struct bench_case *c, int32_t expert,
                    const sy_expert_weights *weights) {
  const sy_status status = sy_layer_load_expert(c->tested.layer, expert, weights);
  return status == SY_OK ? CLI_OK : fail(session, status);
}

/* top_k different experts per token, all sets alike likely. */
static void draw_experts(struct bench_case *c, int64_t tokens) {
  const int32_t experts = c->request->shape.num_experts;
  const int32_t top_k = c->request->shape.top_k;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int32_t j = 0; j < top_k; ++j) {
      const int32_t other = j + (int32_t)(draw(&c->chance) % (uint64_t)(experts - j));
      const int32_t drawn = c->deck[other];
      c->deck[other] = c->deck[j];
      c->deck[j] = drawn;
      c->ids[t * top_k + j] = drawn;
    }
  }
}

static sy_status forward(const struct bench_layer *layer, int64_t tokens, const uint16_t *hidden,
                         int64_t hidden_stride, const int32_t *ids, const float *weights,
                         uint16_t *output) {
  sy_io io = SY_IO_INIT;
  io.num_tokens = tokens;
  io.hidden = hidden;
  io.hidden_stride = hidden_stride;
  io.expert_ids = ids;
  io.expert_weights = weights;
  io.output = output;
  return sy_forward(layer->layer, layer->plan, &io, NULL, 0, NULL);
}

int bench_case_call(struct session *session, struct bench_case *c, int64_t tokens,
                    struct bench_call *call_out) {
  sy_stats stats = SY_STATS_INIT;
  draw_experts(c, tokens);
  sy_group_stats(c->tested.group, 1, &stats); /* both arguments are right: it cannot fail */
  const double begin = bench_now_us();
  const sy_status status = forward(&c->tested, tokens, c->hidden, 0, c->ids, c->weights, c->output);
  const double end = bench_now_us();
  if (status != SY_OK) {
    return fail(session, status);
  }
  sy_group_stats(c->tested.group, 1, &stats);
  *call_out = (struct bench_call){.forward_us = end - begin,
                                  .experts_us = (double)stats.experts_ns * 1e-3,
                                  .routed_rows = (double)stats.routed_rows,
                                  .active_experts = (double)stats.active_experts};
  return CLI_OK;
}

static double value_of(uint16_t bf16) {
  const uint32_t bits = (uint32_t)bf16 << 16;
  float value;
  memcpy(&value, &bits, sizeof value);
  return (double)value;
}

static int64_t count_wrong(sy_numerics numerics, const uint16_t *got, const uint16_t *right,
                           int64_t count) {
  int64_t different = 0;
  double distance = 0.0;
  double size = 0.0;
  for (int64_t i = 0; i < count; ++i) {
    const double gap = value_of(got[i]) - value_of(right[i]);
    different += got[i] != right[i] ? 1 : 0;
    distance += gap * gap;
    size += value_of(right[i]) * value_of(right[i]);
  }
  const bool is_near = sqrt(distance) <= sqrt(size) / 256.0; /* false for NaN */
  return numerics == SY_NUMERICS_INVARIANT ? different : is_near ? 0 : count;
}

int bench_case_count_wrong(struct session *session, struct bench_case *c, int64_t tokens,
                           int64_t *wrong_out) {
  const sy_shape *shape = &c->request->shape;
  const int32_t top_k = shape->top_k;
  const int64_t hidden = shape->hidden;
  const int64_t judged = tokens > 1 ? 2 : 1;
  const int64_t last = tokens - 1;
  int32_t ids[2 * 1024];
  uint16_t *right = malloc((size_t)(2 * hidden) * sizeof *right);
  if (right == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  draw_experts(c, tokens);
  for (int32_t j = 0; j < top_k; ++j) {
    ids[j] = j;
    ids[top_k + j] = c->judge_experts - top_k + j;
    c->ids[last * top_k + j] = judged_expert(c, ids[top_k + j]);
  }
  for (int32_t j = 0; j < top_k; ++j) { /* one token is the first, whatever it is beside */
    c->ids[j] = judged_expert(c, ids[j]);
  }
  sy_status status = forward(&c->tested, tokens, c->hidden, 0, c->ids, c->weights, c->output);
  if (status == SY_OK) {
    status = forward(&c->judge, judged, c->hidden, last * hidden * (int64_t)sizeof *c->hidden, ids,
                     c->weights, right);
  }
  *wrong_out = 0;
  for (int64_t t = 0; status == SY_OK && t < judged; ++t) {
    *wrong_out += count_wrong(c->request->numerics, c->output + t * last * hidden,
                              right + t * hidden, hidden);
  }
  free(right);
  return status == SY_OK ? CLI_OK : fail(session, status);
}
