/* Several ranks, one checkpoint: each loads its own experts and touches no others. */
#include <stdlib.h>
#include <string.h>

#include "runtime/internal.h"
#include "runtime/switchyard_checkpoint.h"
#include "tests/support/backend.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"

static const struct written_sizes sizes = {
    .layers = 1, .hidden = 32, .intermediate = 16, .experts = 5, .top_k = 2};

struct heard {
  uint64_t done_bytes, total_bytes;
};

static void hear(void *user, const char *what, uint64_t done_bytes, uint64_t total_bytes) {
  (void)what;
  *(struct heard *)user = (struct heard){done_bytes, total_bytes};
}

/* Weights begin as zeros, so that padding, which nobody writes, compares equal. */
static bool create_layer(sy_group *group, const sy_shape *shape, sy_layer **layer_out) {
  if (!CHECK_OK(sy_layer_create(group, shape, layer_out))) {
    return false;
  }
  const size_t bytes = sy_layer_weight_bytes(*layer_out);
  void *zeros = calloc(bytes + 1, 1);
  backend_upload((*layer_out)->weights, zeros, bytes);
  free(zeros);
  return true;
}

/* A layer's weights, wherever they lie; the caller frees them. */
static void *read_weights(const sy_layer *layer) {
  const size_t bytes = sy_layer_weight_bytes(layer);
  void *weights = malloc(bytes + 1);
  backend_download(weights, layer->weights, bytes);
  return weights;
}

/* Every local expert is the global expert that the placement says, and the bytes counted are
 * theirs. */
static void check_local_experts(struct written_model *model, sy_group *group, const sy_layer *layer,
                                const struct heard *heard) {
  sy_layer *by_hand = NULL;
  if (!create_layer(group, &layer->model.shape, &by_hand)) {
    return;
  }
  const int32_t count = sy_layer_num_local_experts(layer);
  for (int32_t local = 0; local < count; ++local) {
    const int32_t global = sy_layer_global_expert(layer, local);
    sy_expert_weights weights = SY_EXPERT_WEIGHTS_INIT;
    weights.dtype = SY_DTYPE_BF16;
    weights.gate = written_expert(model, 0, global, "gate")->data;
    weights.up = written_expert(model, 0, global, "up")->data;
    weights.down = written_expert(model, 0, global, "down")->data;
    CHECK_OK(sy_layer_load_expert(by_hand, local, &weights));
    CHECK(layer->loaded[local] != 0);
  }
  void *loaded = read_weights(layer);
  void *expected = read_weights(by_hand);
  CHECK_EQ_BYTES(loaded, expected, sy_layer_weight_bytes(layer));
  free(loaded);
  free(expected);
  const uint64_t bytes = (uint64_t)count * 3 * 32 * 16 * 2; /* projections, H, I, BF16 */
  CHECK_EQ_U64(heard->done_bytes, bytes);
  CHECK_EQ_U64(heard->total_bytes, bytes);
  sy_layer_destroy(by_hand);
}

/* Loads layer 0 under a placement; bad_expert, unless -1, has a NaN: the rank that owns it must say
 * so, and no other rank may notice, because none may touch it. */
static void check_ranks(const int32_t *expert_rank, int32_t bad_expert) {
  struct written_model *model = written_model_create(&sizes); /* every rank has its own copy */
  if (bad_expert >= 0) {
    memset(written_expert(model, 0, bad_expert, "up")->data, 0xFF, 2);
  }
  written_model_save(model, 2);
  struct heard heard = {0, 0};
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.progress = hear;
  desc.user = &heard;
  sy_group *group = NULL;
  sy_layer *layer = NULL;
  sy_checkpoint *checkpoint = NULL;
  sy_model_info info = SY_MODEL_INFO_INIT;
  if (CHECK_OK(backend_group_mpi(&desc, &group)) &&
      CHECK_OK(sy_checkpoint_open(model->folder, &checkpoint)) &&
      CHECK_OK(sy_checkpoint_model(checkpoint, &info))) {
    info.shape.expert_rank = expert_rank;
    create_layer(group, &info.shape, &layer);
  }
  if (layer != NULL && bad_expert >= 0 && expert_rank[bad_expert] == sy_test_rank()) {
    CHECK_FAILS(sy_layer_load_checkpoint(layer, checkpoint, 0), group, SY_ERR_ARGUMENT,
                written_expert(model, 0, bad_expert, "up")->name, "up[0, 0]", "finite");
  } else if (layer != NULL && CHECK_OK(sy_layer_load_checkpoint(layer, checkpoint, 0))) {
    check_local_experts(model, group, layer, &heard);
  }
  sy_layer_destroy(layer);
  sy_checkpoint_close(checkpoint);
  sy_group_destroy(group);
  written_model_destroy(model);
}

TEST(ranks_load_their_own_experts) {
  int32_t expert_rank[5];
  for (int32_t expert = 0; expert < sizes.experts; ++expert) {
    expert_rank[expert] = (2 * expert + 1) % sy_test_world();
  }
  check_ranks(expert_rank, -1);
}

TEST(a_rank_without_experts_loads_nothing) {
  const int32_t last = sy_test_world() - 1;
  const int32_t expert_rank[5] = {last, last, last, last, last};
  check_ranks(expert_rank, -1);
}

TEST(a_bad_expert_concerns_its_rank_alone) {
  const int32_t last = sy_test_world() - 1;
  const int32_t expert_rank[5] = {0, last, 0, 0, last};
  check_ranks(expert_rank, 1);
}
