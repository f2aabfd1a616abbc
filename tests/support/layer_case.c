#include "tests/support/layer_case.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "kernels/fp4.h"
#include "kernels/wire.h"
#include "tests/support/backend.h"
#include "tests/support/harness.h"
#include "tests/support/oracle.h"
#include "tests/support/random.h"

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- Splits ---- */

struct token_split split_evenly(int64_t num_tokens, int32_t world) {
  struct token_split split = {{0}};
  for (int32_t r = 0; r <= world; ++r) {
    split.first[r] = num_tokens * r / world;
  }
  return split;
}

struct token_split split_all_to(int64_t num_tokens, int32_t world, int32_t rank) {
  struct token_split split = {{0}};
  for (int32_t r = 0; r <= world; ++r) {
    split.first[r] = r > rank ? num_tokens : 0;
  }
  return split;
}

struct token_split split_randomly(int64_t num_tokens, int32_t world) {
  struct token_split split = {{0}};
  for (int32_t r = 1; r < world; ++r) {
    split.first[r] = sy_test_random_between(split.first[r - 1], num_tokens);
  }
  split.first[world] = num_tokens;
  return split;
}

/* ---- The case ---- */

sy_shape small_shape(sy_mode mode, int64_t hidden, int64_t intermediate, int32_t num_experts,
                     int32_t top_k) {
  sy_shape shape = SY_SHAPE_INIT;
  shape.mode = mode;
  shape.hidden = hidden;
  shape.intermediate = intermediate;
  shape.num_experts = num_experts;
  shape.top_k = top_k;
  return shape;
}

sy_shape shape_of_kind(int kind, int64_t hidden, int64_t intermediate, int32_t num_experts,
                       int32_t top_k) {
  static const sy_mode modes[NUM_SHAPE_KINDS] = {SY_MODE_W4A4, SY_MODE_W4A16, SY_MODE_BF16,
                                                 SY_MODE_W4A4, SY_MODE_W4A16};
  sy_shape shape = small_shape(modes[kind], hidden, intermediate, num_experts, top_k);
  shape.format = kind < 3 ? SY_FORMAT_NVFP4 : SY_FORMAT_MXFP4;
  return shape;
}

static bool is_among(int32_t id, const int32_t *ids, int32_t count) {
  for (int32_t k = 0; k < count; ++k) {
    if (ids[k] == id) {
      return true;
    }
  }
  return false;
}

/* Blocks of 16 differ in size, so that every block has a scale of its own. */
static void draw_token(struct layer_case *c, int64_t token) {
  struct random_stream r = random_stream_make(sy_test_seed(), "token", token);
  const int64_t hidden = c->shape.hidden;
  const int32_t top_k = c->shape.top_k;
  double size = 1.0;
  for (int64_t i = 0; i < hidden; ++i) {
    size = i % SY_NVFP4_BLOCK == 0 ? ldexp(1.0, (int)random_between(&r, -4, 1)) : size;
    c->hidden[token * hidden + i] = sy_f32_to_bf16((float)(size * random_normal(&r)));
  }
  int32_t *ids = c->ids + token * top_k;
  for (int32_t k = 0; k < top_k; ++k) {
    ids[k] = -1;
    while (k < c->shape.num_experts && (ids[k] < 0 || is_among(ids[k], ids, k))) {
      ids[k] = (int32_t)random_between(&r, 0, c->shape.num_experts - 1);
    }
    c->weights[token * top_k + k] = (float)((0.25 + random_unit(&r)) / top_k);
  }
}

void layer_case_make(struct layer_case *c, const sy_shape *shape, int64_t num_tokens) {
  *c = (struct layer_case){.shape = *shape, .num_tokens = num_tokens};
  c->hidden = FENCED(&c->memory, uint16_t, num_tokens * shape->hidden, "case.hidden");
  c->ids = FENCED(&c->memory, int32_t, num_tokens * shape->top_k, "case.ids");
  c->weights = FENCED(&c->memory, float, num_tokens * shape->top_k, "case.weights");
  for (int64_t t = 0; t < num_tokens; ++t) {
    draw_token(c, t);
  }
}

void layer_case_free(struct layer_case *c) {
  CHECK(fences_hold(&c->memory));
  fences_free(&c->memory);
}

size_t layer_case_row_bytes(const struct layer_case *c, sy_dtype dtype) {
  return (size_t)c->shape.hidden * (dtype == SY_DTYPE_F32 ? sizeof(float) : sizeof(uint16_t));
}

void *layer_case_outputs(struct layer_case *c, sy_dtype dtype) {
  return fences_alloc(&c->memory, (size_t)c->num_tokens * layer_case_row_bytes(c, dtype),
                      "outputs");
}

bool same_bits(const struct layer_case *c, sy_dtype dtype, const void *got, const void *expected,
               int64_t begin, int64_t end, const char *what) {
  const size_t row_bytes = layer_case_row_bytes(c, dtype);
  const size_t value_bytes = row_bytes / (size_t)c->shape.hidden;
  for (int64_t t = begin; t < end; ++t) {
    const unsigned char *a = (const unsigned char *)got + (size_t)t * row_bytes;
    const unsigned char *b = (const unsigned char *)expected + (size_t)t * row_bytes;
    for (size_t i = 0; i < row_bytes; i += value_bytes) {
      if (memcmp(a + i, b + i, value_bytes) != 0) {
        fprintf(stderr, "rank %d, %s: token %" PRId64 " differs at column %zu\n", sy_test_rank(),
                what, t, i / value_bytes);
        return CHECK_EQ_BYTES(a + i, b + i, value_bytes);
      }
    }
  }
  return true;
}

/* ---- Experts ---- */

static const void *draw_matrix(struct random_stream *r, sy_dtype dtype, int64_t rows,
                               int64_t columns, struct fences *memory) {
  const double size = 2.0 / sqrt((double)columns);
  const int64_t count = rows * columns;
  if (dtype == SY_DTYPE_F32) {
    float *matrix = FENCED(memory, float, count, "expert matrix");
    for (int64_t i = 0; i < count; ++i) {
      matrix[i] = (float)(size * random_normal(r));
    }
    return matrix;
  }
  uint16_t *matrix = FENCED(memory, uint16_t, count, "expert matrix");
  for (int64_t i = 0; i < count; ++i) {
    matrix[i] = sy_f32_to_bf16((float)(size * random_normal(r)));
  }
  return matrix;
}

static const float *draw_bias(struct random_stream *r, int64_t count, struct fences *memory) {
  float *bias = FENCED(memory, float, count, "expert bias");
  for (int64_t i = 0; i < count; ++i) {
    bias[i] = (float)(0.5 * random_normal(r));
  }
  return bias;
}

sy_expert_weights layer_case_expert(const struct layer_case *c, int32_t global_expert,
                                    struct fences *memory) {
  struct random_stream r = random_stream_make(sy_test_seed(), "expert", global_expert);
  const sy_shape *s = &c->shape;
  const bool gated = s->activation != SY_ACTIVATION_RELU2;
  sy_expert_weights w = SY_EXPERT_WEIGHTS_INIT;
  w.dtype = global_expert % 2 == 0 ? SY_DTYPE_BF16 : SY_DTYPE_F32;
  w.up = draw_matrix(&r, w.dtype, s->intermediate, s->hidden, memory);
  w.down = draw_matrix(&r, w.dtype, s->hidden, s->intermediate, memory);
  w.gate = gated ? draw_matrix(&r, w.dtype, s->intermediate, s->hidden, memory) : NULL;
  if (s->has_bias != 0) {
    w.up_bias = draw_bias(&r, s->intermediate, memory);
    w.down_bias = draw_bias(&r, s->hidden, memory);
    w.gate_bias = gated ? draw_bias(&r, s->intermediate, memory) : NULL;
  }
  return w;
}

/* ---- One rank's part ---- */

bool layer_rank_open(struct layer_rank *r, const struct layer_case *c, sy_group *group) {
  *r = (struct layer_rank){.c = c, .group = group};
  if (!CHECK_OK(sy_layer_create(group, &c->shape, &r->layer))) {
    return false;
  }
  bool loaded = true;
  for (int32_t e = 0; e < sy_layer_num_local_experts(r->layer); ++e) {
    struct fences memory = {NULL};
    const sy_expert_weights weights =
        layer_case_expert(c, sy_layer_global_expert(r->layer, e), &memory);
    loaded = CHECK_OK(sy_layer_load_expert(r->layer, e, &weights)) && loaded;
    fences_free(&memory);
  }
  return loaded;
}

void layer_rank_close(struct layer_rank *r) {
  sy_layer_destroy(r->layer);
  r->layer = NULL;
}

/* ---- One call ---- */

float layer_case_initial(int64_t token, int64_t i) { return (float)((token + 3 * i) % 17 - 8); }

static int64_t largest_share(const struct token_split *split, int32_t world) {
  int64_t most = 1;
  for (int32_t r = 0; r < world; ++r) {
    most = larger(most, split->first[r + 1] - split->first[r]);
  }
  return most;
}

sy_plan *layer_case_plan(const struct layer_case *c, const struct call_options *options,
                         const struct token_split *split, int32_t world, int32_t rank) {
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = &c->shape;
  desc.world = world;
  desc.rank = rank;
  desc.max_tokens = options->max_tokens > 0 ? options->max_tokens : largest_share(split, world);
  desc.wave_tokens = options->wave_tokens;
  desc.chunk_rows = options->chunk_rows;
  if (options->exchange_budget_bytes > 0) {
    desc.exchange_budget_bytes = options->exchange_budget_bytes;
  }
  if (options->scratch_budget_bytes > 0) {
    desc.scratch_budget_bytes = options->scratch_budget_bytes;
  }
  desc.strategy = options->strategy;
  desc.combine = options->combine;
  desc.return_dtype = options->return_dtype;
  sy_plan *plan = NULL;
  CHECK_OK(sy_plan_create(&desc, &plan));
  return plan;
}

/* A tensor of count rows with gaps between them: the last row has none behind it. */
static void *make_tensor(struct layer_call *call, int64_t count, size_t row_bytes,
                         size_t value_bytes, const void *rows, int64_t *stride_out,
                         const char *name) {
  const size_t gap_bytes = (size_t)call->options.gap * value_bytes;
  const size_t stride = row_bytes + gap_bytes;
  const size_t bytes = count > 0 ? (size_t)count * stride - gap_bytes : 0;
  unsigned char *tensor = fences_alloc(&call->memory, bytes, name);
  for (int64_t t = 0; t < count && rows != NULL; ++t) {
    memcpy(tensor + (size_t)t * stride, (const unsigned char *)rows + (size_t)t * row_bytes,
           row_bytes);
  }
  *stride_out = gap_bytes > 0 ? (int64_t)stride : 0;
  return tensor;
}

void layer_call_renew(const struct layer_call *call) {
  for (int64_t t = 0; t < call->num_tokens; ++t) {
    void *row = call->output + (size_t)t * call->output_stride;
    for (int64_t i = 0; i < call->rank->c->shape.hidden; ++i) {
      const float value = layer_case_initial(call->first_token + t, i);
      if (call->options.output_dtype == SY_DTYPE_F32) {
        ((float *)row)[i] = value;
      } else {
        ((uint16_t *)row)[i] = sy_f32_to_bf16(value);
      }
    }
  }
}

static void make_tensors(struct layer_call *call, int64_t first, int64_t count) {
  const struct layer_case *c = call->rank->c;
  const int64_t hidden = c->shape.hidden;
  const int64_t top_k = c->shape.top_k;
  const size_t output_row = layer_case_row_bytes(c, call->options.output_dtype);
  const size_t output_value = output_row / (size_t)hidden;
  sy_io *io = &call->io;
  *io = (sy_io)SY_IO_INIT;
  io->num_tokens = count;
  io->output_dtype = call->options.output_dtype;
  io->accumulate = call->options.accumulate ? 1 : 0;
  io->hidden = make_tensor(call, count, (size_t)hidden * sizeof(uint16_t), sizeof(uint16_t),
                           c->hidden + first * hidden, &io->hidden_stride, "io.hidden");
  io->expert_ids = make_tensor(call, count, (size_t)top_k * sizeof(int32_t), sizeof(int32_t),
                               c->ids + first * top_k, &io->expert_ids_stride, "io.expert_ids");
  io->expert_weights =
      make_tensor(call, count, (size_t)top_k * sizeof(float), sizeof(float),
                  c->weights + first * top_k, &io->expert_weights_stride, "io.expert_weights");
  io->output =
      make_tensor(call, count, output_row, output_value, NULL, &io->output_stride, "io.output");
  call->first_token = first;
  call->num_tokens = count;
  call->output = io->output;
  call->output_stride = output_row + (size_t)call->options.gap * output_value;
  layer_call_renew(call);
}

/* Fenced where the host can look at it. */
static void *make_scratch(struct layer_call *call) {
  call->scratch_on_device = sy_group_memory(call->rank->group) == SY_MEMORY_DEVICE;
  return call->scratch_on_device ? backend_alloc(call->scratch_bytes)
                                 : fences_alloc(&call->memory, call->scratch_bytes, "scratch");
}

bool layer_call_open(struct layer_call *call, const struct layer_rank *rank,
                     const struct call_options *options, const struct token_split *split) {
  const int32_t me = sy_group_rank(rank->group);
  *call = (struct layer_call){.rank = rank, .options = *options};
  make_tensors(call, split->first[me], split->first[me + 1] - split->first[me]);
  call->plan = layer_case_plan(rank->c, options, split, sy_group_world(rank->group), me);
  if (options->own_scratch) {
    call->scratch_bytes = sy_plan_scratch_bytes(call->plan);
    call->scratch = make_scratch(call);
  }
  return CHECK_OK(sy_group_reserve(rank->group, call->plan, options->own_scratch ? 0 : 1));
}

static sy_status walk(const struct layer_call *call, const sy_io *io) {
  const struct layer_rank *r = call->rank;
  if (!call->options.halves) {
    return sy_forward(r->layer, call->plan, io, call->scratch, call->scratch_bytes, NULL);
  }
  sy_status status =
      sy_dispatch_start(r->layer, call->plan, io, call->scratch, call->scratch_bytes, NULL);
  sy_status (*const halves[])(sy_group *) = {sy_dispatch_finish, sy_experts, sy_combine_start,
                                             sy_combine_finish};
  for (size_t i = 0; i < sizeof halves / sizeof halves[0] && status == SY_OK; ++i) {
    status = halves[i](r->group);
  }
  return status;
}

/* Bytes of a tensor of the call's tokens: the last row has no gap behind it. */
static size_t tensor_bytes(const struct layer_call *call, size_t row_bytes, int64_t stride) {
  const size_t between = stride == 0 ? row_bytes : (size_t)stride;
  return call->num_tokens == 0 ? 0 : (size_t)(call->num_tokens - 1) * between + row_bytes;
}

static void *on_device(const void *tensor, size_t bytes) {
  void *copy = backend_alloc(bytes);
  backend_upload(copy, tensor, bytes);
  return copy;
}

/* With copies of the tensors in device memory; a fault that the call leaves for later is the
 * call's. */
static sy_status walk_on_device(const struct layer_call *call) {
  const struct layer_case *c = call->rank->c;
  const size_t slots = (size_t)c->shape.top_k * sizeof(int32_t);
  const size_t output_bytes = tensor_bytes(
      call, layer_case_row_bytes(c, call->options.output_dtype), call->io.output_stride);
  sy_io io = call->io;
  void *hidden = on_device(
      io.hidden, tensor_bytes(call, (size_t)c->shape.hidden * sizeof(uint16_t), io.hidden_stride));
  void *ids = on_device(io.expert_ids, tensor_bytes(call, slots, io.expert_ids_stride));
  void *weights = on_device(io.expert_weights, tensor_bytes(call, slots, io.expert_weights_stride));
  io.memory = SY_MEMORY_DEVICE;
  io.hidden = hidden;
  io.expert_ids = ids;
  io.expert_weights = weights;
  io.output = on_device(call->io.output, output_bytes);
  sy_status status = walk(call, &io);
  if (status == SY_OK) {
    status = sy_group_wait(call->rank->group, NULL, 60000);
  }
  backend_download(call->io.output, io.output, output_bytes);
  backend_free(hidden);
  backend_free(ids);
  backend_free(weights);
  backend_free(io.output);
  return status;
}

sy_status layer_call_forward(struct layer_call *call) {
  return backend_takes_device_tensors() ? walk_on_device(call) : walk(call, &call->io);
}

void layer_call_read(const struct layer_call *call, void *outputs) {
  const size_t row_bytes = layer_case_row_bytes(call->rank->c, call->options.output_dtype);
  for (int64_t t = 0; t < call->num_tokens; ++t) {
    memcpy((unsigned char *)outputs + (size_t)(call->first_token + t) * row_bytes,
           call->output + (size_t)t * call->output_stride, row_bytes);
  }
}

/* Whether the gaps of the output still have the bytes that fences_alloc left there. */
static bool gaps_hold(const struct layer_call *call) {
  const size_t row_bytes = layer_case_row_bytes(call->rank->c, call->options.output_dtype);
  for (int64_t t = 0; t + 1 < call->num_tokens; ++t) {
    for (size_t i = row_bytes; i < call->output_stride; ++i) {
      if (call->output[(size_t)t * call->output_stride + i] != 0xFF) {
        return false;
      }
    }
  }
  return true;
}

bool layer_call_is_untouched(const struct layer_call *call) {
  struct layer_call fresh = {.rank = call->rank, .options = call->options};
  make_tensors(&fresh, call->first_token, call->num_tokens);
  const size_t row_bytes = layer_case_row_bytes(call->rank->c, call->options.output_dtype);
  bool same = true;
  for (int64_t t = 0; t < call->num_tokens && same; ++t) {
    const size_t row = (size_t)t * call->output_stride;
    same = memcmp(call->output + row, fresh.output + row, row_bytes) == 0;
  }
  fences_free(&fresh.memory);
  return same;
}

void layer_call_close(struct layer_call *call) {
  CHECK(fences_hold(&call->memory));
  CHECK(gaps_hold(call));
  if (call->scratch_on_device) {
    backend_free(call->scratch);
  }
  sy_plan_destroy(call->plan);
  fences_free(&call->memory);
}

sy_status layer_rank_run(const struct layer_rank *rank, const struct call_options *options,
                         const struct token_split *split, void *outputs) {
  struct layer_call call;
  sy_status status = SY_ERR_STATE;
  if (layer_call_open(&call, rank, options, split)) {
    status = layer_call_forward(&call);
    if (CHECK_OK(status)) {
      layer_call_read(&call, outputs);
    }
  }
  layer_call_close(&call);
  return status;
}

/* ---- Alone ---- */

sy_group *local_group(int32_t num_threads) {
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.num_threads = num_threads;
  sy_group *group = NULL;
  CHECK_OK(backend_group(&desc, &group));
  return group;
}

void layer_case_alone(const struct layer_case *c, const struct call_options *options,
                      void *outputs) {
  struct layer_case here = *c;
  here.shape.expert_rank = NULL;
  here.shape.expert_local = NULL;
  const struct call_options plain = {.strategy = SY_STRATEGY_EXACT,
                                     .combine = options->combine,
                                     .return_dtype = options->return_dtype,
                                     .output_dtype = options->output_dtype};
  const struct token_split split = split_evenly(c->num_tokens, 1);
  sy_group *group = local_group(1);
  struct layer_rank rank;
  if (layer_rank_open(&rank, &here, group)) {
    layer_rank_run(&rank, &plain, &split, outputs);
  }
  layer_rank_close(&rank);
  sy_group_destroy(group);
}

/* ---- From end to end ---- */

double layer_case_distance(const struct layer_case *c, const float *outputs, int64_t begin,
                           int64_t end) {
  struct fences memory = {NULL};
  struct oracle_layer oracle;
  sy_expert_weights *experts = FENCED(&memory, sy_expert_weights, c->shape.num_experts, "experts");
  double *exact = FENCED(&memory, double, c->shape.hidden, "exact");
  for (int32_t e = 0; e < c->shape.num_experts; ++e) {
    experts[e] = layer_case_expert(c, e, &memory);
  }
  oracle_layer_make(&c->shape, experts, &oracle);
  double largest = 0.0;
  for (int64_t t = begin; t < end; ++t) {
    oracle_forward(&oracle, c->hidden + t * c->shape.hidden, c->ids + t * c->shape.top_k,
                   c->weights + t * c->shape.top_k, exact);
    const double distance = oracle_distance(outputs + t * c->shape.hidden, exact, c->shape.hidden);
    largest = isnan(largest) || distance <= largest ? largest : distance;
  }
  oracle_layer_free(&oracle);
  fences_free(&memory);
  return largest;
}

double layer_case_tolerance(sy_mode mode) { return mode == SY_MODE_W4A4 ? 0.05 : 0.005; }
