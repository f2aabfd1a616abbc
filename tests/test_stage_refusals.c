/* What the stages must refuse: ids of the caller and slots of another process, before they become
 * an index; weights that no format can hold. */
#include <math.h>
#include <string.h>

#include "tests/support/backends.h"
#include "tests/support/harness.h"
#include "tests/support/road.h"

static struct road_shape make_shape(const struct sy_kernels *kernels, int32_t top_k) {
  return (struct road_shape){.kernels = kernels,
                             .hidden = 16,
                             .intermediate = 16,
                             .num_experts = 8,
                             .top_k = top_k,
                             .world = 2,
                             .random_experts = true};
}

/* ---- Ids and slots ---- */

static void bad_ids(const struct sy_kernels *kernels) {
  static const int32_t bad[] = {-2, 8, INT32_MIN, INT32_MAX};
  for (int c = 0; c < 4; ++c) {
    struct fences fences = {NULL};
    const struct road_shape shape = make_shape(kernels, 4);
    struct road_tokens tokens = road_tokens_make(&fences, &shape, 12);
    struct road road;
    tokens.ids[0] = -1; /* masked, which is allowed */
    road_begin(&road, &shape, &tokens, NULL);
    int32_t *ids = (int32_t *)(uintptr_t)road.ranks[1].route.expert_ids;
    const int64_t stride = road.ranks[1].route.expert_ids_stride / (int64_t)sizeof *ids;
    ids[3 * stride + 2] = bad[c];
    ids[3 * stride + 3] = bad[c];
    ids[5 * stride] = bad[c];
    struct sy_bad_id found = {-1, -1, -1};
    CHECK_OK(kernels->check_ids(&road.ranks[0].env, &road.ranks[0].route, &found));
    CHECK_EQ_I64(found.token, -1);
    CHECK_STATUS(kernels->check_ids(&road.ranks[1].env, &road.ranks[1].route, &found),
                 SY_ERR_ROUTING);
    CHECK_EQ_I64(found.token, 3);
    CHECK_EQ_I64(found.slot, 2);
    CHECK_EQ_I64(found.id, bad[c]);
    road_end(&road);
    fences_free(&fences);
  }
}

TEST(the_first_bad_id_is_named) { on_every_backend(bad_ids); }

/* Groups rank 1's received rows after the first slot of the message from rank 0 was changed. */
static sy_status group_with_slot(const struct sy_kernels *kernels, bool gather,
                                 struct sy_wire_slot bad, int32_t missing_return_rows) {
  struct fences fences = {NULL};
  struct road_shape shape = make_shape(kernels, 2);
  shape.gather = gather;
  shape.per_slot = true;
  shape.padded_slots = gather;
  struct road_tokens tokens = road_tokens_make(&fences, &shape, 8);
  for (int64_t i = 0; i < 16; ++i) {
    tokens.ids[i] = 4 + (int32_t)(i % 4); /* all on rank 1 */
  }
  struct road road;
  road_begin(&road, &shape, &tokens, NULL);
  road_dispatch(&road);
  struct road_rank *rank = &road.ranks[1];
  unsigned char *row = road.ranks[0].landing[gather ? 0 : 1];
  memcpy(row + rank->env.wire_row.slots, &bad, sizeof bad);
  rank->return_rows[0] -= missing_return_rows;
  int32_t offset[9];
  int32_t places[16];
  int32_t sources[16];
  float weights[16];
  int32_t active[4];
  const unsigned char *received[8];
  unsigned char *back[8];
  struct sy_routed routed = {.received_row = received,
                             .return_row = back,
                             .row_slot_offset = offset,
                             .slot_routed = places,
                             .routed_source = sources,
                             .routed_weight = weights,
                             .expert_offset = FENCED(&fences, int32_t, 5, "expert_offset"),
                             .active_expert = active};
  struct sy_receive_cursor cursor = {0};
  const struct sy_group_args args = {.received = rank->received,
                                     .received_rows = rank->received_rows,
                                     .landing = rank->return_landing,
                                     .return_rows = rank->return_rows,
                                     .max_rows = 8,
                                     .cursor = &cursor,
                                     .routed = &routed,
                                     .load_counts = rank->load_counts};
  const sy_status status = kernels->group(&rank->env, &args);
  road_end(&road);
  CHECK(fences_hold(&fences));
  fences_free(&fences);
  return status;
}

/* What another process sends is checked before it becomes an index. */
static void bad_slots(const struct sy_kernels *kernels) {
  const struct sy_wire_slot good = {.weight = 1.0f, .expert = 3, .slot = 0};
  const struct sy_wire_slot not_here = {.weight = 1.0f, .expert = 4, .slot = 0};
  const struct sy_wire_slot nowhere = {.weight = 1.0f, .expert = 8, .slot = 0};
  const struct sy_wire_slot no_slot = {.weight = 1.0f, .expert = 3, .slot = 2};
  CHECK_STATUS(group_with_slot(kernels, false, good, 0), SY_OK);
  CHECK_STATUS(group_with_slot(kernels, true, good, 0), SY_OK);
  CHECK_STATUS(group_with_slot(kernels, false, not_here, 0), SY_ERR_MISMATCH);
  CHECK_STATUS(group_with_slot(kernels, true, not_here, 0), SY_OK);
  CHECK_STATUS(group_with_slot(kernels, true, nowhere, 0), SY_ERR_MISMATCH);
  CHECK_STATUS(group_with_slot(kernels, false, no_slot, 0), SY_ERR_MISMATCH);
  CHECK_STATUS(group_with_slot(kernels, false, good, 1), SY_ERR_MISMATCH);
  CHECK_STATUS(group_with_slot(kernels, true, good, 1), SY_ERR_MISMATCH);
}

TEST(group_refuses_rows_that_do_not_fit) { on_every_backend(bad_slots); }

/* ---- Weights ---- */

enum { H = 48, N = 32 };

static void bad_weights_in(const struct sy_kernels *kernels, sy_mode mode) {
  static const char *const names[] = {"gate", "up", "down", "gate_bias", "up_bias", "down_bias"};
  for (int which = 0; which < 6; ++which) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, 1);
    shape.hidden = H;
    shape.intermediate = N;
    shape.mode = mode;
    shape.has_bias = true;
    sy_expert_weights w = road_weights_make(&fences, &shape, 1); /* F32 */
    const void *const data[] = {w.gate, w.up, w.down, w.gate_bias, w.up_bias, w.down_bias};
    const int64_t columns = which < 2 ? H : which == 2 ? N : 1;
    float *values = (float *)(uintptr_t)data[which];
    values[7 * columns + columns / 2] = which % 2 == 0 ? NAN : -INFINITY;
    const struct sy_stage_env env = {.hidden = H,
                                     .intermediate = N,
                                     .mode = mode,
                                     .activation = SY_ACTIVATION_SWIGLU,
                                     .has_bias = true,
                                     .num_threads = 1};
    unsigned char *expert = fences_alloc(&fences, kernels->expert_bytes(&env), "expert");
    struct sy_bad_weight bad = {NULL, -1, -1, 0.0f, 0};
    CHECK_STATUS(road_load_expert(kernels, &env, &w, expert, &bad), SY_ERR_ARGUMENT);
    CHECK_EQ_STR(bad.projection, names[which]);
    CHECK_EQ_I64(bad.row, 7);
    CHECK_EQ_I64(bad.column, columns / 2);
    CHECK(!isfinite(bad.value));
    CHECK_EQ_I64(bad.scale_code, -1);
    CHECK(fences_hold(&fences));
    fences_free(&fences);
  }
}

static void bad_weights(const struct sy_kernels *kernels) {
  bad_weights_in(kernels, SY_MODE_W4A4);
  bad_weights_in(kernels, SY_MODE_W4A16);
  bad_weights_in(kernels, SY_MODE_BF16);
}

TEST(a_weight_that_is_not_finite_is_named) { on_every_backend(bad_weights); }

/* Finite in f32, infinite in BF16: there is no honest way to store it. */
static void too_large_weights(const struct sy_kernels *kernels) {
  struct fences fences = {NULL};
  struct road_shape shape = make_shape(kernels, 1);
  sy_expert_weights w = road_weights_make(&fences, &shape, 1);
  ((float *)(uintptr_t)w.up)[16 * 3 + 5] = -3.4028234e38f;
  const struct sy_stage_env env = {
      .hidden = 16, .intermediate = 16, .mode = SY_MODE_BF16, .num_threads = 1};
  unsigned char *expert = fences_alloc(&fences, kernels->expert_bytes(&env), "expert");
  struct sy_bad_weight bad = {NULL, -1, -1, 0.0f, 0};
  if (CHECK_STATUS(road_load_expert(kernels, &env, &w, expert, &bad), SY_ERR_ARGUMENT)) {
    CHECK_EQ_STR(bad.projection, "up");
    CHECK_EQ_I64(bad.row, 3);
    CHECK_EQ_I64(bad.column, 5);
  }
  fences_free(&fences);
}

TEST(a_weight_that_bf16_cannot_hold_is_named) { on_every_backend(too_large_weights); }

/* Block scales of weights that are FP4 already. */
static void bad_scales(const struct sy_kernels *kernels) {
  static const struct {
    sy_dtype dtype;
    sy_format format;
    uint8_t code;
  } cases[] = {{SY_DTYPE_NVFP4, SY_FORMAT_NVFP4, 0x7F},
               {SY_DTYPE_NVFP4, SY_FORMAT_NVFP4, 0x80},
               {SY_DTYPE_NVFP4, SY_FORMAT_NVFP4, 0xFF},
               {SY_DTYPE_MXFP4, SY_FORMAT_MXFP4, 0xFF}};
  for (int c = 0; c < 4; ++c) {
    struct fences fences = {NULL};
    struct road_shape shape = make_shape(kernels, 1);
    shape.hidden = 64;
    shape.intermediate = 96;
    shape.mode = SY_MODE_W4A16;
    shape.format = cases[c].format;
    shape.dtype_is_set = true;
    shape.dtype = cases[c].dtype;
    const sy_expert_weights w = road_weights_make(&fences, &shape, 0);
    const int64_t block = sy_scale_block(shape.format);
    ((uint8_t *)(uintptr_t)w.down_scales)[50 * (96 / block) + 2] = cases[c].code;
    ((uint8_t *)(uintptr_t)w.down_scales)[63 * (96 / block) + 1] = cases[c].code;
    const struct sy_stage_env env = {.hidden = 64,
                                     .intermediate = 96,
                                     .mode = shape.mode,
                                     .format = shape.format,
                                     .num_threads = 3};
    unsigned char *expert = fences_alloc(&fences, kernels->expert_bytes(&env), "expert");
    struct sy_bad_weight bad = {NULL, -1, -1, 0.0f, 0};
    CHECK_STATUS(road_load_expert(kernels, &env, &w, expert, &bad), SY_ERR_ARGUMENT);
    CHECK_EQ_STR(bad.projection, "down");
    CHECK_EQ_I64(bad.row, 50);
    CHECK_EQ_I64(bad.column, 2 * block);
    CHECK_EQ_I64(bad.scale_code, cases[c].code);
    CHECK(fences_hold(&fences));
    fences_free(&fences);
  }
}

TEST(a_block_scale_that_is_not_finite_is_named) { on_every_backend(bad_scales); }
