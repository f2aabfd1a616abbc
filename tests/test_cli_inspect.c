/* switchyard inspect: what it finds in checkpoints written here. SWITCHYARD_PROGRAM is the command
 * that runs it. */
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#include "tests/support/checkpoint_writer.h"
#include "tests/support/harness.h"
#include "tests/support/program.h"

static const struct written_sizes sizes = {
    .layers = 3, .hidden = 64, .intermediate = 48, .experts = 5, .top_k = 2};

/* All experts of one layer: BF16, three projections. */
#define LAYER_BYTES (INT64_C(2) * 3 * 5 * 64 * 48)

static struct program_run inspect(const char *folder, const char *options) {
  char line[512];
  snprintf(line, sizeof line, "%s inspect --model %s%s", SWITCHYARD_PROGRAM, folder, options);
  return program_run(line);
}

static json_t *inspect_json(const char *folder, const char *options, int code) {
  char line[256];
  snprintf(line, sizeof line, "%s --json", options);
  struct program_run r = inspect(folder, line);
  CHECK_EQ_I64(r.code, code);
  CHECK_EQ_STR(r.err, "");
  json_t *root = json_loads(r.out, 0, NULL);
  CHECK(root != NULL);
  program_run_free(&r);
  return root;
}

static int64_t integer(const json_t *object, const char *key) {
  const json_t *value = json_object_get(object, key);
  CHECK(json_is_integer(value));
  return json_integer_value(value);
}

static const char *text(const json_t *object, const char *key) {
  const char *value = json_string_value(json_object_get(object, key));
  return value != NULL ? value : "";
}

TEST(a_checkpoint_is_described) {
  struct written_model *model = written_model_create(&sizes);
  written_tensors_save(model, 2);
  written_config_save(model, "mlp_only_layers", "[1]");
  json_t *root = inspect_json(model->folder, " --world 1,3", 0);
  const json_t *layers = json_object_get(root, "layers");
  CHECK_EQ_STR(text(root, "model"), model->folder);
  CHECK_EQ_STR(text(root, "family"), "qwen3_moe");
  CHECK(json_is_true(json_object_get(root, "loads")));
  CHECK_EQ_I64(integer(root, "hidden"), 64);
  CHECK_EQ_I64(integer(root, "intermediate"), 48);
  CHECK_EQ_I64(integer(root, "experts"), 5);
  CHECK_EQ_I64(integer(root, "top_k"), 2);
  CHECK_EQ_I64(integer(root, "expert_bytes"), 2 * LAYER_BYTES);
  CHECK_EQ_U64(json_array_size(layers), 3);
  for (size_t i = 0; i < 3; ++i) {
    const json_t *layer = json_array_get(layers, i);
    CHECK_EQ_I64(json_is_true(json_object_get(layer, "dense")), i == 1);
    CHECK_EQ_STR(text(layer, "format"), i == 1 ? "" : "bf16");
    CHECK_EQ_I64(integer(layer, "expert_bytes"), i == 1 ? 0 : LAYER_BYTES);
    CHECK(json_is_null(json_object_get(layer, "error")));
  }
  json_decref(root);
  written_model_destroy(model);
}

TEST(bytes_per_rank_are_those_of_the_fullest) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 1);
  json_t *root = inspect_json(model->folder, " --world 1,3,8", 0);
  const json_t *ranks = json_object_get(root, "ranks");
  const int64_t experts[3] = {5, 2, 1};
  for (size_t i = 0; i < 3; ++i) {
    const json_t *rank = json_array_get(ranks, i);
    CHECK_EQ_I64(integer(rank, "experts"), experts[i]);
    CHECK_EQ_I64(integer(rank, "read_bytes"), 3 * LAYER_BYTES / 5 * experts[i]);
    /* Prepacked, so at least the values themselves: 2 bytes, or 4 bits and a scale. */
    const int64_t values = INT64_C(3) * experts[i] * 3 * 64 * 48;
    CHECK(integer(rank, "bf16_bytes") >= 2 * values);
    CHECK(integer(rank, "nvfp4_bytes") >= values / 2 + values / 16);
    CHECK(integer(rank, "nvfp4_bytes") < values);
  }
  json_decref(root);
  written_model_destroy(model);
}

/* 48 is no multiple of a block of MXFP4. */
TEST(a_format_that_the_sizes_do_not_fit_is_refused) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 1);
  json_t *root = inspect_json(model->folder, "", 0);
  CHECK_STR_HAS(text(json_object_get(root, "refused"), "mxfp4"), "intermediate is 48");
  CHECK(json_is_null(
      json_object_get(json_array_get(json_object_get(root, "ranks"), 0), "mxfp4_bytes")));
  json_decref(root);
  struct program_run r = inspect(model->folder, "");
  CHECK_EQ_I64(r.code, 0);
  CHECK_STR_HAS(r.out, "Every layer loads\n");
  CHECK_STR_HAS(r.out, "as mxfp4   intermediate is 48");
  program_run_free(&r);
  written_model_destroy(model);
}

TEST(experts_that_are_fp4_stay_as_they_are) {
  struct written_sizes stored = sizes;
  stored.storage = "modelopt";
  struct written_model *model = written_model_create(&stored);
  written_model_save(model, 1);
  json_t *root = inspect_json(model->folder, "", 0);
  const json_t *refused = json_object_get(root, "refused");
  const json_t *rank = json_array_get(json_object_get(root, "ranks"), 0);
  CHECK_EQ_STR(text(json_array_get(json_object_get(root, "layers"), 2), "format"), "nvfp4");
  CHECK_EQ_I64(integer(root, "expert_bytes"),
               INT64_C(3) * 5 * 3 * (64 * 48 / 2 + 64 * 48 / 16 + 4));
  CHECK_STR_HAS(text(refused, "bf16"), "nvfp4 already");
  CHECK_STR_HAS(text(refused, "mxfp4"), "nvfp4 already");
  CHECK(json_object_get(refused, "nvfp4") == NULL);
  CHECK(integer(rank, "nvfp4_bytes") > 0);
  CHECK(json_is_null(json_object_get(rank, "bf16_bytes")));
  json_decref(root);
  written_model_destroy(model);
}

TEST(a_layer_that_would_not_load_is_named) {
  struct written_model *model = written_model_create(&sizes);
  const char *missing = "model.layers.1.mlp.experts.4.up_proj.weight";
  written_tensor_drop(model, missing);
  written_expert(model, 2, 3, "down")->dtype = "F64X";
  written_model_save(model, 1);
  json_t *root = inspect_json(model->folder, "", 3);
  const json_t *layers = json_object_get(root, "layers");
  CHECK(json_is_false(json_object_get(root, "loads")));
  CHECK_EQ_I64(integer(root, "expert_bytes"), LAYER_BYTES);
  CHECK(json_is_null(json_object_get(json_array_get(layers, 0), "error")));
  CHECK_STR_HAS(text(json_array_get(layers, 1), "error"), missing);
  CHECK_STR_HAS(text(json_array_get(layers, 2), "error"), "dtype is \"F64X\"");
  json_decref(root);
  struct program_run r = inspect(model->folder, "");
  CHECK_EQ_I64(r.code, 3);
  CHECK_STR_HAS(r.out, "Would not load\n  layer 1    ");
  CHECK_STR_HAS(r.out, missing);
  program_run_free(&r);
  written_model_destroy(model);
}

/* Where every layer is broken the table stays short. */
TEST(many_errors_are_cut_in_the_table) {
  struct written_model *model = written_model_create(&sizes);
  written_tensors_save(model, 1);
  written_config_save(model, "num_hidden_layers", "40");
  struct program_run r = inspect(model->folder, "");
  CHECK_EQ_I64(r.code, 3);
  CHECK_STR_HAS(r.out, "  layer 10   ");
  CHECK_STR_HAS(r.out, "and 29 layers more; --json lists all\n");
  program_run_free(&r);
  written_model_destroy(model);
}

TEST(what_is_no_checkpoint_is_an_error) {
  struct written_model *model = written_model_create(&sizes);
  struct program_run r = inspect(model->folder, "");
  CHECK_EQ_I64(r.code, 3);
  CHECK_EQ_STR(r.out, "");
  CHECK_STR_HAS(r.err, "switchyard inspect: ");
  CHECK_STR_HAS(r.err, "config.json: cannot be opened");
  program_run_free(&r);
  written_config_save(model, "model_type", "\"qwen9_moe\"");
  r = inspect(model->folder, "");
  CHECK_STR_HAS(r.err, "families known: deepseek_v3");
  program_run_free(&r);
  r = program_run(SWITCHYARD_PROGRAM " inspect");
  CHECK_EQ_I64(r.code, 2);
  CHECK_STR_HAS(r.err, "--model is missing");
  program_run_free(&r);
  written_model_destroy(model);
}
