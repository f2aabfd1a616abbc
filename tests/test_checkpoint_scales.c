/* What can be wrong with experts that are quantised already: scales that are not finite, tensors
 * that are missing or do not fit, formats that contradict each other or the layer. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/internal.h"
#include "runtime/switchyard_checkpoint.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"

static const struct written_sizes sizes = {
    .layers = 1, .hidden = 64, .intermediate = 32, .experts = 3, .top_k = 2};

#define SPOILT_EXPERT 1

static struct written_model *create(const char *family, const char *storage) {
  struct written_sizes stored = sizes;
  stored.family = family;
  stored.storage = storage;
  return written_model_create(&stored);
}

/* A tensor of the spoilt expert's up projection. */
static struct written_tensor *find(struct written_model *model, const char *suffix) {
  char stem[96], name[160];
  written_expert_stem(model, 0, SPOILT_EXPERT, "up", stem);
  snprintf(name, sizeof name, "%s%s", stem, suffix);
  return written_tensor_find(model, name);
}

static sy_status load(const struct written_model *model, sy_mode mode, sy_format format) {
  sy_checkpoint *checkpoint = NULL;
  sy_model_info info = SY_MODEL_INFO_INIT;
  sy_group *group = NULL;
  sy_layer *layer = NULL;
  sy_status status = SY_ERR_INTERNAL;
  if (CHECK_OK(sy_group_create_local(NULL, &group)) &&
      CHECK_OK(sy_checkpoint_open(model->folder, &checkpoint)) &&
      CHECK_OK(sy_checkpoint_model(checkpoint, &info))) {
    info.shape.mode = mode;
    info.shape.format = format;
    if (CHECK_OK(sy_layer_create(group, &info.shape, &layer))) {
      status = sy_layer_load_checkpoint(layer, checkpoint, 0);
    }
  }
  sy_layer_destroy(layer);
  sy_checkpoint_close(checkpoint);
  sy_group_destroy(group);
  return status;
}

static sy_format format_of(const struct written_model *model) {
  return strncmp(model->sizes.storage, "mxfp4", 5) == 0 ||
                 strcmp(model->sizes.storage, "gpt-oss") == 0
             ? SY_FORMAT_MXFP4
             : SY_FORMAT_NVFP4;
}

static void save_and_check(struct written_model *model, sy_status status, const char *name,
                           const char *part) {
  written_model_save(model, 2);
  CHECK_FAILS(load(model, SY_MODE_W4A4, format_of(model)), NULL, status, ".safetensors", name,
              part);
  written_model_destroy(model);
}

/* ---- Scales ---- */

TEST(a_block_scale_that_is_not_finite_is_named) {
  static const struct {
    const char *family, *storage, *suffix;
    size_t at;
    uint8_t code;
    const char *part;
  } cases[] = {
      {"qwen3_moe", "modelopt", ".weight_scale", 5, 0x7F, "up[1, 16..] is code 0x7f"},
      {"mixtral", "modelopt", ".weight_scale", 0, 0xFF, "up[0, 0..] is code 0xff"},
      {"qwen3_moe", "nvfp4-pack", ".weight_scale", 127, 0x7F, "up[31, 48..] is code 0x7f"},
      {"qwen3_moe", "nvfp4-pack", ".weight_scale", 1, 0x81, "up[0, 16..] is code 0x81"},
      {"qwen3_moe", "mxfp4-pack", ".weight_scale", 3, 0xFF, "up[1, 32..] is code 0xff"},
      /* Of expert 1, 64 alternating rows of two scales: row 5 is row 2 of up. */
      {"gpt_oss", "gpt-oss", "_scales", 128 + 2 * 5 + 1, 0xFF, "up[2, 32..] is code 0xff"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct written_model *model = create(cases[i].family, cases[i].storage);
    struct written_tensor *tensor = find(model, cases[i].suffix);
    ((uint8_t *)tensor->data)[cases[i].at] = cases[i].code;
    save_and_check(model, SY_ERR_ARGUMENT, tensor->name, cases[i].part);
  }
}

TEST(a_global_scale_that_is_not_finite_is_named) {
  static const struct {
    const char *storage, *suffix;
    uint32_t bits;
    const char *part;
  } cases[] = {
      {"modelopt", ".weight_scale_2", 0x7FC00000, "is nan; expected a finite number, 0 or more"},
      {"modelopt", ".weight_scale_2", 0x7F800000, "is inf; expected a finite number"},
      {"modelopt", ".weight_scale_2", 0xBF800000, "is -1; expected a finite number, 0 or more"},
      {"nvfp4-pack", ".weight_global_scale", 0x7FC00000,
       "is nan; expected a finite number above 0"},
      {"nvfp4-pack", ".weight_global_scale", 0x7F800000,
       "is inf; expected a finite number above 0"},
      {"nvfp4-pack", ".weight_global_scale", 0, "is 0; expected a finite number above 0"},
      {"nvfp4-pack", ".weight_global_scale", 0xBF800000, "is -1; expected a finite number above 0"},
      {"nvfp4-pack", ".weight_global_scale", 1, "expected a finite number above 0"}, /* 1/x: inf */
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct written_model *model = create("qwen3_moe", cases[i].storage);
    struct written_tensor *tensor = find(model, cases[i].suffix);
    memcpy(tensor->data, &cases[i].bits, 4);
    save_and_check(model, SY_ERR_FORMAT, tensor->name, cases[i].part);
  }
}

/* An FP8 code of NaN, and a block scale that makes NaN or infinity of its values. */
TEST(fp8_that_is_not_finite_is_named) {
  struct written_model *model = create("deepseek_v3", "fp8");
  struct written_tensor *tensor = find(model, ".weight");
  ((uint8_t *)tensor->data)[3 * 64 + 7] = 0x7F;
  save_and_check(model, SY_ERR_ARGUMENT, tensor->name, "up[3, 7] is nan");
  static const uint32_t bits[] = {0x7FC00000, 0x7F800000, 0xFF800000, 0x7F7FFFFF};
  for (size_t i = 0; i < sizeof bits / sizeof bits[0]; ++i) {
    model = create("deepseek_v3", "fp8");
    memcpy(find(model, ".weight_scale_inv")->data, &bits[i], 4);
    save_and_check(model, SY_ERR_ARGUMENT, "experts.1.up_proj.weight", "weights must be finite");
  }
}

TEST(a_bias_that_is_not_finite_is_named) {
  struct written_model *model = create("gpt_oss", "gpt-oss");
  struct written_tensor *tensor = find(model, "_bias");
  ((uint16_t *)tensor->data)[64 + 2 * 9 + 1] = 0x7F80;
  save_and_check(model, SY_ERR_ARGUMENT, tensor->name, "up_bias[9, 0] is inf");
}

/* ---- Tensors that do not fit ---- */

TEST(a_scale_that_is_missing_is_named) {
  static const struct {
    const char *family, *storage, *suffix;
  } cases[] = {{"deepseek_v3", "fp8", ".weight_scale_inv"},
               {"qwen3_moe", "modelopt", ".weight_scale"},
               {"qwen3_moe", "modelopt", ".weight_scale_2"},
               {"qwen3_moe", "nvfp4-pack", ".weight_global_scale"},
               {"mixtral", "mxfp4-pack", ".weight_scale"},
               {"gpt_oss", "gpt-oss", "_scales"},
               {"gpt_oss", "gpt-oss", "_bias"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct written_model *model = create(cases[i].family, cases[i].storage);
    char name[128];
    snprintf(name, sizeof name, "%s", find(model, cases[i].suffix)->name);
    written_tensor_drop(model, name);
    written_model_save(model, 1);
    CHECK_FAILS(load(model, SY_MODE_W4A4, format_of(model)), NULL, SY_ERR_FORMAT, model->folder,
                name, "is missing");
    written_model_destroy(model);
  }
}

TEST(a_scale_of_another_shape_is_named) {
  static const struct {
    const char *family, *storage, *suffix, *part;
  } cases[] = {
      {"qwen3_moe", "modelopt", ".weight_scale", "shape is [4, 32]; expected [32, 4]"},
      {"qwen3_moe", "mxfp4-pack", ".weight_scale", "shape is [2, 32]; expected [32, 2]"},
      {"mixtral", "nvfp4-pack", ".weight_packed", "shape is [32, 32, 1]; expected [32, 32]"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct written_model *model = create(cases[i].family, cases[i].storage);
    struct written_tensor *tensor = find(model, cases[i].suffix);
    const int64_t rows = tensor->shape[0];
    tensor->shape[0] = tensor->shape[1];
    tensor->shape[1] = rows;
    if (strcmp(cases[i].suffix, ".weight_packed") == 0) {
      tensor->shape[tensor->num_dims++] = 1;
    }
    save_and_check(model, SY_ERR_FORMAT, tensor->name, cases[i].part);
  }
}

/* A scale per tensor, as older FP8 files have, and more than one global scale. */
TEST(a_scale_for_something_else_is_named) {
  struct written_model *model = create("deepseek_v3", "fp8");
  struct written_tensor *tensor = find(model, ".weight_scale_inv");
  tensor->num_dims = 0;
  save_and_check(model, SY_ERR_FORMAT, tensor->name, "shape is []; expected [1, 1]");
  model = create("qwen3_moe", "modelopt");
  tensor = find(model, ".weight_scale_2");
  tensor->num_dims = 1;
  tensor->shape[0] = 2;
  tensor->bytes = 8;
  free(tensor->data);
  tensor->data = calloc(1, 8);
  save_and_check(model, SY_ERR_FORMAT, tensor->name, "shape is [2]; expected [] or [1]");
}

TEST(a_scale_of_another_dtype_is_named) {
  static const struct {
    const char *storage, *suffix, *dtype, *part;
  } cases[] = {{"modelopt", ".weight_scale_2", "I32", "dtype is I32; expected F32"},
               {"modelopt", ".weight_scale", "U8", "dtype is U8; expected F8_E4M3"},
               {"fp8", ".weight_scale_inv", "I32", "dtype is I32; expected F32"},
               {"modelopt", ".weight", "BOOL", "dtype is \"BOOL\", which is not known"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct written_model *model = create("qwen3_moe", cases[i].storage);
    struct written_tensor *tensor = find(model, cases[i].suffix);
    tensor->dtype = cases[i].dtype;
    save_and_check(model, SY_ERR_FORMAT, tensor->name, cases[i].part);
  }
}

/* ---- Contradictions ---- */

TEST(a_layer_of_two_formats_is_refused) {
  struct written_model *model = create("qwen3_moe", "bf16");
  struct written_tensor *tensor = find(model, ".weight");
  tensor->dtype = "F16";
  written_model_save(model, 1);
  sy_checkpoint *checkpoint = NULL;
  sy_layer_info info = SY_LAYER_INFO_INIT;
  if (CHECK_OK(sy_checkpoint_open(model->folder, &checkpoint))) {
    CHECK_FAILS(sy_checkpoint_check_layer(checkpoint, 0, &info), NULL, SY_ERR_FORMAT,
                "experts.1.up_proj.weight", "dtype is F16; expected BF16");
  }
  sy_checkpoint_close(checkpoint);
  written_model_destroy(model);
}

/* Codes are taken as they are, or not at all. */
TEST(a_layer_that_cannot_take_the_codes_is_refused) {
  struct written_model *model = create("qwen3_moe", "modelopt");
  written_model_save(model, 1);
  CHECK_FAILS(load(model, SY_MODE_W4A4, SY_FORMAT_MXFP4), NULL, SY_ERR_UNSUPPORTED,
              "up_proj.weight", "NVFP4 already, the layer's format is MXFP4");
  CHECK_FAILS(load(model, SY_MODE_BF16, SY_FORMAT_NVFP4), NULL, SY_ERR_UNSUPPORTED,
              "up_proj.weight", "NVFP4 already, the layer's mode is bf16");
  CHECK_OK(load(model, SY_MODE_W4A16, SY_FORMAT_NVFP4));
  written_model_destroy(model);
  model = create("gpt_oss", "gpt-oss");
  written_model_save(model, 1);
  CHECK_FAILS(load(model, SY_MODE_W4A4, SY_FORMAT_NVFP4), NULL, SY_ERR_UNSUPPORTED,
              "gate_up_proj_blocks", "MXFP4 already, the layer's format is NVFP4");
  written_model_destroy(model);
}

/* Where a tensor has all experts of a layer, its shape says how many. */
TEST(a_config_with_other_experts_than_a_stacked_tensor_is_refused) {
  struct written_model *model = create("gpt_oss", "gpt-oss");
  written_tensors_save(model, 1);
  written_config_save(model, "num_local_experts", "2");
  CHECK_FAILS(load(model, SY_MODE_W4A4, SY_FORMAT_MXFP4), NULL, SY_ERR_FORMAT,
              "gate_up_proj_blocks", "shape is [3, 64, 2, 16]; expected [2, 64, 2, 16]");
  written_model_destroy(model);
}
