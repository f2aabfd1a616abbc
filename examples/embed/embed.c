/* One MoE layer in one process. All memory is made before the first token; scratch is ours. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <switchyard.h>

enum { HIDDEN = 64, INTERMEDIATE = 128, MATRIX = INTERMEDIATE * HIDDEN };
enum { EXPERTS = 8, TOP_K = 2, TOKENS = 16 };

static void check(sy_status status) {
  if (status != SY_OK) {
    fprintf(stderr, "%s: %s\n", sy_status_name(status), sy_last_error(NULL));
    exit(EXIT_FAILURE);
  }
}

static void fill(uint16_t *bf16, int count) { /* with +-[1, 2): sign and fraction are random */
  for (int i = 0; i < count; ++i) {
    bf16[i] = (uint16_t)(0x3F80u | ((unsigned)rand() & 0x807Fu));
  }
}

static sy_layer *make_layer(sy_group *group, const sy_shape *shape) {
  static uint16_t gate[MATRIX], up[MATRIX], down[MATRIX];
  sy_expert_weights weights = SY_EXPERT_WEIGHTS_INIT;
  weights.dtype = SY_DTYPE_BF16;
  weights.gate = gate;
  weights.up = up;
  weights.down = down;
  sy_layer *layer;
  check(sy_layer_create(group, shape, &layer));
  for (int32_t e = 0; e < sy_layer_num_local_experts(layer); ++e) {
    fill(gate, MATRIX);
    fill(up, MATRIX);
    fill(down, MATRIX);
    check(sy_layer_load_expert(layer, e, &weights)); /* copied, and quantised to NVFP4 */
  }
  return layer;
}

int main(void) {
  sy_shape shape = SY_SHAPE_INIT; /* mode w4a4, activation silu(gate) * up */
  shape.hidden = HIDDEN;
  shape.intermediate = INTERMEDIATE;
  shape.num_experts = EXPERTS;
  shape.top_k = TOP_K;
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = &shape;
  desc.max_tokens = TOKENS;
  sy_group *group;
  sy_plan *plan;
  check(sy_group_create_local(NULL, &group));
  sy_layer *layer = make_layer(group, &shape);
  check(sy_plan_create(&desc, &plan));
  check(sy_group_reserve(group, plan, 0)); /* exchange memory; the scratch is ours */
  const size_t scratch_bytes = sy_plan_scratch_bytes(plan);
  void *scratch = aligned_alloc(64, scratch_bytes);

  static uint16_t hidden[TOKENS * HIDDEN];
  static float output[TOKENS * HIDDEN], alone[HIDDEN];
  int32_t ids[TOKENS][TOP_K];
  float weights[TOKENS][TOP_K];
  fill(hidden, TOKENS * HIDDEN);
  for (int t = 0; t < TOKENS; ++t) { /* where a model's router decides */
    ids[t][0] = t * t % EXPERTS;
    ids[t][1] = EXPERTS - 1 - t % 4;
    weights[t][0] = weights[t][1] = 0.5f;
  }
  sy_io io = SY_IO_INIT;
  io.num_tokens = TOKENS;
  io.hidden = hidden;
  io.expert_ids = ids[0];
  io.expert_weights = weights[0];
  io.output = output;
  io.output_dtype = SY_DTYPE_F32;
  check(sy_forward(layer, plan, &io, scratch, scratch_bytes, NULL));

  uint64_t rows[EXPERTS];
  size_t count;
  check(sy_layer_load_counts(layer, 0, rows, EXPERTS, &count));
  for (size_t e = 0; e < count; ++e) {
    printf("expert %zu: %d routed rows\n", e, (int)rows[e]);
  }
  io.num_tokens = 1; /* token 0 again, alone: the same bits */
  io.output = alone;
  check(sy_forward(layer, plan, &io, scratch, scratch_bytes, NULL));
  double sum = 0.0;
  int same = 0;
  for (int h = 0; h < HIDDEN; ++h) {
    sum += (double)alone[h] * (double)alone[h];
    same += alone[h] == output[h];
  }
  printf("token 0: norm %g; alone, %d of %d values are the same\n", sqrt(sum), same, HIDDEN);
  free(scratch);
  sy_plan_destroy(plan);
  sy_layer_destroy(layer);
  sy_group_destroy(group);
  return same == HIDDEN ? EXIT_SUCCESS : EXIT_FAILURE;
}
