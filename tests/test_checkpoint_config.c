/* config.json and the index of shards: what is refused, and what is said about it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/switchyard_checkpoint.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"

static const struct written_sizes sizes = {
    .layers = 2, .hidden = 32, .intermediate = 16, .experts = 3, .top_k = 2};

#define CHECK_REFUSED(model, status, ...)                                                   \
  do {                                                                                      \
    sy_checkpoint *refused_ = NULL;                                                         \
    CHECK_FAILS(sy_checkpoint_open((model)->folder, &refused_), NULL, status, __VA_ARGS__); \
    CHECK(refused_ == NULL);                                                                \
  } while (0)

/* ---- config.json ---- */

TEST(a_bad_config_value_is_refused) {
  static const struct {
    const char *key;
    const char *value; /* NULL: left out */
    sy_status status;
    const char *parts[2];
  } cases[] = {
      {"model_type", NULL, SY_ERR_FORMAT, {"'model_type' is missing", "expected a string"}},
      {"model_type", "5", SY_ERR_FORMAT, {"'model_type' is 5", "expected a string"}},
      {"model_type",
       "\"qwen9_moe\"",
       SY_ERR_UNSUPPORTED,
       {"'model_type' is \"qwen9_moe\"",
        "families known: deepseek_v3, gpt_oss, mixtral, qwen3_moe"}},
      {"num_hidden_layers", NULL, SY_ERR_FORMAT, {"'num_hidden_layers' is missing", "[1, 4096]"}},
      {"num_hidden_layers", "0", SY_ERR_FORMAT, {"'num_hidden_layers' is 0", "[1, 4096]"}},
      {"hidden_size", NULL, SY_ERR_FORMAT, {"'hidden_size' is missing", "[16, 1048576]"}},
      {"hidden_size", "\"32\"", SY_ERR_FORMAT, {"'hidden_size' is \"32\"", "[16, 1048576]"}},
      {"hidden_size", "32.5", SY_ERR_FORMAT, {"'hidden_size' is 32.5", "an integer"}},
      {"hidden_size", "null", SY_ERR_FORMAT, {"'hidden_size' is null", "an integer"}},
      {"hidden_size", "{}", SY_ERR_FORMAT, {"'hidden_size' is an object", "an integer"}},
      {"hidden_size", "40", SY_ERR_FORMAT, {"'hidden_size' is 40", "a multiple of 16"}},
      {"hidden_size", "2097152", SY_ERR_FORMAT, {"'hidden_size' is 2097152", "[16, 1048576]"}},
      {"moe_intermediate_size",
       "-16",
       SY_ERR_FORMAT,
       {"'moe_intermediate_size' is -16", "[16, 1048576]"}},
      {"moe_intermediate_size",
       "24",
       SY_ERR_FORMAT,
       {"'moe_intermediate_size' is 24", "a multiple of 16"}},
      {"num_experts", "0", SY_ERR_FORMAT, {"'num_experts' is 0", "[1, 65534]"}},
      {"num_experts", "65535", SY_ERR_FORMAT, {"'num_experts' is 65535", "[1, 65534]"}},
      {"num_experts_per_tok", "0", SY_ERR_FORMAT, {"'num_experts_per_tok' is 0", "[1, 1024]"}},
      {"num_experts_per_tok",
       "4",
       SY_ERR_FORMAT,
       {"'num_experts_per_tok' is 4", "at most the 3 of 'num_experts'"}},
      {"hidden_act", NULL, SY_ERR_FORMAT, {"'hidden_act' is missing", "expected a string"}},
      {"hidden_act", "\"gelu\"", SY_ERR_UNSUPPORTED, {"'hidden_act' is \"gelu\"", "\"silu\""}},
      {"decoder_sparse_step", "0", SY_ERR_FORMAT, {"'decoder_sparse_step' is 0", "[1, 4096]"}},
      {"mlp_only_layers", "7", SY_ERR_FORMAT, {"'mlp_only_layers' is 7", "expected an array"}},
      {"mlp_only_layers", "[0, 2]", SY_ERR_FORMAT, {"'mlp_only_layers' is 2", "[0, 1]"}},
      {"mlp_only_layers", "[0, 0, 0]", SY_ERR_FORMAT, {"'mlp_only_layers' has 3", "each of 2"}},
      {"mlp_only_layers", "[\"0\"]", SY_ERR_FORMAT, {"'mlp_only_layers' is \"0\"", "[0, 1]"}},
  };
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 1);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    written_config_save(model, cases[i].key, cases[i].value);
    CHECK_REFUSED(model, cases[i].status, model->folder, "config.json", cases[i].parts[0],
                  cases[i].parts[1]);
  }
  written_model_destroy(model);
}

TEST(a_config_may_leave_out_sparsity) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 1);
  const char *const keys[] = {"decoder_sparse_step", "mlp_only_layers"};
  for (size_t i = 0; i < sizeof keys / sizeof keys[0]; ++i) {
    written_config_save(model, keys[i], NULL);
    sy_checkpoint *checkpoint = NULL;
    CHECK_OK(sy_checkpoint_open(model->folder, &checkpoint));
    sy_checkpoint_close(checkpoint);
  }
  written_model_destroy(model);
}

static void check_config_text(struct written_model *model, const char *text, const char *part) {
  written_file_save(model, "config.json", text, strlen(text));
  CHECK_REFUSED(model, SY_ERR_FORMAT, "config.json", part);
}

TEST(a_config_that_is_no_object_is_refused) {
  struct written_model *model = written_model_create(&sizes);
  written_tensors_save(model, 1);
  check_config_text(model, "", "invalid JSON");
  check_config_text(model, "{\"hidden_size\":32", "invalid JSON at byte 17");
  check_config_text(model, "[1]", "is an array; expected an object");
  check_config_text(model, "{\"a\":1,\"b\":2,\"a\":3}", "duplicate object key");
  check_config_text(model, "{\"a\":\x1b}", "invalid JSON");
  CHECK(strchr(sy_last_error(NULL), '\x1b') == NULL);

  char *text = written_text("", '[', ((size_t)1 << 20) + 1, "");
  check_config_text(model, text, "has 1048577 bytes; allowed: at most 1048576");
  check_config_text(model, text + 1, "maximum parsing depth reached");
  free(text);
  written_model_destroy(model);
}

TEST(a_long_value_is_cut_in_the_sentence) {
  struct written_model *model = written_model_create(&sizes);
  written_tensors_save(model, 1);
  char *value = written_text("\"", 'x', 2000, "\"");
  written_config_save(model, "model_type", value);
  CHECK_REFUSED(model, SY_ERR_UNSUPPORTED, "\"xxxxxxxx", "x\"...; families known");
  free(value);
  written_model_destroy(model);
}

/* ---- The index ---- */

static void save_index(const struct written_model *model, const char *text) {
  written_file_save(model, "model.safetensors.index.json", text, strlen(text));
}

TEST(an_index_that_leads_elsewhere_is_refused) {
  static const char *const shards[] = {
      "\"/etc/x.safetensors\"",
      "\"../x.safetensors\"",
      "\"folder/x.safetensors\"",
      "\"folder\\\\x.safetensors\"",
      "\".x.safetensors\"",
      "\"..safetensors\"",
      "\".safetensors\"",
      "\"\"",
      "\"pytorch_model.bin\"",
      "\"x\\nsafetensors.safetensors\"",
      "\"x\\u009b.safetensors\"",
      "7",
      "null",
  };
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 2);
  for (size_t i = 0; i < sizeof shards / sizeof shards[0]; ++i) {
    char text[128];
    snprintf(text, sizeof text, "{\"weight_map\":{\"a\":%s}}", shards[i]);
    save_index(model, text);
    CHECK_REFUSED(model, SY_ERR_FORMAT, "model.safetensors.index.json", "tensor 'a'", "its shard",
                  "expected the plain name of a .safetensors file");
  }
  char *text = written_text("{\"weight_map\":{\"a\":\"", 's', 300, ".safetensors\"}}");
  save_index(model, text);
  CHECK_REFUSED(model, SY_ERR_FORMAT, "tensor 'a'", "\"ssss", "expected the plain name");
  free(text);
  written_model_destroy(model);
}

/* A path in the index may not lead out of the folder, but a file there may be a link: the cache of
 * the Hugging Face hub is made of links. */
TEST(shards_may_be_links) {
  struct written_model *model = written_model_create(&sizes);
  struct written_model *blobs = written_model_create(&sizes);
  written_model_save(model, 2);
  for (int shard = 1; shard <= 2; ++shard) {
    char name[64], here[512];
    snprintf(name, sizeof name, "model-%05d-of-00002.safetensors", shard);
    snprintf(here, sizeof here, "%s", written_path(model, name));
    CHECK(rename(here, written_path(blobs, name)) == 0);
    CHECK(symlink(written_path(blobs, name), here) == 0);
  }
  sy_checkpoint *checkpoint = NULL;
  CHECK_OK(sy_checkpoint_open(model->folder, &checkpoint));
  sy_checkpoint_close(checkpoint);
  CHECK(unlink(written_path(blobs, "model-00002-of-00002.safetensors")) == 0);
  CHECK_REFUSED(model, SY_ERR_IO, "model-00002-of-00002.safetensors", "No such file");
  written_model_destroy(blobs);
  written_model_destroy(model);
}

TEST(a_bad_index_is_refused) {
  static const struct {
    const char *text;
    const char *part;
  } cases[] = {
      {"", "invalid JSON"},
      {"{\"weight_map\":", "invalid JSON"},
      {"{}", "'weight_map' is missing; expected an object"},
      {"{\"weight_map\":3}", "'weight_map' is 3; expected an object"},
      {"{\"weight_map\":[]}", "'[' at byte 14; expected '{' at level 2"},
      {"{\"weight_map\":{\"a\":{}}}", "nests deeper than 2 levels"},
      {"{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"y.safetensors\"}}",
       "duplicate object key"},
      {"{\"weight_map\":{\"\":\"x.safetensors\"}}", "name has 0 bytes"},
  };
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 2);
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    save_index(model, cases[i].text);
    CHECK_REFUSED(model, SY_ERR_FORMAT, "model.safetensors.index.json", cases[i].part);
  }
  written_model_destroy(model);
}

TEST(a_missing_shard_is_named) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 3);
  CHECK(unlink(written_path(model, "model-00002-of-00003.safetensors")) == 0);
  CHECK_REFUSED(model, SY_ERR_IO, "model-00002-of-00003.safetensors", "No such file");
  written_model_destroy(model);
}

TEST(a_shard_that_contradicts_the_index_is_named) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 2);
  const char *tensor = model->tensors[0].name; /* in the first shard, not the second */
  char text[320];
  snprintf(text, sizeof text,
           "{\"weight_map\":{\"%s\":\"model-00001-of-00002.safetensors\","
           "\"%s\":\"model-00001-of-00002.safetensors\"}}",
           tensor, model->tensors[1].name);
  save_index(model, text);
  CHECK_REFUSED(model, SY_ERR_FORMAT, "model.safetensors.index.json", model->tensors[1].name,
                "expected in shard 'model-00001-of-00002.safetensors'");
  written_model_destroy(model);
}

TEST(a_bad_shard_is_named) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 3);
  CHECK(truncate(written_path(model, "model-00003-of-00003.safetensors"), 2000) == 0);
  CHECK_REFUSED(model, SY_ERR_FORMAT, "model-00003-of-00003.safetensors", "cut short");
  written_model_destroy(model);
}
