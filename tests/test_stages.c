/* Route, pack, group, reduce and combine against plain re-derivations, over every way in which rows
 * can travel. What the experts compute is made up here; test_experts.c judges that. */
#include <math.h>
#include <string.h>

#include "tests/support/backends.h"
#include "tests/support/harness.h"
#include "tests/support/oracle.h"
#include "tests/support/random.h"
#include "tests/support/road.h"

enum { MAX_TOP_K = 32, MAX_WORLD = 16 };

static bool same_f32(float a, float b) { return a == b || (isnan(a) && isnan(b)); }

/* ---- Route: what each token should become ---- */

/* Slots of a token by the rules: masked ones drop out; an expert named again adds its weight to its
 * first slot. `expert` is global here. Returns how many. */
static int32_t plain_slots(const struct road *road, int64_t token, struct sy_wire_slot *slots) {
  const int32_t top_k = road->shape.top_k;
  const int32_t *ids = road->tokens.ids + token * top_k;
  const float *weights = road->tokens.weights + token * top_k;
  int32_t count = 0;
  for (int32_t k = 0; k < top_k; ++k) {
    int32_t at = 0;
    while (at < count && slots[at].expert != ids[k]) {
      ++at;
    }
    if (ids[k] != -1 && at < count) {
      slots[at].weight += weights[k];
    } else if (ids[k] != -1) {
      slots[count++] = (struct sy_wire_slot){
          .weight = weights[k], .expert = (uint16_t)ids[k], .slot = (uint16_t)k};
    }
  }
  return count;
}

/* The slots of a token that rank q owns, with the experts' names as they travel. */
static int32_t slots_for(const struct road *road, int64_t token, int32_t q,
                         struct sy_wire_slot *slots) {
  struct sy_wire_slot all[MAX_TOP_K];
  const int32_t num_all = plain_slots(road, token, all);
  int32_t count = 0;
  for (int32_t j = 0; j < num_all; ++j) {
    if (road->expert_rank[all[j].expert] == q) {
      slots[count] = all[j];
      slots[count++].expert = (uint16_t)road->expert_local[all[j].expert];
    }
  }
  return count;
}

static bool same_slots(const struct sy_wire_slot *a, const struct sy_wire_slot *b, int32_t count) {
  for (int32_t j = 0; j < count; ++j) {
    if (!same_f32(a[j].weight, b[j].weight) || a[j].expert != b[j].expert ||
        a[j].slot != b[j].slot) {
      return false;
    }
  }
  return true;
}

/* Where the slots of one token on rank q come back: from return row `first` on. */
static void check_slot_return(const struct sy_row_ref *slot_return,
                              const struct sy_wire_slot *slots, int32_t count, int32_t q,
                              int64_t first) {
  for (int32_t j = 0; j < count; ++j) {
    const struct sy_row_ref ref = slot_return[slots[j].slot];
    CHECK_EQ_I64(ref.rank, q);
    CHECK_EQ_I64(ref.row, first + j);
  }
}

/* Slots that go nowhere come back from nowhere. */
static void check_unrouted_slots(const struct road *road, const struct road_rank *rank, int64_t t) {
  struct sy_wire_slot slots[MAX_TOP_K];
  const int32_t count = plain_slots(road, rank->first_token + t, slots);
  int32_t next = 0;
  for (int32_t k = 0; k < road->shape.top_k; ++k) {
    if (next < count && slots[next].slot == k) {
      ++next;
    } else {
      CHECK(rank->route.slot_return[t * road->shape.top_k + k].rank < 0);
    }
  }
}

static void check_dispatch_route(const struct road *road, const struct road_rank *rank) {
  const struct sy_route_args *route = &rank->route;
  int32_t rows[MAX_WORLD] = {0};
  int32_t slots_sent[MAX_WORLD] = {0};
  int32_t ref = 0;
  for (int64_t t = 0; t < route->num_tokens; ++t) {
    CHECK_EQ_I64(route->token_offset[t], ref);
    for (int32_t q = 0; q < road->shape.world; ++q) {
      struct sy_wire_slot slots[MAX_TOP_K];
      const int32_t count = slots_for(road, rank->first_token + t, q, slots);
      if (count == 0) {
        continue;
      }
      CHECK_EQ_I64(route->token_row[ref].rank, q);
      CHECK_EQ_I64(route->token_row[ref++].row, rows[q]);
      const int32_t *offset = route->send_slot_offset + route->send_offset[q] + rows[q];
      if (CHECK_EQ_I64(offset[1] - offset[0], count)) {
        CHECK(same_slots(route->send_slots + offset[0], slots, count));
      }
      if (road->shape.per_slot) {
        const int64_t first =
            road->shape.padded_slots ? (int64_t)rows[q] * rank->env.return_slots : slots_sent[q];
        check_slot_return(route->slot_return + t * road->shape.top_k, slots, count, q, first);
      }
      ++rows[q];
      slots_sent[q] += count;
    }
  }
  CHECK_EQ_I64(route->token_offset[route->num_tokens], ref);
  CHECK_EQ_I64(route->send_offset[0], 0);
  CHECK_EQ_I64(route->send_slot_offset[0], 0);
  for (int32_t q = 0; q < road->shape.world; ++q) {
    CHECK_EQ_I64(route->send_offset[q + 1] - route->send_offset[q], rows[q]);
    CHECK_EQ_I64(route->return_rows[q], road->shape.per_slot ? slots_sent[q] : rows[q]);
  }
}

/* One list of all tokens, with all their slots under global names. */
static void check_gather_route(const struct road *road, const struct road_rank *rank) {
  const struct sy_route_args *route = &rank->route;
  int32_t ref = 0;
  int32_t sent = 0;
  for (int64_t t = 0; t < route->num_tokens; ++t) {
    struct sy_wire_slot slots[MAX_TOP_K];
    const int32_t count = plain_slots(road, rank->first_token + t, slots);
    CHECK_EQ_I64(route->send_slot_offset[t], sent);
    CHECK(same_slots(route->send_slots + sent, slots, count));
    sent += count;
    CHECK_EQ_I64(route->token_offset[t], ref);
    for (int32_t q = 0; q < road->shape.world; ++q) {
      const int32_t here = slots_for(road, rank->first_token + t, q, slots);
      if (here > 0) {
        CHECK_EQ_I64(route->token_row[ref].rank, q);
        CHECK_EQ_I64(route->token_row[ref++].row, t);
      }
      if (road->shape.per_slot) {
        check_slot_return(route->slot_return + t * road->shape.top_k, slots, here, q,
                          t * rank->env.return_slots);
      }
    }
  }
  CHECK_EQ_I64(route->send_slot_offset[route->num_tokens], sent);
  CHECK_EQ_I64(route->token_offset[route->num_tokens], ref);
}

static void check_route(const struct road *road, const struct road_rank *rank) {
  if (road->shape.gather) {
    check_gather_route(road, rank);
  } else {
    check_dispatch_route(road, rank);
  }
  for (int64_t t = 0; road->shape.per_slot && t < rank->route.num_tokens; ++t) {
    check_unrouted_slots(road, rank, t);
  }
}

/* ---- Pack ---- */

static void check_nvfp4_payload(const struct sy_stage_env *env, const float *x,
                                const unsigned char *row) {
  const int64_t h = env->hidden;
  struct fences fences = {NULL};
  uint8_t *codes = FENCED(&fences, uint8_t, h, "codes");
  uint8_t *scales = FENCED(&fences, uint8_t, h / SY_NVFP4_BLOCK, "scales");
  uint8_t *pairs = FENCED(&fences, uint8_t, h / 2, "pairs of codes");
  const float exact = oracle_global(x, h);
  oracle_quantise(x, h, exact, codes, scales);
  for (int64_t i = 0; i < h / 2; ++i) {
    pairs[i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
  }
  float global;
  memcpy(&global, row + env->wire_row.global, sizeof global);
  CHECK(same_f32(global, exact));
  CHECK_EQ_BYTES(row, pairs, (size_t)(h / 2));
  CHECK_EQ_BYTES(row + env->wire_row.scales, scales, (size_t)(h / SY_NVFP4_BLOCK));
  fences_free(&fences);
}

static void check_mxfp4_payload(const struct sy_stage_env *env, const float *x,
                                const unsigned char *row) {
  const int64_t h = env->hidden;
  struct fences fences = {NULL};
  uint8_t *codes = FENCED(&fences, uint8_t, h, "codes");
  uint8_t *scales = FENCED(&fences, uint8_t, h / SY_MXFP4_BLOCK, "scales");
  oracle_mx_quantise(x, h, codes, scales);
  for (int64_t i = 0; i < h; ++i) {
    CHECK_EQ_U64(i % 2 == 0 ? row[i / 2] & 0xFu : row[i / 2] >> 4, codes[i]);
  }
  CHECK_EQ_BYTES(row + env->wire_row.scales, scales, (size_t)(h / SY_MXFP4_BLOCK));
  fences_free(&fences);
}

/* A row with a non-finite value must hold a NaN, which no weight of 0 and no clamp can lose. */
static void check_bf16_payload(const struct sy_stage_env *env, const uint16_t *hidden,
                               bool is_finite, const unsigned char *row) {
  if (is_finite) {
    CHECK_EQ_BYTES(row, hidden, (size_t)env->hidden * sizeof *hidden);
    return;
  }
  bool has_nan = false;
  for (int64_t i = 0; i < env->hidden; ++i) {
    uint16_t code;
    memcpy(&code, row + i * 2, sizeof code);
    has_nan = has_nan || isnan(oracle_bf16_value(code));
  }
  CHECK(has_nan);
}

static void check_packed_row(const struct road *road, const struct road_rank *rank, int64_t token,
                             const unsigned char *row, const struct sy_wire_slot *slots,
                             int32_t count) {
  const struct sy_stage_env *env = &rank->env;
  const uint16_t *hidden = road->tokens.hidden + token * env->hidden;
  struct fences fences = {NULL};
  float *x = FENCED(&fences, float, env->hidden, "hidden");
  for (int64_t i = 0; i < env->hidden; ++i) {
    x[i] = (float)oracle_bf16_value(hidden[i]);
  }
  if (env->mode == SY_MODE_W4A4 && env->format == SY_FORMAT_MXFP4) {
    check_mxfp4_payload(env, x, row);
  } else if (env->mode == SY_MODE_W4A4) {
    check_nvfp4_payload(env, x, row);
  } else {
    check_bf16_payload(env, hidden, isfinite(oracle_global(x, env->hidden)), row);
  }
  fences_free(&fences);
  struct sy_wire_slot sent[MAX_TOP_K];
  memcpy(sent, row + env->wire_row.slots, (size_t)env->slots_per_row * sizeof *sent);
  CHECK(same_slots(sent, slots, count));
  for (int32_t j = count; j < env->slots_per_row; ++j) {
    CHECK_EQ_U64(sent[j].expert, SY_WIRE_NO_EXPERT);
  }
}

static void check_pack(const struct road *road, int32_t p) {
  const struct road_rank *rank = &road->ranks[p];
  int64_t rows[MAX_WORLD] = {0};
  for (int64_t t = 0; t < rank->route.num_tokens; ++t) {
    const int64_t token = rank->first_token + t;
    struct sy_wire_slot slots[MAX_TOP_K];
    for (int32_t q = 0; q < road->shape.world; ++q) {
      const int32_t count =
          road->shape.gather ? plain_slots(road, token, slots) : slots_for(road, token, q, slots);
      if (count > 0 || road->shape.gather) {
        check_packed_row(road, rank, token,
                         road->ranks[q].received[p] + rows[q]++ * (int64_t)rank->env.wire_row.bytes,
                         slots, count);
      }
    }
  }
}

/* ---- Group and reduce: a judge of every chunk ---- */

/* A received row as its message says. */
struct row_fact {
  int32_t source;
  int32_t row;
  int64_t return_row;
  int32_t num_slots; /* here */
  struct sy_wire_slot slots[MAX_TOP_K];
};

static const unsigned char *received_row(const struct road *road, int32_t p, int32_t source,
                                         int64_t row) {
  const struct road_rank *rank = &road->ranks[p];
  return rank->received[source] + row * (int64_t)rank->env.wire_row.bytes;
}

/* The slots of a received row that name experts of rank p, by local expert. */
static int32_t slots_here(const struct road *road, int32_t p, const unsigned char *row,
                          struct sy_wire_slot *slots) {
  const struct sy_stage_env *env = &road->ranks[p].env;
  int32_t count = 0;
  for (int32_t j = 0; j < env->slots_per_row; ++j) {
    struct sy_wire_slot slot;
    memcpy(&slot, row + env->wire_row.slots + (size_t)j * sizeof slot, sizeof slot);
    if (slot.expert == SY_WIRE_NO_EXPERT || (env->gather && road->expert_rank[slot.expert] != p)) {
      continue;
    }
    slot.expert = env->gather ? (uint16_t)road->expert_local[slot.expert] : slot.expert;
    slots[count++] = slot;
  }
  return count;
}

/* Facts of all rows that rank p received, in rank order. */
static struct row_fact *facts_of(const struct road *road, int32_t p, struct fences *fences,
                                 int64_t *count_out) {
  const struct road_rank *rank = &road->ranks[p];
  int64_t count = 0;
  for (int32_t s = 0; s < road->shape.world; ++s) {
    count += rank->received_rows[s];
  }
  struct row_fact *facts = FENCED(fences, struct row_fact, count, "facts");
  struct row_fact *fact = facts;
  for (int32_t s = 0; s < road->shape.world; ++s) {
    int64_t slots = 0;
    for (int32_t row = 0; row < rank->received_rows[s]; ++row) {
      fact->source = s;
      fact->row = row;
      fact->num_slots = slots_here(road, p, received_row(road, p, s, row), fact->slots);
      fact->return_row = !road->shape.per_slot      ? row
                         : road->shape.padded_slots ? row * (int64_t)rank->env.return_slots
                                                    : slots;
      slots += fact->num_slots;
      ++fact;
    }
  }
  *count_out = count;
  return facts;
}

/* Routed rows must be sorted by expert, and within one in the order of rows. */
static void check_sorting(const struct road *road, int32_t p, const struct sy_routed *routed,
                          const struct row_fact *facts) {
  int32_t place = 0;
  int32_t num_active = 0;
  for (int32_t e = 0; e < road->ranks[p].env.local_experts; ++e) {
    const int32_t begin = place;
    CHECK_EQ_I64(routed->expert_offset[e], begin);
    for (int32_t i = 0; i < routed->num_received; ++i) {
      for (int32_t j = 0; j < facts[i].num_slots; ++j) {
        if (facts[i].slots[j].expert == e) {
          CHECK_EQ_I64(routed->slot_routed[routed->row_slot_offset[i] + j], place);
          CHECK_EQ_I64(routed->routed_source[place], i);
          CHECK(same_f32(routed->routed_weight[place], facts[i].slots[j].weight));
          ++place;
        }
      }
    }
    if (place > begin && CHECK(num_active < routed->num_active)) {
      CHECK_EQ_I64(routed->active_expert[num_active++], e);
    }
  }
  CHECK_EQ_I64(routed->num_active, num_active);
  CHECK_EQ_I64(routed->num_routed, place);
  CHECK_EQ_I64(routed->expert_offset[road->ranks[p].env.local_experts], place);
}

static void check_return_row(const struct road *road, const unsigned char *row, int64_t i,
                             float expected) {
  if (road->shape.return_dtype == SY_DTYPE_BF16) {
    expected = (float)oracle_bf16_value(oracle_bf16_nearest((double)expected));
  }
  CHECK(same_f32(road_return_value(road, row, i), expected));
}

static void check_reduced(const struct road *road, int32_t p, const struct road_chunk *chunk,
                          int64_t received, const struct row_fact *fact) {
  const struct sy_stage_env *env = &road->ranks[p].env;
  const struct sy_routed *routed = &chunk->routed;
  const int32_t *places = routed->slot_routed + routed->row_slot_offset[received];
  for (int64_t i = 0; i < env->hidden; ++i) {
    float sum = 0.0f;
    for (int32_t j = 0; j < fact->num_slots; ++j) {
      const float y = chunk->experts.expert_out[places[j] * env->hidden + i];
      const float weighted = fact->slots[j].weight * y;
      sum += weighted;
      if (env->per_slot) {
        check_return_row(road, routed->return_row[received] + (size_t)j * env->return_row_bytes, i,
                         weighted);
      }
    }
    if (!env->per_slot && fact->num_slots > 0) {
      check_return_row(road, routed->return_row[received], i, sum);
    }
  }
}

static void judge_chunk(const struct road *road, int32_t p, const struct road_chunk *chunk,
                        void *user) {
  const struct road_rank *rank = &road->ranks[p];
  const struct sy_routed *routed = &chunk->routed;
  int64_t *chunks = user;
  ++*chunks;
  int64_t count = 0;
  struct fences fences = {NULL};
  struct row_fact *all = facts_of(road, p, &fences, &count);
  if (!CHECK(chunk->first_row + routed->num_received <= count)) {
    fences_free(&fences);
    return;
  }
  const struct row_fact *facts = all + chunk->first_row;
  CHECK_EQ_I64(routed->row_slot_offset[0], 0);
  for (int64_t i = 0; i < routed->num_received; ++i) {
    const struct row_fact *fact = &facts[i];
    CHECK(routed->received_row[i] == received_row(road, p, fact->source, fact->row));
    CHECK(routed->return_row[i] == rank->return_landing[fact->source] +
                                       (size_t)fact->return_row * rank->env.return_row_bytes);
    CHECK_EQ_I64(routed->row_slot_offset[i + 1] - routed->row_slot_offset[i], fact->num_slots);
  }
  check_sorting(road, p, routed, facts);
  for (int64_t i = 0; i < routed->num_received; ++i) {
    check_reduced(road, p, chunk, i, &facts[i]);
  }
  fences_free(&fences);
}

static void check_load_counts(const struct road *road, int32_t p) {
  const struct road_rank *rank = &road->ranks[p];
  int64_t count = 0;
  struct fences fences = {NULL};
  const struct row_fact *facts = facts_of(road, p, &fences, &count);
  for (int32_t e = 0; e < rank->env.local_experts; ++e) {
    uint64_t rows = 0;
    for (int64_t i = 0; i < count; ++i) {
      for (int32_t j = 0; j < facts[i].num_slots; ++j) {
        rows += facts[i].slots[j].expert == e ? 1 : 0;
      }
    }
    CHECK_EQ_U64(rank->load_counts[e], rows);
  }
  fences_free(&fences);
}

/* ---- Combine ---- */

static void check_token_output(const struct road *road, const struct road_rank *rank, int64_t t) {
  const struct sy_route_args *route = &rank->route;
  const int32_t top_k = road->shape.top_k;
  const struct sy_row_ref *refs = road->shape.per_slot ? route->slot_return + t * top_k
                                                       : route->token_row + route->token_offset[t];
  const int32_t num_refs =
      road->shape.per_slot ? top_k : route->token_offset[t + 1] - route->token_offset[t];
  const int64_t token = rank->first_token + t;
  for (int64_t i = 0; i < road->shape.hidden; ++i) {
    float sum = 0.0f;
    for (int32_t r = 0; r < num_refs; ++r) {
      if (refs[r].rank >= 0) {
        sum += road_return_value(
            road, rank->returned[refs[r].rank] + (size_t)refs[r].row * rank->env.return_row_bytes,
            i);
      }
    }
    sum = road->shape.accumulate ? road_initial_output(token, i) + sum : sum;
    if (road->shape.output_dtype == SY_DTYPE_BF16) {
      sum = (float)oracle_bf16_value(oracle_bf16_nearest((double)sum));
    }
    if (!CHECK(same_f32(road_output(road, token, i), sum))) {
      return;
    }
  }
}

/* ---- One road, all checks ---- */

static void check_road(const struct road_shape *shape, const struct road_tokens *tokens,
                       const int64_t *num_tokens) {
  struct road road;
  int64_t chunks = 0;
  road_begin(&road, shape, tokens, num_tokens);
  road_dispatch(&road);
  for (int32_t p = 0; p < shape->world; ++p) {
    check_route(&road, &road.ranks[p]);
    check_pack(&road, p);
  }
  road_compute(&road, judge_chunk, &chunks);
  road_combine(&road);
  int64_t rows = 0;
  for (int32_t p = 0; p < shape->world; ++p) {
    check_load_counts(&road, p);
    for (int64_t t = 0; t < road.ranks[p].route.num_tokens; ++t) {
      check_token_output(&road, &road.ranks[p], t);
    }
    for (int32_t s = 0; s < shape->world; ++s) {
      rows += road.ranks[p].received_rows[s];
    }
  }
  CHECK(chunks > 0 || rows == 0);
  road_end(&road);
}

/* Every way in which rows can travel and return, with number types that change along the way. */
static void check_all_ways(struct road_shape shape, const struct road_tokens *tokens,
                           const int64_t *num_tokens) {
  static const struct {
    bool per_slot, gather, padded_slots;
  } ways[] = {{false, false, false},
              {true, false, false},
              {true, false, true},
              {false, true, true},
              {true, true, true}};
  for (int w = 0; w < 5; ++w) {
    shape.per_slot = ways[w].per_slot;
    shape.gather = ways[w].gather;
    shape.padded_slots = ways[w].padded_slots;
    shape.mode = w % 2 == 0 ? SY_MODE_W4A4 : SY_MODE_BF16;
    shape.format = w == 2 && shape.hidden % SY_MXFP4_BLOCK == 0 ? SY_FORMAT_MXFP4 : SY_FORMAT_NVFP4;
    shape.return_dtype = w % 3 == 0 ? SY_DTYPE_F32 : SY_DTYPE_BF16;
    shape.output_dtype = w < 3 ? SY_DTYPE_F32 : SY_DTYPE_BF16;
    shape.accumulate = w % 2 != 0;
    check_road(&shape, tokens, num_tokens);
  }
}

static struct road_shape make_shape(const struct sy_kernels *kernels, int32_t top_k,
                                    int32_t num_experts, int32_t world) {
  return (struct road_shape){.kernels = kernels,
                             .hidden = 16,
                             .intermediate = 16,
                             .num_experts = num_experts,
                             .top_k = top_k,
                             .world = world,
                             .random_experts = true};
}

/* ---- Cases ---- */

static void seed_shapes(const struct sy_kernels *kernels) {
  static const int32_t shapes[][3] = {{2, 8, 8}, {4, 8, 16}, {4, 4, 8}};
  for (int s = 0; s < 3; ++s) {
    for (int32_t world = 1; world <= 4; world *= 2) {
      struct fences fences = {NULL};
      const struct road_shape shape = make_shape(kernels, shapes[s][1], shapes[s][2], world);
      const struct road_tokens tokens = road_tokens_make(&fences, &shape, shapes[s][0]);
      check_all_ways(shape, &tokens, NULL);
      fences_free(&fences);
    }
  }
}

TEST(seed_shapes_alone_and_over_2_and_4_ranks) { on_every_backend(seed_shapes); }

/* The fault that this project starts from: more routed rows than local experts. */
static void routed_rows_against_experts(const struct sy_kernels *kernels) {
  static const int32_t routed_rows[] = {7, 8, 9, 257};
  for (int c = 0; c < 4; ++c) {
    struct fences fences = {NULL};
    const struct road_shape shape = make_shape(kernels, 4, 8, 1);
    struct road_tokens tokens = road_tokens_make(&fences, &shape, (routed_rows[c] + 3) / 4);
    for (int64_t i = routed_rows[c]; i < 4 * tokens.count; ++i) {
      tokens.ids[i] = -1;
    }
    check_all_ways(shape, &tokens, NULL);
    fences_free(&fences);
  }
}

TEST(routed_rows_around_and_far_beyond_local_experts) {
  on_every_backend(routed_rows_against_experts);
}

static void rows_to_one_expert(const struct sy_kernels *kernels) {
  static const int32_t rows[] = {31, 32, 33, 63, 64, 65, 127, 128, 129};
  for (int c = 0; c < 9; ++c) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, 2, 6, 1 + c % 3);
    struct road_tokens tokens = road_tokens_make(&fences, &shape, rows[c]);
    for (int64_t t = 0; t < tokens.count; ++t) {
      tokens.ids[2 * t] = 5;
      tokens.ids[2 * t + 1] = -1;
    }
    shape.chunk_rows = c % 2 == 0 ? 0 : 50;
    check_all_ways(shape, &tokens, NULL);
    fences_free(&fences);
  }
}

TEST(many_rows_to_one_expert) { on_every_backend(rows_to_one_expert); }

/* Every slot names an expert, all different: every bound that counts slots is reached. */
static void worst_case(const struct sy_kernels *kernels) {
  static const int32_t worlds[] = {1, 3, 6, 9};
  for (int c = 0; c < 4; ++c) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, 6, 6, worlds[c]);
    const struct road_tokens tokens = road_tokens_make(&fences, &shape, 11);
    check_all_ways(shape, &tokens, NULL);
    shape.chunk_rows = 4;
    check_all_ways(shape, &tokens, NULL);
    fences_free(&fences);
  }
}

TEST(all_tokens_to_all_experts_reach_every_bound) { on_every_backend(worst_case); }

static void one_rank_gets_all(const struct sy_kernels *kernels) {
  struct fences fences = {NULL};
  const struct road_shape shape = make_shape(kernels, 3, 12, 4);
  struct road_tokens tokens = road_tokens_make(&fences, &shape, 40);
  for (int64_t i = 0; i < 3 * tokens.count; ++i) {
    tokens.ids[i] = 6 + (int32_t)(i % 3); /* rank 2 owns 6, 7, 8 */
  }
  check_all_ways(shape, &tokens, NULL);
  fences_free(&fences);
}

TEST(all_tokens_to_one_rank) { on_every_backend(one_rank_gets_all); }

static void masked_and_repeated(const struct sy_kernels *kernels) {
  static const int32_t ids[][6] = {
      {-1, -1, -1, -1, -1, -1}, /* no expert */
      {3, 3, 3, 3, 3, 3},       /* one expert, six times */
      {-1, 2, -1, 5, 2, -1},    /* the first slot that names 2 is slot 1 */
      {4, 0, 4, 0, 4, 0},       /* two experts of different ranks, interleaved */
      {0, 1, 2, 3, 4, 5},       {-1, -1, -1, -1, -1, 1},
  };
  for (int32_t world = 1; world <= 6; ++world) {
    struct fences fences = {NULL};
    const struct road_shape shape = make_shape(kernels, 6, 6, world);
    struct road_tokens tokens = road_tokens_make(&fences, &shape, 6);
    memcpy(tokens.ids, ids, sizeof ids);
    check_all_ways(shape, &tokens, NULL);
    fences_free(&fences);
  }
}

TEST(masked_slots_and_repeated_experts) { on_every_backend(masked_and_repeated); }

static void uneven_tokens(const struct sy_kernels *kernels) {
  static const int64_t counts[][4] = {{0, 5, 0, 3}, {8, 0, 0, 0}, {0, 0, 0, 1}, {0, 0, 0, 0}};
  for (int c = 0; c < 4; ++c) {
    struct fences fences = {NULL};
    const struct road_shape shape = make_shape(kernels, 2, 8, 4);
    const int64_t *n = counts[c];
    const struct road_tokens tokens = road_tokens_make(&fences, &shape, n[0] + n[1] + n[2] + n[3]);
    check_all_ways(shape, &tokens, n);
    fences_free(&fences);
  }
}

TEST(ranks_without_tokens) { on_every_backend(uneven_tokens); }

static void placements(const struct sy_kernels *kernels) {
  static const int32_t scattered[] = {2, 0, 1, 0, 2, 2, 2};
  static const struct {
    int32_t experts, world, top_k;
    const int32_t *ranks;
  } cases[] = {{7, 3, 7, scattered}, /* permuted, and K > local experts */
               {7, 4, 3, NULL},      /* not divisible */
               {3, 5, 2, NULL},      /* ranks without experts */
               {1, 3, 1, NULL}};
  for (int c = 0; c < 4; ++c) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, cases[c].top_k, cases[c].experts, cases[c].world);
    shape.expert_rank = cases[c].ranks;
    const struct road_tokens tokens = road_tokens_make(&fences, &shape, 17);
    check_all_ways(shape, &tokens, NULL);
    fences_free(&fences);
  }
}

TEST(uneven_and_permuted_placements) { on_every_backend(placements); }

static void chunk_sizes(const struct sy_kernels *kernels) {
  static const int64_t sizes[] = {1, 2, 7, 30, 31, 1000};
  for (int c = 0; c < 6; ++c) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, 3, 5, 2);
    const struct road_tokens tokens = road_tokens_make(&fences, &shape, 23);
    shape.chunk_rows = sizes[c];
    check_all_ways(shape, &tokens, NULL);
    fences_free(&fences);
  }
}

TEST(chunks_of_any_size) { on_every_backend(chunk_sizes); }

static void hidden_sizes(const struct sy_kernels *kernels) {
  static const int64_t sizes[] = {16, 48, 256, 2880};
  for (int c = 0; c < 4; ++c) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, 2, 4, 2);
    shape.hidden = sizes[c];
    shape.num_threads = 1 + c % 3;
    const struct road_tokens tokens = road_tokens_make(&fences, &shape, 5);
    memset(tokens.hidden + sizes[c], 0, (size_t)sizes[c] * sizeof(uint16_t)); /* a row of zeros */
    check_all_ways(shape, &tokens, NULL);
    fences_free(&fences);
  }
}

TEST(ragged_hidden_sizes_and_threads) { on_every_backend(hidden_sizes); }

static void non_finite_tokens(const struct sy_kernels *kernels) {
  static const uint16_t bad[] = {0x7F80, 0xFF80, 0x7FC0, 0x7F81, 0xFFFF};
  struct fences fences = {NULL};
  struct road_shape shape = make_shape(kernels, 2, 4, 2);
  shape.hidden = 96;
  struct road_tokens tokens = road_tokens_make(&fences, &shape, 10);
  for (int i = 0; i < 5; ++i) {
    tokens.hidden[2 * i * 96 + 11 * i] = bad[i]; /* every other token */
  }
  check_all_ways(shape, &tokens, NULL);
  fences_free(&fences);
}

TEST(non_finite_tokens_are_packed_as_nan) { on_every_backend(non_finite_tokens); }

static void random_shapes(const struct sy_kernels *kernels) {
  for (int64_t c = 0; c < 150; ++c) {
    struct random_stream r = random_stream_make(sy_test_seed(), "shape", c);
    struct fences fences = {NULL};
    const int32_t experts = (int32_t)random_between(&r, 1, 20);
    struct road_shape shape = make_shape(kernels, (int32_t)random_between(&r, 1, 12), experts,
                                         (int32_t)random_between(&r, 1, 8));
    int32_t ranks[20];
    for (int32_t e = 0; e < experts; ++e) {
      ranks[e] = (int32_t)random_between(&r, 0, shape.world - 1);
    }
    shape.expert_rank = c % 3 == 0 ? NULL : ranks;
    shape.chunk_rows = random_between(&r, 0, 9);
    struct road_tokens tokens = road_tokens_make(&fences, &shape, random_between(&r, 0, 30));
    for (int64_t i = 0; i < tokens.count * shape.top_k; ++i) {
      if (random_between(&r, 0, 3) == 0) {
        tokens.ids[i] = (int32_t)random_between(&r, -1, experts - 1);
      }
    }
    check_all_ways(shape, &tokens, NULL);
    fences_free(&fences);
  }
}

TEST(random_routings) { on_every_backend(random_shapes); }
