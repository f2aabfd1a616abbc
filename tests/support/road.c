#include "tests/support/road.h"

#include <math.h>
#include <string.h>

#include "kernels/source.h"
#include "tests/support/harness.h"
#include "tests/support/oracle.h"
#include "tests/support/random.h"

enum { GAP_BYTES = 16 }; /* between the rows of a tensor: strides are not row sizes */

static int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }

/* ---- Made-up data ---- */

/* Bell-shaped values whose blocks of 16 differ in size by up to 2^spread. */
static double draw(struct random_stream *r, int64_t i, int spread, double *block_size) {
  if (i % SY_NVFP4_BLOCK == 0) {
    *block_size = ldexp(1.0, (int)random_between(r, -spread, 0));
  }
  return random_normal(r) * *block_size;
}

static void draw_ids(struct random_stream *r, const struct road_shape *shape, int32_t *ids) {
  for (int32_t k = 0; k < shape->top_k; ++k) {
    bool is_new = k >= shape->num_experts;
    ids[k] = -1;
    while (!is_new) {
      ids[k] = (int32_t)random_between(r, 0, shape->num_experts - 1);
      is_new = true;
      for (int32_t j = 0; j < k; ++j) {
        is_new = is_new && ids[j] != ids[k];
      }
    }
  }
}

struct road_tokens road_tokens_make(struct fences *fences, const struct road_shape *shape,
                                    int64_t count) {
  const int64_t h = shape->hidden;
  const int32_t top_k = shape->top_k;
  struct road_tokens tokens = {
      .count = count,
      .hidden = FENCED(fences, uint16_t, count * h, "tokens.hidden"),
      .ids = FENCED(fences, int32_t, count * top_k, "tokens.ids"),
      .weights = FENCED(fences, float, count *top_k, "tokens.weights"),
  };
  for (int64_t t = 0; t < count; ++t) {
    struct random_stream r = random_stream_make(sy_test_seed(), "token", t);
    double block_size = 1.0;
    for (int64_t i = 0; i < h; ++i) {
      tokens.hidden[t * h + i] = oracle_bf16_nearest(draw(&r, i, 6, &block_size));
    }
    draw_ids(&r, shape, tokens.ids + t * top_k);
    for (int32_t k = 0; k < top_k; ++k) {
      tokens.weights[t * top_k + k] = (float)((0.2 + 1.6 * random_unit(&r)) / top_k);
    }
  }
  return tokens;
}

static uint8_t *draw_bytes(struct fences *fences, struct random_stream *r, int64_t count,
                           int64_t low, int64_t high, const char *name) {
  uint8_t *bytes = FENCED(fences, uint8_t, count, name);
  for (int64_t i = 0; i < count; ++i) {
    bytes[i] = (uint8_t)random_between(r, low, high);
  }
  return bytes;
}

/* Any codes, and scales that keep values near those of the other dtypes. */
static const void *draw_codes(struct fences *fences, struct random_stream *r, sy_dtype dtype,
                              int64_t rows, int64_t columns, const void **scales_out,
                              float *global_out) {
  const int64_t count = rows * columns;
  if (dtype == SY_DTYPE_F8_E4M3) {
    const int64_t blocks = (rows + 127) / 128 * ((columns + 127) / 128);
    float *scales = FENCED(fences, float, blocks, "block scales");
    for (int64_t i = 0; i < blocks; ++i) {
      scales[i] = (float)(0.001 + 0.01 * random_unit(r));
    }
    uint8_t *codes = draw_bytes(fences, r, count, 0, 0x7E, "codes");
    for (int64_t i = 0; i < count; i += 3) {
      codes[i] |= 0x80u;
    }
    *scales_out = scales;
    return codes;
  }
  const bool mx = dtype == SY_DTYPE_MXFP4;
  *global_out = (float)(0.0005 + 0.0005 * random_unit(r));
  *scales_out = mx ? draw_bytes(fences, r, count / 32, 119, 125, "UE8M0 scales")
                   : draw_bytes(fences, r, count / 16, 0, 0x7E, "UE4M3 scales");
  return draw_bytes(fences, r, count / 2, 0, 255, "pairs of codes");
}

static const void *draw_matrix(struct fences *fences, struct random_stream *r, sy_dtype dtype,
                               int64_t rows, int64_t columns) {
  const double size = 2.0 / sqrt((double)columns);
  const size_t value_bytes = dtype == SY_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
  void *data = fences_alloc(fences, (size_t)(rows * columns) * value_bytes, "weights");
  double block_size = 1.0;
  for (int64_t i = 0; i < rows * columns; ++i) {
    const double x = size * draw(r, i, 3, &block_size);
    if (dtype == SY_DTYPE_F32) {
      ((float *)data)[i] = (float)x;
    } else if (dtype == SY_DTYPE_F16) { /* exponents from those of subnormals to that of 1 */
      ((uint16_t *)data)[i] = (uint16_t)(random_between(r, 0, 0x3BFF) + 0x8000 * (i % 2));
    } else {
      ((uint16_t *)data)[i] = oracle_bf16_nearest(x);
    }
  }
  return data;
}

static const float *draw_bias(struct fences *fences, struct random_stream *r, int64_t count) {
  float *bias = FENCED(fences, float, count, "bias");
  for (int64_t i = 0; i < count; ++i) {
    bias[i] = (float)random_normal(r);
  }
  return bias;
}

sy_expert_weights road_weights_make(struct fences *fences, const struct road_shape *shape,
                                    int32_t global_expert) {
  struct random_stream r = random_stream_make(sy_test_seed(), "expert", global_expert);
  const bool gated = shape->activation != SY_ACTIVATION_RELU2;
  const int64_t h = shape->hidden;
  const int64_t n = shape->intermediate;
  sy_expert_weights w = SY_EXPERT_WEIGHTS_INIT;
  w.dtype = shape->dtype_is_set      ? shape->dtype
            : global_expert % 2 == 0 ? SY_DTYPE_BF16
                                     : SY_DTYPE_F32;
  if (w.dtype == SY_DTYPE_F8_E4M3 || sy_dtype_is_fp4(w.dtype)) {
    w.gate = gated ? draw_codes(fences, &r, w.dtype, n, h, &w.gate_scales, &w.gate_global) : NULL;
    w.up = draw_codes(fences, &r, w.dtype, n, h, &w.up_scales, &w.up_global);
    w.down = draw_codes(fences, &r, w.dtype, h, n, &w.down_scales, &w.down_global);
  } else {
    w.gate = gated ? draw_matrix(fences, &r, w.dtype, n, h) : NULL;
    w.up = draw_matrix(fences, &r, w.dtype, n, h);
    w.down = draw_matrix(fences, &r, w.dtype, h, n);
  }
  if (shape->has_bias) {
    w.gate_bias = gated ? draw_bias(fences, &r, n) : NULL;
    w.up_bias = draw_bias(fences, &r, n);
    w.down_bias = draw_bias(fences, &r, h);
  }
  return w;
}

sy_shape road_layer_shape(const struct road_shape *shape) {
  sy_shape layer = SY_SHAPE_INIT;
  layer.hidden = shape->hidden;
  layer.intermediate = shape->intermediate;
  layer.num_experts = shape->num_experts;
  layer.top_k = shape->top_k;
  layer.mode = shape->mode;
  layer.format = shape->format;
  layer.activation = shape->activation;
  layer.has_bias = shape->has_bias;
  return layer;
}

/* ---- Setting up ---- */

/* Contiguous: the first num_experts % world ranks own one more. Local experts ascend
 * with global. */
static void place_experts(struct road *road) {
  const int32_t world = road->shape.world;
  const int32_t share = road->shape.num_experts / world;
  const int32_t larger = road->shape.num_experts % world;
  for (int32_t e = 0; e < road->shape.num_experts; ++e) {
    const int32_t in_larger = larger * (share + 1);
    const int32_t contiguous =
        e < in_larger ? e / (share + 1) : larger + (e - in_larger) / (share > 0 ? share : 1);
    const int32_t rank = road->shape.expert_rank != NULL ? road->shape.expert_rank[e] : contiguous;
    struct road_rank *owner = &road->ranks[rank];
    road->expert_rank[e] = rank;
    road->expert_local[e] = owner->env.local_experts++;
    owner->global_expert[road->expert_local[e]] = e;
    road->max_local_experts = owner->env.local_experts > road->max_local_experts
                                  ? owner->env.local_experts
                                  : road->max_local_experts;
  }
}

static void fill_env(const struct road *road, int32_t rank, struct sy_stage_env *env) {
  const struct road_shape *shape = &road->shape;
  const sy_shape defaults = SY_SHAPE_INIT;
  const int32_t slots = (int32_t)smaller(shape->top_k, road->max_local_experts);
  *env = (struct sy_stage_env){
      .hidden = shape->hidden,
      .intermediate = shape->intermediate,
      .num_experts = shape->num_experts,
      .top_k = shape->top_k,
      .world = shape->world,
      .rank = rank,
      .local_experts = env->local_experts,
      .mode = shape->mode,
      .format = shape->format,
      .activation = shape->activation,
      .swiglu_alpha = defaults.swiglu_alpha,
      .swiglu_limit = defaults.swiglu_limit,
      .has_bias = shape->has_bias,
      .fastest = shape->fastest,
      .per_slot = shape->per_slot,
      .gather = shape->gather,
      .padded_slots = shape->padded_slots,
      .slots_per_row = shape->gather ? shape->top_k : slots,
      .return_slots = slots,
      .return_dtype = shape->return_dtype,
      .return_row_bytes = sy_wire_return_row_bytes(shape->return_dtype, shape->hidden),
      .expert_rank = road->expert_rank,
      .expert_local = road->expert_local,
      .num_threads = shape->num_threads > 0 ? shape->num_threads : 1,
  };
  env->wire_row = sy_wire_row_make(shape->mode, shape->format, shape->hidden, env->slots_per_row);
}

sy_status road_load_expert(const struct sy_kernels *kernels, const struct sy_stage_env *env,
                           const sy_expert_weights *weights, unsigned char *expert,
                           struct sy_bad_weight *bad) {
  struct sy_memory_source source;
  sy_memory_source_make(weights, env->hidden, env->intermediate, &source);
  return kernels->load_expert(env, &source.base, expert, bad);
}

static void load_experts(struct road *road, struct road_rank *rank) {
  const struct sy_kernels *kernels = road->shape.kernels;
  const int32_t experts = rank->env.local_experts;
  rank->load_counts = FENCED(&road->fences, uint64_t, experts, "load_counts");
  memset(rank->load_counts, 0, (size_t)experts * sizeof *rank->load_counts);
  if (road->shape.random_experts) {
    return;
  }
  rank->expert_bytes = kernels->expert_bytes(&rank->env);
  CHECK_EQ_U64(rank->expert_bytes % 64, 0);
  rank->weights =
      fences_alloc(&road->fences, (size_t)experts * rank->expert_bytes, "prepacked weights");
  for (int32_t e = 0; e < experts; ++e) {
    struct sy_bad_weight bad;
    CHECK_OK(road_load_expert(kernels, &rank->env, &road->weights[rank->global_expert[e]],
                              rank->weights + (size_t)e * rank->expert_bytes, &bad));
  }
}

/* Rows of `row_bytes` with a gap behind each. */
static void *spread_rows(struct fences *fences, const void *rows, int64_t count, size_t row_bytes,
                         int64_t *stride_out, const char *name) {
  const size_t stride = row_bytes + GAP_BYTES;
  unsigned char *spread = fences_alloc(fences, (size_t)count * stride, name);
  for (size_t t = 0; t < (size_t)count; ++t) {
    memcpy(spread + t * stride, (const unsigned char *)rows + t * row_bytes, row_bytes);
  }
  *stride_out = (int64_t)stride;
  return spread;
}

static void make_route(struct road *road, struct road_rank *rank, int64_t count) {
  struct fences *fences = &road->fences;
  const int32_t world = road->shape.world;
  const int32_t top_k = road->shape.top_k;
  const int64_t refs = count * smaller(top_k, world);
  const int64_t rows = road->shape.gather ? count : refs;
  const int64_t slots = count * top_k;
  struct sy_route_args *route = &rank->route;
  route->num_tokens = count;
  route->expert_ids =
      spread_rows(fences, road->tokens.ids + rank->first_token * top_k, count,
                  (size_t)top_k * sizeof(int32_t), &route->expert_ids_stride, "expert_ids");
  route->expert_weights =
      spread_rows(fences, road->tokens.weights + rank->first_token * top_k, count,
                  (size_t)top_k * sizeof(float), &route->expert_weights_stride, "expert_weights");
  route->send_offset = FENCED(fences, int32_t, world + 1, "send_offset");
  route->token_offset = FENCED(fences, int32_t, count + 1, "token_offset");
  route->token_row = FENCED(fences, struct sy_row_ref, refs, "token_row");
  route->send_slot_offset = FENCED(fences, int32_t, rows + 1, "send_slot_offset");
  route->send_slots = FENCED(fences, struct sy_wire_slot, slots, "send_slots");
  if (road->shape.per_slot) {
    route->slot_return = FENCED(fences, struct sy_row_ref, slots, "slot_return");
  }
  route->return_rows = FENCED(fences, int32_t, world, "return_rows");
  route->cursor = FENCED(fences, int32_t, 2 * world, "cursor");
}

static size_t output_value_bytes(const struct road *road) {
  return road->shape.output_dtype == SY_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t);
}

float road_initial_output(int64_t token, int64_t i) {
  return 0.25f * (float)((token * 31 + i * 7) % 17 - 8); /* exact in bf16 */
}

static void make_output(struct road *road, struct road_rank *rank) {
  const int64_t h = road->shape.hidden;
  const size_t row_bytes = (size_t)h * output_value_bytes(road);
  rank->output_stride = (int64_t)row_bytes + GAP_BYTES;
  rank->output =
      fences_alloc(&road->fences, (size_t)(rank->route.num_tokens * rank->output_stride), "output");
  for (int64_t t = 0; road->shape.accumulate && t < rank->route.num_tokens; ++t) {
    unsigned char *row = (unsigned char *)rank->output + t * rank->output_stride;
    for (int64_t i = 0; i < h; ++i) {
      const float value = road_initial_output(rank->first_token + t, i);
      const uint16_t bf16 = oracle_bf16_nearest((double)value);
      if (road->shape.output_dtype == SY_DTYPE_F32) {
        memcpy(row + i * 4, &value, sizeof value);
      } else {
        memcpy(row + i * 2, &bf16, sizeof bf16);
      }
    }
  }
}

void road_begin(struct road *road, const struct road_shape *shape, const struct road_tokens *tokens,
                const int64_t *num_tokens) {
  *road = (struct road){.shape = *shape, .tokens = *tokens};
  struct fences *fences = &road->fences;
  const int32_t world = shape->world;
  road->expert_rank = FENCED(fences, int32_t, shape->num_experts, "expert_rank");
  road->expert_local = FENCED(fences, int32_t, shape->num_experts, "expert_local");
  road->weights = FENCED(fences, sy_expert_weights, shape->num_experts, "expert weights");
  for (int32_t e = 0; e < shape->num_experts && !shape->random_experts; ++e) {
    road->weights[e] = road_weights_make(fences, shape, e);
  }
  road->ranks = FENCED(fences, struct road_rank, world, "ranks");
  memset(road->ranks, 0, (size_t)world * sizeof *road->ranks);
  for (int32_t p = 0; p < world; ++p) {
    road->ranks[p].global_expert = FENCED(fences, int32_t, shape->num_experts, "global_expert");
  }
  place_experts(road);
  int64_t first = 0;
  for (int32_t p = 0; p < world; ++p) {
    struct road_rank *rank = &road->ranks[p];
    const int64_t even = tokens->count / world + (p < tokens->count % world ? 1 : 0);
    fill_env(road, p, &rank->env);
    load_experts(road, rank);
    rank->first_token = first;
    make_route(road, rank, num_tokens != NULL ? num_tokens[p] : even);
    make_output(road, rank);
    first += rank->route.num_tokens;
    rank->landing = FENCED(fences, unsigned char *, world, "landing");
    rank->received = FENCED(fences, const unsigned char *, world, "received");
    rank->received_rows = FENCED(fences, int32_t, world, "received_rows");
    rank->return_landing = FENCED(fences, unsigned char *, world, "return landing");
    rank->return_rows = FENCED(fences, int32_t, world, "return_rows");
    rank->returned = FENCED(fences, const unsigned char *, world, "returned");
  }
  CHECK_EQ_I64(first, tokens->count);
}

/* ---- Walking ---- */

/* Return rows that rank `peer` owes for the rows that `rank` sent it. */
static int64_t return_rows_from(const struct road *road, const struct road_rank *rank, int32_t peer,
                                int64_t rows) {
  const struct sy_route_args *route = &rank->route;
  if (!road->shape.per_slot) {
    return rows;
  }
  if (road->shape.padded_slots) {
    return rows * rank->env.return_slots;
  }
  return route->send_slot_offset[route->send_offset[peer + 1]] -
         route->send_slot_offset[route->send_offset[peer]];
}

static void send_rows(struct road *road, int32_t source) {
  struct road_rank *rank = &road->ranks[source];
  const struct sy_route_args *route = &rank->route;
  unsigned char *shared = NULL;
  for (int32_t p = 0; p < road->shape.world; ++p) {
    struct road_rank *peer = &road->ranks[p];
    const int64_t rows =
        road->shape.gather ? route->num_tokens : route->send_offset[p + 1] - route->send_offset[p];
    const size_t bytes = (size_t)rows * rank->env.wire_row.bytes;
    if (shared == NULL || !road->shape.gather) {
      shared = fences_alloc(&road->fences, bytes, "dispatched message");
    }
    const int64_t return_rows = return_rows_from(road, rank, p, rows);
    unsigned char *back = fences_alloc(
        &road->fences, (size_t)return_rows * rank->env.return_row_bytes, "returned message");
    /* gather: pack may use the own landing alone. */
    rank->landing[p] = !road->shape.gather || p == source ? shared : NULL;
    peer->received[source] = shared;
    peer->received_rows[source] = (int32_t)rows;
    peer->return_landing[source] = back;
    peer->return_rows[source] = (int32_t)return_rows;
    rank->returned[p] = back;
  }
}

void road_dispatch(struct road *road) {
  const struct sy_kernels *kernels = road->shape.kernels;
  const int64_t h = road->shape.hidden;
  for (int32_t p = 0; p < road->shape.world; ++p) {
    struct road_rank *rank = &road->ranks[p];
    const struct sy_route_args *route = &rank->route;
    struct sy_bad_id bad;
    CHECK_OK(kernels->check_ids(&rank->env, route, &bad));
    CHECK_OK(kernels->route(&rank->env, route));
    send_rows(road, p);
    struct sy_pack_args pack = {
        .num_tokens = route->num_tokens,
        .send_offset = route->send_offset,
        .token_offset = route->token_offset,
        .token_row = route->token_row,
        .send_slot_offset = route->send_slot_offset,
        .send_slots = route->send_slots,
        .landing = rank->landing,
    };
    pack.hidden =
        spread_rows(&road->fences, road->tokens.hidden + rank->first_token * h, route->num_tokens,
                    (size_t)h * sizeof(uint16_t), &pack.hidden_stride, "hidden");
    CHECK_OK(kernels->pack(&rank->env, &pack));
  }
}

/* Buffers for chunks of max_rows received rows, of max_rows * min(K, E_local) routed rows. */
static void make_chunk(struct road *road, const struct road_rank *rank, int64_t max_rows,
                       struct road_chunk *chunk) {
  struct fences *fences = &road->fences;
  const struct sy_stage_env *env = &rank->env;
  const int64_t r = max_rows * smaller(env->top_k, env->local_experts);
  const size_t row_bytes = sy_intermediate_row_bytes(env->mode, env->intermediate);
  const int64_t slices = (env->intermediate + SY_INTERMEDIATE_SLICE - 1) / SY_INTERMEDIATE_SLICE;
  const bool w4a4 = env->mode == SY_MODE_W4A4;
  const bool nvfp4 = w4a4 && env->format == SY_FORMAT_NVFP4;
  const int64_t block = sy_scale_block(env->format);
  *chunk = (struct road_chunk){
      .routed = {.received_row = FENCED(fences, const unsigned char *, max_rows, "received_row"),
                 .return_row = FENCED(fences, unsigned char *, max_rows, "return_row"),
                 .row_slot_offset = FENCED(fences, int32_t, max_rows + 1, "row_slot_offset"),
                 .slot_routed = FENCED(fences, int32_t, r, "slot_routed"),
                 .routed_source = FENCED(fences, int32_t, r, "routed_source"),
                 .routed_weight = FENCED(fences, float, r, "routed_weight"),
                 .expert_offset = FENCED(fences, int32_t, env->local_experts + 1, "expert_offset"),
                 .active_expert =
                     FENCED(fences, int32_t, smaller(env->local_experts, r), "active_expert")},
      .experts = {.max_rows = max_rows,
                  .weights = rank->weights,
                  .expert_bytes = rank->expert_bytes,
                  .expert_out = FENCED(fences, float, r * env->hidden, "expert_out")},
  };
  if (!road->shape.random_experts) {
    struct sy_experts_args *x = &chunk->experts;
    x->intermediate = fences_alloc(fences, (size_t)r * row_bytes, "intermediate");
    x->fc1_trace = FENCED(fences, float, r * 2 * env->intermediate, "fc1_trace");
    x->intermediate_scales =
        w4a4 ? FENCED(fences, unsigned char, r * env->intermediate / block, "scales") : NULL;
    x->intermediate_global = nvfp4 ? FENCED(fences, float, r *slices, "globals") : NULL;
  }
}

/* Forgets what an earlier chunk left in expert_out, or makes it up. */
static void prepare_expert_out(const struct road *road, struct road_chunk *chunk,
                               struct random_stream *r) {
  const int64_t values = chunk->routed.num_routed * road->shape.hidden;
  memset(chunk->experts.expert_out, 0xFF, (size_t)values * sizeof(float));
  for (int64_t i = 0; i < values && road->shape.random_experts; ++i) {
    chunk->experts.expert_out[i] = (float)random_normal(r);
  }
}

static void compute_rank(struct road *road, int32_t p, road_judge judge, void *user) {
  const struct sy_kernels *kernels = road->shape.kernels;
  struct road_rank *rank = &road->ranks[p];
  struct random_stream r = random_stream_make(sy_test_seed(), "expert_out", p);
  int64_t total = 0;
  for (int32_t s = 0; s < road->shape.world; ++s) {
    total += rank->received_rows[s];
  }
  const int64_t max_rows = road->shape.chunk_rows > 0 ? road->shape.chunk_rows : total;
  struct road_chunk chunk;
  make_chunk(road, rank, max_rows, &chunk);
  struct sy_receive_cursor cursor = {0};
  const struct sy_group_args group = {.received = rank->received,
                                      .received_rows = rank->received_rows,
                                      .landing = rank->return_landing,
                                      .return_rows = rank->return_rows,
                                      .max_rows = max_rows,
                                      .cursor = &cursor,
                                      .routed = &chunk.routed,
                                      .load_counts = rank->load_counts};
  chunk.experts.routed = &chunk.routed;
  const struct sy_reduce_args reduce = {
      .routed = &chunk.routed, .max_rows = max_rows, .expert_out = chunk.experts.expert_out};
  while (chunk.first_row < total) {
    if (!CHECK_OK(kernels->group(&rank->env, &group)) ||
        !CHECK_EQ_I64(chunk.routed.num_received, smaller(max_rows, total - chunk.first_row))) {
      return;
    }
    prepare_expert_out(road, &chunk, &r);
    if (!road->shape.random_experts) {
      CHECK_OK(kernels->experts(&rank->env, &chunk.experts));
    }
    CHECK_OK(kernels->reduce(&rank->env, &reduce));
    if (judge != NULL) {
      judge(road, p, &chunk, user);
    }
    chunk.first_row += chunk.routed.num_received;
  }
}

void road_compute(struct road *road, road_judge judge, void *user) {
  for (int32_t p = 0; p < road->shape.world; ++p) {
    compute_rank(road, p, judge, user);
  }
}

void road_combine(struct road *road) {
  const size_t row_bytes = (size_t)road->shape.hidden * output_value_bytes(road);
  for (int32_t p = 0; p < road->shape.world; ++p) {
    struct road_rank *rank = &road->ranks[p];
    const struct sy_combine_args combine = {.num_tokens = rank->route.num_tokens,
                                            .token_offset = rank->route.token_offset,
                                            .token_row = rank->route.token_row,
                                            .slot_return = rank->route.slot_return,
                                            .returned = rank->returned,
                                            .output = rank->output,
                                            .output_stride = rank->output_stride,
                                            .output_dtype = road->shape.output_dtype,
                                            .accumulate = road->shape.accumulate};
    CHECK_OK(road->shape.kernels->combine(&rank->env, &combine));
    unsigned char untouched[GAP_BYTES];
    memset(untouched, 0xFF, sizeof untouched);
    for (int64_t t = 0; t < rank->route.num_tokens; ++t) {
      CHECK_EQ_BYTES((unsigned char *)rank->output + t * rank->output_stride + row_bytes, untouched,
                     sizeof untouched);
    }
  }
}

void road_walk(struct road *road, road_judge judge, void *user) {
  road_dispatch(road);
  road_compute(road, judge, user);
  road_combine(road);
}

void road_end(struct road *road) {
  CHECK(fences_hold(&road->fences));
  fences_free(&road->fences);
}

/* ---- Looking ---- */

int32_t road_rank_of_token(const struct road *road, int64_t token) {
  int32_t p = 0;
  while (token >= road->ranks[p].first_token + road->ranks[p].route.num_tokens) {
    ++p;
  }
  return p;
}

float road_output(const struct road *road, int64_t token, int64_t i) {
  const struct road_rank *rank = &road->ranks[road_rank_of_token(road, token)];
  const unsigned char *row =
      (const unsigned char *)rank->output + (token - rank->first_token) * rank->output_stride;
  if (road->shape.output_dtype == SY_DTYPE_F32) {
    float value;
    memcpy(&value, row + i * 4, sizeof value);
    return value;
  }
  uint16_t bf16;
  memcpy(&bf16, row + i * 2, sizeof bf16);
  return (float)oracle_bf16_value(bf16);
}

float road_return_value(const struct road *road, const unsigned char *return_row, int64_t i) {
  if (road->shape.return_dtype == SY_DTYPE_F32) {
    float value;
    memcpy(&value, return_row + i * 4, sizeof value);
    return value;
  }
  uint16_t bf16;
  memcpy(&bf16, return_row + i * 2, sizeof bf16);
  return (float)oracle_bf16_value(bf16);
}
