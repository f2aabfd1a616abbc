/* A program that knows only the installed headers and library. Valid as C11 and as C++17.
 *
 * One layer of four experts, each of which scales the squares of its input by a power of two, so
 * that the result is exact in every step: token t goes to expert t. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <switchyard.h>
#include <switchyard_checkpoint.h>

#ifdef CONSUMER_MPI
#include <switchyard_mpi.h>
#endif

enum { SIZE = 16, EXPERTS = 4, TOKENS = 4 };

static uint16_t bf16(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof bits);
  return (uint16_t)(bits >> 16);
}

static int failed(const char *what) {
  fprintf(stderr, "%s: %s\n", what, sy_last_error(NULL));
  return 1;
}

/* up is the identity, down is 2^expert times the identity: y = 2^expert relu(x)^2. */
static int load(sy_layer *layer) {
  static uint16_t up[SIZE * SIZE];
  static uint16_t down[SIZE * SIZE];
  for (int32_t local = 0; local < sy_layer_num_local_experts(layer); ++local) {
    const int32_t expert = sy_layer_global_expert(layer, local);
    for (int i = 0; i < SIZE; ++i) {
      up[i * SIZE + i] = bf16(1.0f);
      down[i * SIZE + i] = bf16((float)(1 << expert));
    }
    sy_expert_weights weights = SY_EXPERT_WEIGHTS_INIT;
    weights.dtype = SY_DTYPE_BF16;
    weights.up = up;
    weights.down = down;
    if (sy_layer_load_expert(layer, local, &weights) != SY_OK) {
      return failed("sy_layer_load_expert");
    }
  }
  return 0;
}

static int forward(sy_group *group, sy_layer *layer, const sy_plan *plan) {
  uint16_t hidden[TOKENS * SIZE];
  float output[TOKENS * SIZE];
  int32_t ids[TOKENS];
  float weights[TOKENS];
  for (int t = 0; t < TOKENS; ++t) {
    ids[t] = t;
    weights[t] = 1.0f;
    for (int i = 0; i < SIZE; ++i) {
      hidden[t * SIZE + i] = bf16((float)(i - 4));
    }
  }
  sy_io io = SY_IO_INIT;
  io.num_tokens = TOKENS;
  io.hidden = hidden;
  io.expert_ids = ids;
  io.expert_weights = weights;
  io.output = output;
  io.output_dtype = SY_DTYPE_F32;
  if (sy_group_reserve(group, plan, 1) != SY_OK) {
    return failed("sy_group_reserve");
  }
  if (sy_forward(layer, plan, &io, NULL, 0, NULL) != SY_OK) {
    fprintf(stderr, "sy_forward: %s\n", sy_last_error(group));
    return 1;
  }
  for (int t = 0; t < TOKENS; ++t) {
    for (int i = 0; i < SIZE; ++i) {
      const float x = (float)(i < 4 ? 0 : i - 4);
      const float expected = (float)(1 << t) * x * x;
      if (output[t * SIZE + i] != expected) {
        fprintf(stderr, "token %d, column %d: %g, expected %g\n", t, i,
                (double)output[t * SIZE + i], (double)expected);
        return 1;
      }
    }
  }
  return 0;
}

static int run(sy_group *group) {
  sy_shape shape = SY_SHAPE_INIT;
  shape.hidden = SIZE;
  shape.intermediate = SIZE;
  shape.num_experts = EXPERTS;
  shape.top_k = 1;
  shape.mode = SY_MODE_BF16;
  shape.activation = SY_ACTIVATION_RELU2;
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = &shape;
  desc.world = sy_group_world(group);
  desc.rank = sy_group_rank(group);
  desc.max_tokens = TOKENS;
  sy_layer *layer = NULL;
  sy_plan *plan = NULL;
  int result = 1;
  if (sy_plan_create(&desc, &plan) != SY_OK) {
    result = failed("sy_plan_create");
  } else if (sy_layer_create(group, &shape, &layer) != SY_OK) {
    result = failed("sy_layer_create");
  } else if (load(layer) == 0) {
    result = forward(group, layer, plan);
  }
  sy_layer_destroy(layer);
  sy_plan_destroy(plan);
  return result;
}

int main(int argc, char **argv) {
  sy_group *group = NULL;
#ifdef CONSUMER_MPI
  MPI_Init(&argc, &argv);
  const sy_status status = sy_group_create_mpi(MPI_COMM_WORLD, NULL, &group);
#else
  (void)argc;
  (void)argv;
  const sy_status status = sy_group_create_local(NULL, &group);
#endif
  const int result = status == SY_OK ? run(group) : failed("creating a group");
  sy_group_destroy(group);
#ifdef CONSUMER_MPI
  MPI_Finalize();
#endif
  if (result == 0) {
    printf("switchyard %s: four experts, each exact\n", sy_version());
  }
  return result;
}
