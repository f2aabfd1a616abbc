/* Every family in every storage that people have, from files to a layer's outputs: judged by the
 * float64 oracle from what the generator meant, never from what the loader read. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "runtime/internal.h"
#include "runtime/switchyard_checkpoint.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/failure.h"
#include "tests/support/fences.h"
#include "tests/support/harness.h"
#include "tests/support/layer_case.h"
#include "tests/support/oracle.h"
#include "tests/support/random.h"

enum { TOKENS = 6 };

static bool is_fp4(const char *storage) {
  return strcmp(storage, "modelopt") == 0 || strstr(storage, "-pack") != NULL ||
         strcmp(storage, "gpt-oss") == 0;
}

static bool is_mxfp4(const char *storage) {
  return strcmp(storage, "mxfp4-pack") == 0 || strcmp(storage, "gpt-oss") == 0;
}

/* Runs TOKENS random tokens through the layer and through the oracle's; the largest distance. */
static double distance_of(const struct written_model *model, int layer_idx, sy_layer *layer,
                          sy_group *group) {
  struct fences memory = {NULL};
  const sy_shape *shape = &layer->model.shape;
  struct layer_case c;
  layer_case_make(&c, shape, TOKENS);
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = shape;
  desc.max_tokens = TOKENS;
  desc.combine = SY_COMBINE_PER_SLOT;
  desc.return_dtype = SY_DTYPE_F32;
  sy_plan *plan = NULL;
  float *outputs = FENCED(&memory, float, TOKENS * shape->hidden, "outputs");
  double *exact = FENCED(&memory, double, shape->hidden, "exact");
  sy_io io = SY_IO_INIT;
  io.num_tokens = TOKENS;
  io.hidden = c.hidden;
  io.expert_ids = c.ids;
  io.expert_weights = c.weights;
  io.output = outputs;
  io.output_dtype = SY_DTYPE_F32;
  double largest = NAN;
  if (CHECK_OK(sy_plan_create(&desc, &plan)) && CHECK_OK(sy_group_reserve(group, plan, 1)) &&
      CHECK_OK(sy_forward(layer, plan, &io, NULL, 0, NULL))) {
    struct oracle_layer oracle;
    oracle_layer_make(shape, model->weights + layer_idx * model->sizes.experts, &oracle);
    largest = 0.0;
    for (int64_t t = 0; t < TOKENS; ++t) {
      oracle_forward(&oracle, c.hidden + t * shape->hidden, c.ids + t * shape->top_k,
                     c.weights + t * shape->top_k, exact);
      const double d = oracle_distance(outputs + t * shape->hidden, exact, shape->hidden);
      largest = isnan(largest) || d <= largest ? largest : d;
    }
    oracle_layer_free(&oracle);
  }
  sy_plan_destroy(plan);
  layer_case_free(&c);
  fences_free(&memory);
  return largest;
}

/* Loads the last layer in one mode; true when it could be. */
static void check_mode(const struct written_model *model, const sy_checkpoint *checkpoint,
                       sy_shape shape, sy_mode mode, sy_format format) {
  const int layer_idx = model->sizes.layers - 1;
  const char *storage = model->sizes.storage;
  sy_group *group = local_group(2);
  sy_layer *layer = NULL;
  shape.mode = mode;
  shape.format = format;
  const bool fits = !is_fp4(storage) ||
                    (mode != SY_MODE_BF16 && (format == SY_FORMAT_MXFP4) == is_mxfp4(storage));
  if (CHECK_OK(sy_layer_create(group, &shape, &layer))) {
    const sy_status status = sy_layer_load_checkpoint(layer, checkpoint, layer_idx);
    if (!fits) {
      CHECK_STATUS(status, SY_ERR_UNSUPPORTED);
      CHECK_STR_HAS(sy_last_error(group), "already");
      CHECK_STR_HAS(sy_last_error(group), model->folder);
    } else if (CHECK_OK(status)) {
      const double distance = distance_of(model, layer_idx, layer, group);
      printf("%s %s mode %d format %d: %.2e\n", model->sizes.family, storage, (int)mode,
             (int)format, distance);
      CHECK(distance <= layer_case_tolerance(mode));
    }
  }
  sy_layer_destroy(layer);
  sy_group_destroy(group);
}

static void check_storage(const char *family, const char *storage, int num_shards) {
  const struct written_sizes sizes = {.layers = 3,
                                      .hidden = 160,
                                      .intermediate = 160,
                                      .experts = 3,
                                      .top_k = 2,
                                      .family = family,
                                      .storage = storage,
                                      .dense_layers = strcmp(family, "deepseek_v3") == 0 ? 2 : 0};
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, num_shards);
  sy_checkpoint *checkpoint = NULL;
  sy_model_info info = SY_MODEL_INFO_INIT;
  if (CHECK_OK(sy_checkpoint_open(written_path(model, NULL), &checkpoint)) &&
      CHECK_OK(sy_checkpoint_model(checkpoint, &info))) {
    CHECK_EQ_STR(info.family, family);
    CHECK_EQ_I64(info.num_layers, 3);
    for (int m = 0; m < 5; ++m) {
      static const sy_mode modes[] = {SY_MODE_W4A4, SY_MODE_W4A16, SY_MODE_W4A4, SY_MODE_W4A16,
                                      SY_MODE_BF16};
      check_mode(model, checkpoint, info.shape, modes[m],
                 m == 2 || m == 3 ? SY_FORMAT_MXFP4 : SY_FORMAT_NVFP4);
    }
  }
  sy_checkpoint_close(checkpoint);
  written_model_destroy(model);
}

/* ---- Families and storages ---- */

TEST(qwen3_moe_in_bf16_f16_and_f32) {
  check_storage("qwen3_moe", "bf16", 1);
  check_storage("qwen3_moe", "f16", 3);
  check_storage("qwen3_moe", "f32", 1);
}

TEST(qwen3_moe_in_fp8) { check_storage("qwen3_moe", "fp8", 2); }

TEST(qwen3_moe_quantised_by_modelopt) { check_storage("qwen3_moe", "modelopt", 1); }

TEST(qwen3_moe_quantised_by_compressed_tensors) {
  check_storage("qwen3_moe", "nvfp4-pack", 2);
  check_storage("qwen3_moe", "mxfp4-pack", 1);
}

TEST(mixtral_in_bf16_and_quantised) {
  check_storage("mixtral", "bf16", 2);
  check_storage("mixtral", "nvfp4-pack", 1);
}

TEST(deepseek_v3_in_fp8_and_quantised_by_modelopt) {
  check_storage("deepseek_v3", "fp8", 2);
  check_storage("deepseek_v3", "modelopt", 1);
}

TEST(gpt_oss_in_mxfp4) { check_storage("gpt_oss", "gpt-oss", 2); }
