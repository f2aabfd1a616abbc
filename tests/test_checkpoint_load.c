/* Loading a layer from a checkpoint: the same weights as given by hand, or a sentence. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/internal.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"

static const struct written_sizes sizes = {
    .layers = 2, .hidden = 32, .intermediate = 16, .experts = 3, .top_k = 2};

/* What the disk does to a read: the linker leads the library's calls here. */
static enum { READS_WELL, READS_IN_PIECES, READS_FAIL } reading = READS_WELL;
static int reads;

ssize_t __real_pread(int fd, void *buffer, size_t bytes, off_t offset);
ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t offset);

ssize_t __wrap_pread(int fd, void *buffer, size_t bytes, off_t offset) {
  ++reads;
  if (reading == READS_FAIL || (reading == READS_IN_PIECES && reads % 2 == 0)) {
    errno = reading == READS_FAIL ? EIO : EINTR;
    return -1;
  }
  return __real_pread(fd, buffer, reading == READS_WELL || bytes < 100 ? bytes : 100, offset);
}

/* What the progress callback heard. */
struct heard {
  int calls;
  uint64_t done_bytes, total_bytes;
  char what[32];
};

static void hear(void *user, const char *what, uint64_t done_bytes, uint64_t total_bytes) {
  struct heard *heard = user;
  CHECK(done_bytes > heard->done_bytes);
  ++heard->calls;
  heard->done_bytes = done_bytes;
  heard->total_bytes = total_bytes;
  snprintf(heard->what, sizeof heard->what, "%s", what);
}

/* A checkpoint on disk, opened, and a layer that fits it. */
struct bench {
  struct written_model *model;
  struct heard heard;
  sy_group *group;
  sy_checkpoint *checkpoint;
  sy_layer *layer;
};

/* Weights begin as zeros, so that padding, which nobody writes, compares equal. */
static bool create_layer(sy_group *group, const sy_shape *shape, sy_layer **layer_out) {
  if (!CHECK_OK(sy_layer_create(group, shape, layer_out))) {
    return false;
  }
  memset((*layer_out)->weights, 0, sy_layer_weight_bytes(*layer_out));
  return true;
}

static bool set_up(struct bench *bench, struct written_model *model, sy_mode mode) {
  *bench = (struct bench){.model = model};
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.progress = hear;
  desc.user = &bench->heard;
  sy_model_info info = SY_MODEL_INFO_INIT;
  if (!CHECK_OK(sy_group_create_local(&desc, &bench->group)) ||
      !CHECK_OK(sy_checkpoint_open(model->folder, &bench->checkpoint)) ||
      !CHECK_OK(sy_checkpoint_model(bench->checkpoint, &info))) {
    return false;
  }
  info.shape.mode = mode;
  return create_layer(bench->group, &info.shape, &bench->layer);
}

static void tear_down(struct bench *bench) {
  sy_layer_destroy(bench->layer);
  sy_checkpoint_close(bench->checkpoint);
  sy_group_destroy(bench->group);
  written_model_destroy(bench->model);
}

/* The layer as it is when its experts are given by hand. */
static void check_weights(const struct bench *bench, int layer_idx) {
  sy_layer *by_hand = NULL;
  if (!create_layer(bench->group, &bench->layer->model.shape, &by_hand)) {
    return;
  }
  for (int32_t expert = 0; expert < sizes.experts; ++expert) {
    sy_expert_weights weights = SY_EXPERT_WEIGHTS_INIT;
    weights.dtype = SY_DTYPE_BF16;
    weights.gate = written_expert(bench->model, layer_idx, expert, "gate")->data;
    weights.up = written_expert(bench->model, layer_idx, expert, "up")->data;
    weights.down = written_expert(bench->model, layer_idx, expert, "down")->data;
    CHECK_OK(sy_layer_load_expert(by_hand, expert, &weights));
    CHECK_EQ_BYTES(bench->layer->weights + (size_t)expert * by_hand->expert_bytes,
                   by_hand->weights + (size_t)expert * by_hand->expert_bytes,
                   by_hand->expert_bytes);
    CHECK(bench->layer->loaded[expert] != 0);
  }
  sy_layer_destroy(by_hand);
}

static void check_loads(struct written_model *model, int num_shards) {
  written_model_save(model, num_shards);
  struct bench bench;
  if (set_up(&bench, model, SY_MODE_BF16)) {
    for (int layer_idx = 0; layer_idx < sizes.layers; ++layer_idx) {
      if (CHECK_OK(sy_layer_load_checkpoint(bench.layer, bench.checkpoint, layer_idx))) {
        check_weights(&bench, layer_idx);
      }
      bench.heard.done_bytes = 0;
    }
  }
  tear_down(&bench);
}

TEST(one_file_loads) { check_loads(written_model_create(&sizes), 1); }

TEST(experts_spread_over_shards_load) { check_loads(written_model_create(&sizes), 4); }

TEST(data_at_odd_addresses_loads) {
  struct written_model *model = written_model_create(&sizes);
  model->odd_header = 1;
  check_loads(model, 2);
}

TEST(every_mode_loads) {
  for (int mode = SY_MODE_W4A4; mode <= SY_MODE_BF16; ++mode) {
    struct written_model *model = written_model_create(&sizes);
    written_model_save(model, 1);
    struct bench bench;
    if (set_up(&bench, model, (sy_mode)mode) &&
        CHECK_OK(sy_layer_load_checkpoint(bench.layer, bench.checkpoint, 1))) {
      check_weights(&bench, 1);
    }
    tear_down(&bench);
  }
}

TEST(progress_counts_this_layers_bytes) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 1);
  struct bench bench;
  if (set_up(&bench, model, SY_MODE_W4A16) &&
      CHECK_OK(sy_layer_load_checkpoint(bench.layer, bench.checkpoint, 1))) {
    const uint64_t bytes = UINT64_C(2) * 3 * 3 * 32 * 16; /* BF16, projections, experts, I, H */
    CHECK_EQ_I64(bench.heard.calls, sizes.experts);
    CHECK_EQ_U64(bench.heard.done_bytes, bytes);
    CHECK_EQ_U64(bench.heard.total_bytes, bytes);
    CHECK_EQ_STR(bench.heard.what, "layer 1");
  }
  tear_down(&bench);
}

/* ---- What does not fit ---- */

/* Loads layer_idx of a model that a case has spoilt. Nothing may be loaded when tensors are missing
 * or unfit. */
#define CHECK_LOAD_FAILS(bench, layer_idx, status, ...)                                   \
  do {                                                                                    \
    CHECK_FAILS(sy_layer_load_checkpoint((bench)->layer, (bench)->checkpoint, layer_idx), \
                (bench)->group, status, __VA_ARGS__);                                     \
    CHECK_EQ_I64((bench)->heard.calls, 0);                                                \
  } while (0)

static bool set_up_spoilt(struct bench *bench, struct written_model *model) {
  written_model_save(model, 1);
  return set_up(bench, model, SY_MODE_BF16);
}

TEST(a_missing_tensor_stops_loading) {
  struct bench bench;
  struct written_model *model = written_model_create(&sizes);
  const char *name = "model.layers.1.mlp.experts.2.up_proj.weight";
  written_tensor_drop(model, name);
  if (set_up_spoilt(&bench, model)) {
    CHECK_LOAD_FAILS(&bench, 1, SY_ERR_FORMAT, model->folder, name, "is missing");
    CHECK_OK(sy_layer_load_checkpoint(bench.layer, bench.checkpoint, 0));
  }
  tear_down(&bench);
}

TEST(a_wrong_dtype_stops_loading) {
  struct bench bench;
  struct written_model *model = written_model_create(&sizes);
  struct written_tensor *tensor = written_expert(model, 0, 2, "down");
  tensor->dtype = "F16";
  if (set_up_spoilt(&bench, model)) {
    CHECK_LOAD_FAILS(&bench, 0, SY_ERR_FORMAT, "model.safetensors", tensor->name, "dtype is F16",
                     "expected BF16");
  }
  tear_down(&bench);
}

TEST(an_unknown_dtype_stops_loading) {
  struct bench bench;
  struct written_model *model = written_model_create(&sizes);
  struct written_tensor *tensor = written_expert(model, 0, 0, "gate");
  tensor->dtype = "I16";
  if (set_up_spoilt(&bench, model)) {
    CHECK_LOAD_FAILS(&bench, 0, SY_ERR_FORMAT, "model.safetensors", tensor->name,
                     "dtype is \"I16\"");
  }
  tear_down(&bench);
}

TEST(a_wrong_shape_stops_loading) {
  struct bench bench;
  struct written_model *model = written_model_create(&sizes);
  struct written_tensor *tensor = written_expert(model, 0, 1, "gate");
  tensor->shape[0] = sizes.hidden; /* transposed: as many bytes */
  tensor->shape[1] = sizes.intermediate;
  if (set_up_spoilt(&bench, model)) {
    CHECK_LOAD_FAILS(&bench, 0, SY_ERR_FORMAT, "model.safetensors", tensor->name,
                     "shape is [32, 16]", "expected [16, 32]");
  }
  tear_down(&bench);
}

TEST(a_wrong_number_of_dimensions_stops_loading) {
  struct bench bench;
  struct written_model *model = written_model_create(&sizes);
  struct written_tensor *tensor = written_expert(model, 0, 1, "down");
  tensor->num_dims = 8;
  memcpy(tensor->shape, (const int64_t[]){32, 16, 1, 1, 1, 1, 1, 1}, 8 * sizeof(int64_t));
  if (set_up_spoilt(&bench, model)) {
    CHECK_LOAD_FAILS(&bench, 0, SY_ERR_FORMAT, tensor->name, "shape is [32, 16, 1, 1, 1, 1, 1, 1]",
                     "expected [32, 16]");
  }
  tear_down(&bench);
}

TEST(a_config_that_contradicts_the_tensors_stops_loading) {
  static const struct {
    const char *key, *value;
    const char *parts[3];
  } cases[] = {
      {"hidden_size", "48", {"experts.0.gate_proj", "shape is [16, 32]", "expected [16, 48]"}},
      {"moe_intermediate_size", "32", {"experts.0.gate_proj", "is [16, 32]", "expected [32, 32]"}},
      {"num_experts", "4", {"experts.3.gate_proj", "is missing", ""}},
      {"num_experts", "2", {"config.json", "'num_experts' is 2", "experts.2."}},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct bench bench;
    struct written_model *model = written_model_create(&sizes);
    written_tensors_save(model, 1);
    written_config_save(model, cases[i].key, cases[i].value);
    if (set_up(&bench, model, SY_MODE_BF16)) {
      CHECK_LOAD_FAILS(&bench, 0, SY_ERR_FORMAT, model->folder, cases[i].parts[0],
                       cases[i].parts[1], cases[i].parts[2]);
    }
    tear_down(&bench);
  }
}

TEST(a_layer_that_contradicts_the_config_is_refused) {
  struct bench bench;
  if (set_up_spoilt(&bench, written_model_create(&sizes))) {
    sy_shape shape = bench.layer->model.shape;
    shape.expert_rank = shape.expert_local = NULL;
    sy_shape wrong[4] = {shape, shape, shape, shape};
    wrong[0].hidden = 48;
    wrong[1].intermediate = 32;
    wrong[2].num_experts = 2;
    wrong[3].activation = SY_ACTIVATION_GELU_TANH;
    static const char *const parts[4] = {
        "hidden is 48; expected 32", "intermediate is 32; expected 16",
        "num_experts is 2; expected 3", "activation is 2; expected 0"};
    for (int i = 0; i < 4; ++i) {
      sy_layer *layer = NULL;
      CHECK_OK(sy_layer_create(bench.group, &wrong[i], &layer));
      CHECK_FAILS(sy_layer_load_checkpoint(layer, bench.checkpoint, 0), bench.group,
                  SY_ERR_ARGUMENT, parts[i], "config.json");
      sy_layer_destroy(layer);
    }
  }
  tear_down(&bench);
}

TEST(a_layer_index_outside_the_model_is_refused) {
  struct bench bench;
  if (set_up_spoilt(&bench, written_model_create(&sizes))) {
    CHECK_LOAD_FAILS(&bench, -1, SY_ERR_ARGUMENT, "config.json", "layer -1; allowed: 0 to 1");
    CHECK_LOAD_FAILS(&bench, 2, SY_ERR_ARGUMENT, "config.json", "layer 2; allowed: 0 to 1");
  }
  tear_down(&bench);
}

TEST(a_dense_layer_is_refused) {
  static const struct {
    const char *key, *value;
    int dense, sparse;
  } cases[] = {{"decoder_sparse_step", "2", 0, 1}, {"mlp_only_layers", "[1]", 1, 0}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct bench bench;
    struct written_model *model = written_model_create(&sizes);
    written_tensors_save(model, 1);
    written_config_save(model, cases[i].key, cases[i].value);
    if (set_up(&bench, model, SY_MODE_BF16)) {
      CHECK_LOAD_FAILS(&bench, cases[i].dense, SY_ERR_ARGUMENT, "config.json", "is dense",
                       cases[i].key);
      CHECK_OK(sy_layer_load_checkpoint(bench.layer, bench.checkpoint, cases[i].sparse));
    }
    tear_down(&bench);
  }
}

/* Checking sees all experts, those of other ranks too, and reads nothing. */
TEST(a_layer_is_checked_without_reading) {
  struct bench bench;
  struct written_model *model = written_model_create(&sizes);
  const char *name = "model.layers.1.mlp.experts.2.up_proj.weight";
  written_tensor_drop(model, name);
  ((uint16_t *)written_expert(model, 0, 0, "up")->data)[0] = 0x7FC0; /* not finite */
  written_tensors_save(model, 1);
  written_config_save(model, "mlp_only_layers", "[]");
  if (set_up(&bench, model, SY_MODE_BF16)) {
    sy_layer_info info = SY_LAYER_INFO_INIT;
    reads = 0;
    CHECK_OK(sy_checkpoint_check_layer(bench.checkpoint, 0, &info));
    CHECK_EQ_I64(info.is_dense, 0);
    CHECK_EQ_STR(info.format, "bf16");
    CHECK_EQ_U64(info.expert_bytes, UINT64_C(2) * 3 * 3 * 32 * 16);
    CHECK_FAILS(sy_checkpoint_check_layer(bench.checkpoint, 1, &info), NULL, SY_ERR_FORMAT,
                model->folder, name, "is missing");
    CHECK_FAILS(sy_checkpoint_check_layer(bench.checkpoint, 2, &info), NULL, SY_ERR_ARGUMENT,
                "layer 2; allowed: 0 to 1");
    CHECK_FAILS(sy_checkpoint_check_layer(NULL, 0, &info), NULL, SY_ERR_ARGUMENT, "checkpoint is");
    info.struct_size = 0;
    CHECK_FAILS(sy_checkpoint_check_layer(bench.checkpoint, 0, &info), NULL, SY_ERR_ARGUMENT,
                "SY_LAYER_INFO_INIT");
    CHECK_EQ_I64(reads, 0);
  }
  tear_down(&bench);
}

TEST(a_dense_layer_is_no_error_to_check) {
  struct bench bench;
  struct written_model *model = written_model_create(&sizes);
  written_tensors_save(model, 1);
  written_config_save(model, "mlp_only_layers", "[1]");
  if (set_up(&bench, model, SY_MODE_BF16)) {
    sy_layer_info info = SY_LAYER_INFO_INIT;
    CHECK_OK(sy_checkpoint_check_layer(bench.checkpoint, 1, &info));
    CHECK_EQ_I64(info.is_dense, 1);
    CHECK(info.format == NULL);
    CHECK_EQ_U64(info.expert_bytes, 0);
  }
  tear_down(&bench);
}

TEST(handles_are_checked) {
  struct bench bench;
  if (set_up_spoilt(&bench, written_model_create(&sizes))) {
    CHECK_FAILS(sy_layer_load_checkpoint(NULL, bench.checkpoint, 0), NULL, SY_ERR_ARGUMENT,
                "layer is NULL");
    CHECK_FAILS(sy_layer_load_checkpoint(bench.layer, NULL, 0), bench.group, SY_ERR_ARGUMENT,
                "checkpoint is NULL");
    sy_checkpoint *tensors_only = NULL;
    CHECK_OK(sy_checkpoint_open(written_path(bench.model, "model.safetensors"), &tensors_only));
    CHECK_FAILS(sy_layer_load_checkpoint(bench.layer, tensors_only, 0), bench.group, SY_ERR_STATE,
                "model.safetensors", "config.json");
    sy_checkpoint_close(tensors_only);
  }
  tear_down(&bench);
}

TEST(a_weight_that_is_not_finite_is_named) {
  static const struct {
    const char *projection;
    uint16_t bits;
  } cases[] = {{"gate", 0x7FC0}, {"up", 0x7F80}, {"down", 0xFF80}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct bench bench;
    struct written_model *model = written_model_create(&sizes);
    struct written_tensor *tensor = written_expert(model, 1, 2, cases[i].projection);
    ((uint16_t *)tensor->data)[3 * tensor->shape[1] + 5] = cases[i].bits;
    if (set_up_spoilt(&bench, model)) {
      char place[32];
      snprintf(place, sizeof place, "%s[3, 5]", cases[i].projection);
      CHECK_FAILS(sy_layer_load_checkpoint(bench.layer, bench.checkpoint, 1), bench.group,
                  SY_ERR_ARGUMENT, "model.safetensors", tensor->name, "expert 2", place, "finite");
      CHECK(bench.layer->loaded[1] != 0 && bench.layer->loaded[2] == 0);
    }
    tear_down(&bench);
  }
}

/* ---- Files that change while open ---- */

TEST(a_file_cut_while_open_is_an_error) {
  struct bench bench;
  if (set_up_spoilt(&bench, written_model_create(&sizes))) {
    const char *path = written_path(bench.model, "model.safetensors");
    CHECK(truncate(path, 100) == 0);
    CHECK_LOAD_FAILS(&bench, 0, SY_ERR_IO, path, "tensor 'model.layers.0", "has changed while open",
                     "found 100 bytes", "expected");
  }
  tear_down(&bench);
}

/* As long as before, and still readable: only the time of writing tells. The clock of files is
 * coarse, so that the case sets the time itself. */
TEST(a_file_written_to_while_open_is_an_error) {
  struct bench bench;
  if (set_up_spoilt(&bench, written_model_create(&sizes))) {
    const char *path = written_path(bench.model, "model.safetensors");
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000, .tv_nsec = 7}};
    CHECK(utimensat(AT_FDCWD, path, times, 0) == 0);
    CHECK_LOAD_FAILS(&bench, 0, SY_ERR_IO, path, "tensor 'model.layers.0", "has changed while open",
                     "found it written to at 1000.000000007");
  }
  tear_down(&bench);
}

/* Downloads and converters write under another name and rename: who has the old file open keeps
 * reading it. */
TEST(a_file_replaced_while_open_is_read_as_it_was) {
  struct bench bench;
  if (set_up_spoilt(&bench, written_model_create(&sizes))) {
    char path[512];
    snprintf(path, sizeof path, "%s", written_path(bench.model, "model.safetensors"));
    written_file_save(bench.model, "other", "shorter", 7);
    CHECK(rename(written_path(bench.model, "other"), path) == 0);
    if (CHECK_OK(sy_layer_load_checkpoint(bench.layer, bench.checkpoint, 0))) {
      check_weights(&bench, 0);
    }
  }
  tear_down(&bench);
}

TEST(a_disk_that_fails_is_named) {
  struct bench bench;
  if (set_up_spoilt(&bench, written_model_create(&sizes))) {
    reading = READS_FAIL;
    CHECK_LOAD_FAILS(&bench, 0, SY_ERR_IO, "model.safetensors: tensor 'model.layers.0",
                     "cannot be read: Input/output error");
    reading = READS_WELL;
    CHECK_OK(sy_layer_load_checkpoint(bench.layer, bench.checkpoint, 0));
  }
  tear_down(&bench);
}

TEST(reads_in_pieces_are_put_together) {
  struct bench bench;
  if (set_up_spoilt(&bench, written_model_create(&sizes))) {
    reading = READS_IN_PIECES;
    if (CHECK_OK(sy_layer_load_checkpoint(bench.layer, bench.checkpoint, 0))) {
      CHECK(reads > 2 * 3 * sizes.experts);
      check_weights(&bench, 0);
    }
    reading = READS_WELL;
  }
  tear_down(&bench);
}

/* ---- The shipped checkpoint ---- */

static void check_shape(const sy_checkpoint *checkpoint, const char *name, int64_t rows,
                        int64_t columns) {
  sy_tensor tensor = SY_TENSOR_INIT;
  if (CHECK_OK(sy_checkpoint_tensor(checkpoint, name, &tensor))) {
    CHECK_EQ_I64(tensor.dtype, SY_TENSOR_BF16);
    CHECK_EQ_I64(tensor.num_dims, columns == 0 ? 1 : 2);
    CHECK_EQ_I64(tensor.shape[0], rows);
    CHECK_EQ_I64(tensor.shape[1], columns);
  }
}

TEST(the_shipped_checkpoint_loads) {
  sy_checkpoint *checkpoint = NULL;
  sy_model_info info = SY_MODEL_INFO_INIT;
  sy_group *group = NULL;
  sy_layer *layer = NULL;
  if (CHECK_OK(sy_checkpoint_open(SY_TINY_MOE, &checkpoint)) &&
      CHECK_OK(sy_checkpoint_model(checkpoint, &info))) {
    CHECK_EQ_STR(info.family, "qwen3_moe");
    CHECK_EQ_I64(info.num_layers, 4);
    CHECK_EQ_I64(info.shape.num_experts, 32);
    CHECK_EQ_I64(info.shape.top_k, 4);
    CHECK_EQ_U64(checkpoint->num_tensors, 423);
    check_shape(checkpoint, "model.embed_tokens.weight", 256, 256);
    check_shape(checkpoint, "model.norm.weight", 256, 0);
    check_shape(checkpoint, "model.layers.3.self_attn.k_proj.weight", 128, 256);
    check_shape(checkpoint, "model.layers.3.mlp.gate.weight", 32, 256);
    check_shape(checkpoint, "model.layers.0.mlp.experts.31.down_proj.weight", 256, 128);
    if (CHECK_OK(sy_group_create_local(NULL, &group)) &&
        CHECK_OK(sy_layer_create(group, &info.shape, &layer))) {
      for (int32_t layer_idx = 0; layer_idx < info.num_layers; ++layer_idx) {
        CHECK_OK(sy_layer_load_checkpoint(layer, checkpoint, layer_idx));
      }
    }
  }
  sy_layer_destroy(layer);
  sy_group_destroy(group);
  sy_checkpoint_close(checkpoint);
}

TEST(the_shipped_layer_opens) {
  static const struct {
    const char *name;
    sy_tensor_dtype dtype;
    int64_t columns;
  } tensors[] = {{"hidden", SY_TENSOR_BF16, 256},   {"ids", SY_TENSOR_I32, 4},
                 {"weights", SY_TENSOR_F32, 4},     {"out_bf16", SY_TENSOR_F64, 256},
                 {"out_w4a16", SY_TENSOR_F64, 256}, {"out_w4a4", SY_TENSOR_F64, 256}};
  sy_checkpoint *checkpoint = NULL;
  if (CHECK_OK(sy_checkpoint_open(SY_TINY_MOE "/layer0.safetensors", &checkpoint))) {
    for (size_t i = 0; i < sizeof tensors / sizeof tensors[0]; ++i) {
      sy_tensor tensor = SY_TENSOR_INIT;
      CHECK_OK(sy_checkpoint_tensor(checkpoint, tensors[i].name, &tensor));
      CHECK_EQ_I64(tensor.dtype, tensors[i].dtype);
      CHECK_EQ_I64(tensor.shape[0], 64);
      CHECK_EQ_I64(tensor.shape[1], tensors[i].columns);
    }
  }
  sy_checkpoint_close(checkpoint);
}
