#include "tests/support/expect.h"
#include "tests/support/backend.h"

#include <stdio.h>
#include <string.h>

#include "kernels/fp4.h"
#include "tests/support/harness.h"

/* ---- Slots ---- */

/* The expert that a top-k slot is routed to: -1 when masked, or named earlier by the token. */
static int32_t routed_expert(const struct layer_case *c, int64_t token, int32_t slot) {
  const int32_t *ids = c->ids + token * c->shape.top_k;
  for (int32_t k = 0; k < slot; ++k) {
    if (ids[k] == ids[slot]) {
      return -1;
    }
  }
  return ids[slot];
}

/* A slot's weight and, added in slot order, those of later slots with its expert. */
static float merged_weight(const struct layer_case *c, int64_t token, int32_t slot) {
  const int32_t *ids = c->ids + token * c->shape.top_k;
  const float *weights = c->weights + token * c->shape.top_k;
  float sum = weights[slot];
  for (int32_t k = slot + 1; k < c->shape.top_k; ++k) {
    if (ids[k] == ids[slot]) {
      sum += weights[k];
    }
  }
  return sum;
}

/* ---- Outputs ---- */

/* f32 [num_tokens, top_k, hidden]: the unweighted expert output of each slot. Each slot becomes a
 * token of its own, with weight 1, in a layer where nothing is left to add. */
static float *slot_outputs(const struct layer_case *c, struct fences *memory) {
  const int64_t hidden = c->shape.hidden;
  const int64_t slots = c->num_tokens * c->shape.top_k;
  struct layer_case one = {.shape = c->shape, .num_tokens = slots};
  one.shape.top_k = 1;
  one.hidden = FENCED(memory, uint16_t, slots * hidden, "slots.hidden");
  one.ids = c->ids;
  one.weights = FENCED(memory, float, slots, "slots.weights");
  for (int64_t i = 0; i < slots; ++i) {
    memcpy(one.hidden + i * hidden, c->hidden + i / c->shape.top_k * hidden,
           (size_t)hidden * sizeof *one.hidden);
    one.weights[i] = 1.0f;
  }
  const struct call_options exact = {.return_dtype = SY_DTYPE_F32, .output_dtype = SY_DTYPE_F32};
  float *outputs = FENCED(memory, float, slots *hidden, "slots.outputs");
  if (slots > 0) {
    layer_case_alone(&one, &exact, outputs);
  }
  return outputs;
}

static float as_returned(float x, sy_dtype dtype) {
  return dtype == SY_DTYPE_F32 ? x : sy_bf16_to_f32(sy_f32_to_bf16(x));
}

/* One value of one token. slot_values: of its slots, `hidden` apart. */
static float combine_value(const struct layer_case *c, const struct call_options *options,
                           int64_t token, const float *slot_values, int32_t world,
                           const int32_t *rank_of) {
  float sum = 0.0f;
  for (int32_t p = 0; p < world; ++p) {
    float part = 0.0f;
    for (int32_t k = 0; k < c->shape.top_k; ++k) {
      const int32_t expert = routed_expert(c, token, k);
      if (expert < 0 || (options->combine == SY_COMBINE_PER_RANK && rank_of[expert] != p)) {
        continue;
      }
      const float weighted = merged_weight(c, token, k) * slot_values[k * c->shape.hidden];
      if (options->combine == SY_COMBINE_PER_RANK) {
        part += weighted;
      } else if (p == 0) { /* in slot order, wherever the experts are */
        sum += as_returned(weighted, options->return_dtype);
      }
    }
    sum += as_returned(part, options->return_dtype);
  }
  return sum;
}

void expect_outputs(const struct layer_case *c, const struct call_options *options, int32_t world,
                    void *outputs) {
  struct fences memory = {NULL};
  const int64_t hidden = c->shape.hidden;
  const float *slots = slot_outputs(c, &memory);
  int32_t *rank_of = FENCED(&memory, int32_t, c->shape.num_experts, "rank_of");
  CHECK_OK(sy_placement_resolve(&c->shape, world, rank_of, NULL));
  for (int64_t i = 0; i < c->num_tokens * hidden; ++i) {
    const int64_t token = i / hidden;
    const float *slot_values = slots + token * c->shape.top_k * hidden + i % hidden;
    float value = combine_value(c, options, token, slot_values, world, rank_of);
    if (options->accumulate) {
      value = layer_case_initial(token, i % hidden) + value;
    }
    if (options->output_dtype == SY_DTYPE_F32) {
      ((float *)outputs)[i] = value;
    } else {
      ((uint16_t *)outputs)[i] = sy_f32_to_bf16(value);
    }
  }
  fences_free(&memory);
}

/* ---- Counters ---- */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static int64_t tokens_of(const struct token_split *split, int32_t rank) {
  return split->first[rank + 1] - split->first[rank];
}

/* What of one rank's wave meets the experts of another. */
struct meeting {
  int64_t tokens; /* of the wave */
  int64_t rows;   /* tokens with an expert there */
  int64_t slots;  /* routed slots there */
};

struct counter {
  const struct layer_case *c;
  const struct token_split *split;
  sy_strategy strategy;
  bool per_slot;
  const int32_t *rank_of;
  int64_t wave_tokens;
  size_t row_bytes;
  size_t return_row_bytes;
  int64_t back; /* return rows that a row has room for */
};

/* active: marks the experts of rank `to` that get a row; or NULL. */
static struct meeting count_meeting(const struct counter *n, int64_t wave, int32_t from, int32_t to,
                                    bool *active, uint64_t *load_counts) {
  const int64_t begin =
      n->split->first[from] + least(wave * n->wave_tokens, tokens_of(n->split, from));
  const int64_t end = least(begin + n->wave_tokens, n->split->first[from + 1]);
  struct meeting m = {.tokens = end - begin};
  for (int64_t t = begin; t < end; ++t) {
    int64_t slots = 0;
    for (int32_t k = 0; k < n->c->shape.top_k; ++k) {
      const int32_t expert = routed_expert(n->c, t, k);
      if (expert >= 0 && n->rank_of[expert] == to) {
        ++slots;
        if (active != NULL) {
          active[expert] = true;
          ++load_counts[expert];
        }
      }
    }
    m.rows += slots > 0 ? 1 : 0;
    m.slots += slots;
  }
  return m;
}

/* On a GPU sizes are known before they are sent: where rows are not exchanged at capacity, or the host
 * waits anyway, headers go ahead by themselves; a gather is at capacity. */
static uint64_t ahead_bytes(const struct counter *n) {
  const bool is_ahead = n->strategy == SY_STRATEGY_EXACT || !backend_takes_device_tensors();
  return backend_is_gpu() && is_ahead ? 64 : 0;
}

static int64_t capacity(const struct counter *n, const struct meeting *m) {
  return n->strategy == SY_STRATEGY_FIXED || backend_is_gpu() ? n->wave_tokens : m->tokens;
}

/* Bytes of the two messages of a wave that begin with the tokens of one rank: those that it sends
 * to another, and those that come back. */
static uint64_t dispatch_bytes(const struct counter *n, const struct meeting *m) {
  const int64_t rows = n->strategy == SY_STRATEGY_EXACT ? m->rows : capacity(n, m);
  return ahead_bytes(n) + 64 + (uint64_t)rows * n->row_bytes;
}

static uint64_t return_bytes(const struct counter *n, const struct meeting *m) {
  const int64_t rows = n->strategy == SY_STRATEGY_EXACT ? (n->per_slot ? m->slots : m->rows)
                                                        : capacity(n, m) * n->back;
  return 64 + (uint64_t)rows * n->return_row_bytes;
}

static void count_wave(const struct counter *n, int64_t wave, int32_t world, int32_t rank,
                       struct expected_counts *counts) {
  bool active[64] = {false};
  for (int32_t p = 0; p < world; ++p) {
    const struct meeting in = count_meeting(n, wave, p, rank, active, counts->load_counts);
    const struct meeting out = count_meeting(n, wave, rank, p, NULL, NULL);
    const bool gather = n->strategy == SY_STRATEGY_GATHER;
    counts->received_rows += (uint64_t)(gather ? in.tokens : in.rows);
    counts->routed_rows += (uint64_t)in.slots;
    if (p != rank) {
      counts->bytes_sent += dispatch_bytes(n, &out) + return_bytes(n, &in);
      counts->bytes_received += dispatch_bytes(n, &in) + return_bytes(n, &out);
    }
  }
  for (int32_t e = 0; e < n->c->shape.num_experts; ++e) {
    counts->active_experts += active[e] ? 1 : 0;
    counts->local_experts += n->rank_of[e] == rank ? 1 : 0;
  }
}

struct expected_counts expect_counts(const struct layer_case *c, const struct call_options *options,
                                     const struct token_split *split, int32_t world, int32_t rank) {
  int32_t rank_of[64];
  struct expected_counts counts = {0};
  sy_plan *plan = layer_case_plan(c, options, split, world, rank);
  sy_plan_info info = SY_PLAN_INFO_INIT;
  CHECK(c->shape.num_experts <= 64);
  CHECK_OK(sy_placement_resolve(&c->shape, world, rank_of, NULL));
  CHECK_OK(sy_plan_query(plan, &info));
  const bool per_slot = options->combine == SY_COMBINE_PER_SLOT;
  const struct counter n = {.c = c,
                            .split = split,
                            .strategy = info.strategy,
                            .per_slot = per_slot,
                            .rank_of = rank_of,
                            .wave_tokens = info.wave_tokens,
                            .row_bytes = info.row_bytes,
                            .return_row_bytes = info.return_row_bytes,
                            .back = per_slot ? least(c->shape.top_k, info.max_local_experts) : 1};
  int64_t waves = 1;
  for (int32_t p = 0; p < world; ++p) {
    const int64_t need = (tokens_of(split, p) + n.wave_tokens - 1) / n.wave_tokens;
    waves = need > waves ? need : waves;
  }
  if (options->halves) {
    waves = 1; /* they take no more */
  } else if (info.strategy == SY_STRATEGY_FIXED) {
    waves = info.max_waves;
  }
  for (int64_t wave = 0; wave < waves; ++wave) {
    count_wave(&n, wave, world, rank, &counts);
  }
  counts.waves = (uint64_t)waves;
  sy_plan_destroy(plan);
  return counts;
}

static bool stats_are(const sy_stats *stats, const struct expected_counts *expected,
                      int64_t num_tokens) {
  bool held = CHECK_EQ_U64(stats->forwards, 1);
  held = CHECK_EQ_I64((int64_t)stats->tokens, num_tokens) && held;
  held = CHECK_EQ_U64(stats->waves, expected->waves) && held;
  held = CHECK_EQ_U64(stats->received_rows, expected->received_rows) && held;
  held = CHECK_EQ_U64(stats->routed_rows, expected->routed_rows) && held;
  held = CHECK_EQ_U64(stats->active_experts, expected->active_experts) && held;
  held = CHECK_EQ_U64(stats->local_experts, expected->local_experts) && held;
  held = CHECK_EQ_U64(stats->bytes_sent, expected->bytes_sent) && held;
  return CHECK_EQ_U64(stats->bytes_received, expected->bytes_received) && held;
}

void check_counts(const struct layer_rank *rank, const struct expected_counts *expected,
                  int64_t num_tokens, const char *what) {
  sy_stats stats = SY_STATS_INIT;
  uint64_t counts[64];
  size_t count = 0;
  CHECK_OK(sy_group_stats(rank->group, 1, &stats));
  CHECK_OK(sy_layer_load_counts(rank->layer, 1, counts, 64, &count));
  bool held = stats_are(&stats, expected, num_tokens);
  for (size_t e = 0; e < count; ++e) {
    const int32_t global = sy_layer_global_expert(rank->layer, (int32_t)e);
    held = CHECK_EQ_U64(counts[e], expected->load_counts[global]) && held;
  }
  if (!held) {
    fprintf(stderr, "rank %d: the counters of %s\n", sy_test_rank(), what);
  }
}
