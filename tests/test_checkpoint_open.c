/* Opening checkpoints and finding tensors, and what is said when that fails. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/checkpoint/checkpoint.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"

static const struct written_sizes sizes = {
    .layers = 2, .hidden = 32, .intermediate = 16, .experts = 3, .top_k = 2};

/* A checkpoint that must not open leaves nothing behind but its sentence. */
#define CHECK_REFUSED(path, status, ...)                                         \
  do {                                                                           \
    sy_checkpoint *refused_ = NULL;                                              \
    CHECK_FAILS(sy_checkpoint_open(path, &refused_), NULL, status, __VA_ARGS__); \
    CHECK(refused_ == NULL);                                                     \
  } while (0)

/* ---- What is right ---- */

/* The whole tensor, and a part of it. */
static void check_bytes(const sy_checkpoint *checkpoint, const struct written_tensor *written) {
  char *buffer = malloc(written->bytes);
  const size_t offset = written->bytes / 3;
  if (CHECK_OK(sy_checkpoint_read(checkpoint, written->name, 0, buffer, written->bytes))) {
    CHECK_EQ_BYTES(buffer, written->data, written->bytes);
  }
  if (CHECK_OK(sy_checkpoint_read(checkpoint, written->name, offset, buffer, 7))) {
    CHECK_EQ_BYTES(buffer, (const char *)written->data + offset, 7);
  }
  free(buffer);
}

static void check_all_tensors(const struct written_model *model, const sy_checkpoint *checkpoint) {
  for (int i = 0; i < model->num_tensors; ++i) {
    const struct written_tensor *written = &model->tensors[i];
    sy_tensor found = SY_TENSOR_INIT;
    if (!CHECK_OK(sy_checkpoint_tensor(checkpoint, written->name, &found))) {
      continue;
    }
    CHECK_EQ_U64(found.struct_size, sizeof found);
    CHECK_EQ_I64(found.dtype, SY_TENSOR_BF16);
    CHECK_EQ_I64(found.num_dims, 2);
    CHECK_EQ_I64(found.shape[0], written->shape[0]);
    CHECK_EQ_I64(found.shape[1], written->shape[1]);
    if (CHECK_EQ_U64(found.bytes, written->bytes)) {
      check_bytes(checkpoint, written);
    }
  }
}

static void check_model(const sy_checkpoint *checkpoint) {
  sy_model_info info = SY_MODEL_INFO_INIT;
  if (!CHECK_OK(sy_checkpoint_model(checkpoint, &info))) {
    return;
  }
  CHECK_EQ_STR(info.family, "qwen3_moe");
  CHECK_EQ_I64(info.num_layers, sizes.layers);
  CHECK_EQ_I64(info.shape.hidden, sizes.hidden);
  CHECK_EQ_I64(info.shape.intermediate, sizes.intermediate);
  CHECK_EQ_I64(info.shape.num_experts, sizes.experts);
  CHECK_EQ_I64(info.shape.top_k, sizes.top_k);
  CHECK_EQ_I64(info.shape.mode, SY_MODE_BF16);
  CHECK_EQ_I64(info.shape.activation, SY_ACTIVATION_SWIGLU);
  CHECK_EQ_U64(info.shape.struct_size, sizeof info.shape);
}

TEST(one_file_opens) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 1);
  sy_checkpoint *checkpoint = NULL;
  if (CHECK_OK(sy_checkpoint_open(written_path(model, NULL), &checkpoint))) {
    check_model(checkpoint);
    check_all_tensors(model, checkpoint);
  }
  sy_checkpoint_close(checkpoint);
  written_model_destroy(model);
}

TEST(shards_open_once_each) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 4);
  sy_checkpoint *checkpoint = NULL;
  if (CHECK_OK(sy_checkpoint_open(written_path(model, NULL), &checkpoint))) {
    CHECK_EQ_U64(checkpoint->num_files, 4);
    CHECK_EQ_U64(checkpoint->num_tensors, (uint64_t)model->num_tensors);
    check_model(checkpoint);
    check_all_tensors(model, checkpoint);
  }
  sy_checkpoint_close(checkpoint);
  written_model_destroy(model);
}

TEST(a_file_alone_has_tensors_but_no_model) {
  struct written_model *model = written_model_create(&sizes);
  written_tensors_save(model, 1);
  const char *path = written_path(model, "model.safetensors");
  sy_checkpoint *checkpoint = NULL;
  if (CHECK_OK(sy_checkpoint_open(path, &checkpoint))) {
    check_all_tensors(model, checkpoint);
    sy_model_info info = SY_MODEL_INFO_INIT;
    double number = -1.0;
    CHECK_FAILS(sy_checkpoint_model(checkpoint, &info), NULL, SY_ERR_STATE, path, "config.json");
    CHECK_FAILS(sy_checkpoint_number(checkpoint, "hidden_size", &number), NULL, SY_ERR_STATE,
                "config.json");
    CHECK_EQ_I64(info.num_layers, 0);
    CHECK_NEAR(number, -1.0, 0.0);
  }
  sy_checkpoint_close(checkpoint);
  written_model_destroy(model);
}

TEST(numbers_of_the_config) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 1);
  sy_checkpoint *checkpoint = NULL;
  if (CHECK_OK(sy_checkpoint_open(written_path(model, NULL), &checkpoint))) {
    double number = NAN;
    CHECK_OK(sy_checkpoint_number(checkpoint, "hidden_size", &number));
    CHECK_NEAR(number, sizes.hidden, 0.0);
    CHECK_OK(sy_checkpoint_number(checkpoint, "rms_norm_eps", &number));
    CHECK_NEAR(number, 1e-6, 0.0);
    CHECK_OK(sy_checkpoint_number(checkpoint, "norm_topk_prob", &number));
    CHECK_NEAR(number, 1.0, 0.0);
    CHECK_FAILS(sy_checkpoint_number(checkpoint, "hidden_act", &number), NULL, SY_ERR_FORMAT,
                "config.json", "'hidden_act'", "\"silu\"", "expected a number");
    CHECK_FAILS(sy_checkpoint_number(checkpoint, "nothing", &number), NULL, SY_ERR_FORMAT,
                "config.json", "'nothing' is missing", "expected a number");
    CHECK_NEAR(number, 1.0, 0.0);
  }
  sy_checkpoint_close(checkpoint);
  written_model_destroy(model);
}

/* Reading ends with the tensor, and refuses what would wrap around. */
static void check_read_arguments(const sy_checkpoint *checkpoint,
                                 const struct written_tensor *tensor) {
  char byte = 0;
  const struct {
    size_t offset, bytes;
  } beyond[] = {{tensor->bytes, 1}, {tensor->bytes + 1, 0}, {1, SIZE_MAX}, {SIZE_MAX, 1}};
  for (size_t i = 0; i < sizeof beyond / sizeof beyond[0]; ++i) {
    CHECK_FAILS(
        sy_checkpoint_read(checkpoint, tensor->name, beyond[i].offset, &byte, beyond[i].bytes),
        NULL, SY_ERR_ARGUMENT, "model.safetensors", tensor->name, "asked for; it has 1024");
  }
  CHECK_OK(sy_checkpoint_read(checkpoint, tensor->name, tensor->bytes, &byte, 0));
  CHECK_FAILS(sy_checkpoint_read(NULL, "x", 0, &byte, 1), NULL, SY_ERR_ARGUMENT, "checkpoint is");
  CHECK_FAILS(sy_checkpoint_read(checkpoint, NULL, 0, &byte, 1), NULL, SY_ERR_ARGUMENT, "name is");
  CHECK_FAILS(sy_checkpoint_read(checkpoint, "x", 0, NULL, 1), NULL, SY_ERR_ARGUMENT, "buffer is");
  CHECK_FAILS(sy_checkpoint_read(checkpoint, "x", 0, &byte, 1), NULL, SY_ERR_FORMAT,
              "'x' is missing");
}

TEST(arguments_are_checked) {
  sy_checkpoint *checkpoint = NULL;
  sy_tensor tensor = SY_TENSOR_INIT;
  sy_model_info info = SY_MODEL_INFO_INIT;
  double number;
  CHECK_FAILS(sy_checkpoint_open(NULL, &checkpoint), NULL, SY_ERR_ARGUMENT, "path is NULL");
  CHECK_FAILS(sy_checkpoint_open("x", NULL), NULL, SY_ERR_ARGUMENT, "checkpoint_out is NULL");
  CHECK_FAILS(sy_checkpoint_tensor(NULL, "x", &tensor), NULL, SY_ERR_ARGUMENT, "checkpoint is");
  CHECK_FAILS(sy_checkpoint_model(NULL, &info), NULL, SY_ERR_ARGUMENT, "checkpoint is NULL");
  CHECK_FAILS(sy_checkpoint_number(NULL, "x", &number), NULL, SY_ERR_ARGUMENT, "checkpoint is");
  sy_checkpoint_close(NULL);
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 1);
  if (CHECK_OK(sy_checkpoint_open(written_path(model, NULL), &checkpoint))) {
    tensor.struct_size = 0;
    info.struct_size = 0;
    CHECK_FAILS(sy_checkpoint_tensor(checkpoint, model->tensors[0].name, &tensor), NULL,
                SY_ERR_ARGUMENT, "SY_TENSOR_INIT");
    CHECK_FAILS(sy_checkpoint_model(checkpoint, &info), NULL, SY_ERR_ARGUMENT,
                "SY_MODEL_INFO_INIT");
    check_read_arguments(checkpoint, &model->tensors[0]);
  }
  sy_checkpoint_close(checkpoint);
  written_model_destroy(model);
}

TEST(every_dtype_is_known) {
  struct written_model *model = written_model_create(&(struct written_sizes){0});
  const struct {
    const char *name;
    sy_tensor_dtype dtype;
    size_t bytes;
  } dtypes[] = {{"BF16", SY_TENSOR_BF16, 2}, {"F16", SY_TENSOR_F16, 2},
                {"F32", SY_TENSOR_F32, 4},   {"F64", SY_TENSOR_F64, 8},
                {"I32", SY_TENSOR_I32, 4},   {"I64", SY_TENSOR_I64, 8},
                {"U8", SY_TENSOR_U8, 1},     {"F8_E4M3", SY_TENSOR_F8_E4M3, 1}};
  const size_t count = sizeof dtypes / sizeof dtypes[0];
  const int64_t shape[] = {3, 1, 2};
  for (size_t i = 0; i < count; ++i) {
    written_tensor_add(model, dtypes[i].name, dtypes[i].name, 3, shape, 6 * dtypes[i].bytes, NULL);
  }
  written_tensor_add(model, "scalar", "F32", 0, shape, 4, NULL);
  written_tensor_add(model, "empty", "F32", 2, (const int64_t[]){0, 7}, 0, NULL);
  written_tensors_save(model, 1);
  sy_checkpoint *checkpoint = NULL;
  if (CHECK_OK(sy_checkpoint_open(written_path(model, "model.safetensors"), &checkpoint))) {
    sy_tensor tensor = SY_TENSOR_INIT;
    for (size_t i = 0; i < count; ++i) {
      CHECK_OK(sy_checkpoint_tensor(checkpoint, dtypes[i].name, &tensor));
      CHECK_EQ_I64(tensor.dtype, dtypes[i].dtype);
      CHECK_EQ_I64(tensor.num_dims, 3);
      CHECK_EQ_I64(tensor.shape[2], 2);
      CHECK_EQ_U64(tensor.bytes, 6 * dtypes[i].bytes);
    }
    CHECK_OK(sy_checkpoint_tensor(checkpoint, "scalar", &tensor));
    CHECK_EQ_I64(tensor.num_dims, 0);
    CHECK_OK(sy_checkpoint_tensor(checkpoint, "empty", &tensor));
    CHECK_EQ_U64(tensor.bytes, 0);
  }
  sy_checkpoint_close(checkpoint);
  written_model_destroy(model);
}

TEST(an_unknown_dtype_fails_when_asked_for) {
  struct written_model *model = written_model_create(&sizes);
  struct written_tensor *tensor = written_expert(model, 0, 1, "up");
  tensor->dtype = "F4_X\\u001b";
  written_model_save(model, 1);
  sy_checkpoint *checkpoint = NULL;
  if (CHECK_OK(sy_checkpoint_open(written_path(model, NULL), &checkpoint))) {
    sy_tensor found = SY_TENSOR_INIT;
    CHECK_FAILS(sy_checkpoint_tensor(checkpoint, tensor->name, &found), NULL, SY_ERR_FORMAT,
                "model.safetensors", tensor->name, "\"F4_X?\"", "not known");
    CHECK_EQ_U64(found.bytes, 0);
    CHECK_OK(sy_checkpoint_tensor(checkpoint, written_expert(model, 0, 2, "up")->name, &found));
  }
  sy_checkpoint_close(checkpoint);
  written_model_destroy(model);
}

TEST(a_missing_tensor_is_named) {
  struct written_model *model = written_model_create(&sizes);
  written_model_save(model, 2);
  sy_checkpoint *checkpoint = NULL;
  if (CHECK_OK(sy_checkpoint_open(written_path(model, NULL), &checkpoint))) {
    sy_tensor found = SY_TENSOR_INIT;
    CHECK_FAILS(sy_checkpoint_tensor(checkpoint, "model.norm.weight", &found), NULL, SY_ERR_FORMAT,
                model->folder, "'model.norm.weight' is missing", "18 others");
    CHECK_EQ_U64(found.bytes, 0);
  }
  sy_checkpoint_close(checkpoint);
  written_model_destroy(model);
}

/* ---- The header of a file ---- */

struct bad_header {
  const char *header;
  size_t data_bytes;
  const char *parts[3];
};

static const struct bad_header bad_headers[] = {
    {"", 0, {"header: invalid JSON"}},
    {"{", 0, {"header: invalid JSON"}},
    {"[]", 0, {"header: '[' at byte 0; expected '{'"}},
    {"7", 0, {"header: invalid JSON"}},
    {"{\"a\":\"unfinished", 0, {"invalid JSON"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}} x", 1, {"invalid JSON"}},
    {"{\"a\":{\"dtype\":\"\xff\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1, {"invalid JSON"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
     0,
     {"invalid JSON", "duplicate object key", "\"a\""}},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
     0,
     {"invalid JSON", "duplicate object key", "\"dtype\""}},
    {"{\"a\":{\"shape\":[[1]]}}", 0, {"'[' at byte 15 nests deeper than 3 levels"}},
    {"{\"a\":{\"shape\":{}}}", 0, {"'{' at byte 14; expected '[' at level 3"}},
    {"{\"a\":[1]}", 0, {"'[' at byte 5; expected '{' at level 2"}},
    {"{\"a\":\"b\"}", 0, {"tensor 'a'", "is \"b\"", "expected an object"}},
    {"{\"a\":{\"shape\":[0],\"data_offsets\":[0,0]}}", 0, {"tensor 'a'", "'dtype' is missing"}},
    {"{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,0]}}", 0, {"tensor 'a'", "'shape' is missing"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[0]}}", 0, {"tensor 'a'", "'data_offsets' is missing"}},
    {"{\"a\":{\"dtype\":8,\"shape\":[0],\"data_offsets\":[0,0]}}",
     0,
     {"tensor 'a'", "'dtype' is 8", "expected a string"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":8,\"data_offsets\":[0,8]}}",
     8,
     {"tensor 'a'", "'shape' is 8", "expected an array"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,0]}}",
     0,
     {"tensor 'a'", "'shape' is -1", "expected an integer in [0,"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1.5],\"data_offsets\":[0,1]}}",
     1,
     {"tensor 'a'", "'shape' is 1.5", "expected an integer"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,1]}}",
     1,
     {"invalid JSON", "too big integer"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]}}",
     1,
     {"tensor 'a'", "9 dimensions", "at most 8"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}",
     0,
     {"tensor 'a'", "product of 'shape'", "64 bits"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4294967296,4294967296,1],\"data_offsets\":[0,0]}}",
     0,
     {"tensor 'a'", "product of 'shape'", "64 bits"}},
    {"{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}",
     0,
     {"tensor 'a'", "product of 'shape'", "64 bits"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1]}}",
     1,
     {"tensor 'a'", "'data_offsets' has 1 numbers", "expected 2"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]}}",
     1,
     {"tensor 'a'", "'data_offsets' has 3 numbers", "expected 2"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,1]}}",
     2,
     {"tensor 'a'", "'data_offsets' is 1", "expected an integer in [2,"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]}}",
     1,
     {"tensor 'a'", "'data_offsets' is -1", "expected an integer in [0,"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]}}",
     8,
     {"tensor 'a'", "'data_offsets' end at 9", "expected at most 8"}},
    {"{\"a\":{\"dtype\":\"?\",\"shape\":[9],\"data_offsets\":[0,9223372036854775807]}}",
     8,
     {"tensor 'a'", "'data_offsets' end at 9223372036854775807", "expected at most 8"}},
    {"{\"a\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[0,7]}}",
     7,
     {"tensor 'a'", "'data_offsets' span 7 bytes", "expected 8 from 'shape' and BF16"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[5],\"data_offsets\":[3,8]}}",
     8,
     {"tensor 'b'", "begins at 3, inside a tensor before it", "expected 4"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
     4,
     {"begins at 0, inside a tensor before it", "expected 4"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[5,8]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
     8,
     {"tensor 'a'", "begins at 5", "expected 4"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[4,8]}}",
     8,
     {"tensor 'a'", "begins at 4", "expected 0"}},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}",
     8,
     {"has 8 bytes of data", "expected 4"}},
    {"{\"\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
     0,
     {"name has 0 bytes", "allowed: 1 to 255"}},
    {"{\"a\\u0007b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
     0,
     {"control character 0x07 at byte 1"}},
    {"{\"a\xc2\x9b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}",
     0,
     {"control character 0xc2 at byte 1"}},
};

TEST(a_bad_header_is_refused) {
  struct written_model *model = written_model_create(&(struct written_sizes){0});
  for (size_t i = 0; i < sizeof bad_headers / sizeof bad_headers[0]; ++i) {
    const struct bad_header *bad = &bad_headers[i];
    written_header_save(model, "bad.safetensors", bad->header, bad->data_bytes);
    const char *path = written_path(model, "bad.safetensors");
    for (size_t part = 0; part < 3 && bad->parts[part] != NULL; ++part) {
      CHECK_REFUSED(path, SY_ERR_FORMAT, "bad.safetensors", bad->parts[part]);
    }
  }
  written_model_destroy(model);
}

static void check_filled_header(const struct written_model *model, const char *begin, char fill,
                                size_t count, const char *end, const char *part) {
  char *header = written_text(begin, fill, count, end);
  written_header_save(model, "bad.safetensors", header, 0);
  CHECK_REFUSED(written_path(model, "bad.safetensors"), SY_ERR_FORMAT, "bad.safetensors", part);
  free(header);
}

TEST(a_deep_or_long_header_is_refused) {
  struct written_model *model = written_model_create(&(struct written_sizes){0});
  const char *rest = "\":{\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}";
  check_filled_header(model, "{\"a\":{\"shape\":", '[', 1000000, "", "deeper than 3 levels");
  check_filled_header(model, "", '{', 1000000, "", "'{' at byte 2; expected '[' at level 3");
  check_filled_header(model, "{\"", 'n', 256, rest, "name has 256 bytes; allowed: 1 to 255");
  check_filled_header(model, "{\"", 'n', 1000000, rest, "name has 1000000 bytes");
  written_model_destroy(model);
}

/* ---- The file around the header ---- */

static void check_length_refused(const struct written_model *model, uint64_t length,
                                 size_t file_bytes, const char *part) {
  unsigned char bytes[8];
  for (int i = 0; i < 8; ++i) {
    bytes[i] = (unsigned char)(length >> (8 * i));
  }
  written_file_save(model, "bad.safetensors", bytes, file_bytes < 8 ? file_bytes : 8);
  const char *path = written_path(model, "bad.safetensors");
  CHECK(truncate(path, (off_t)file_bytes) == 0); /* what follows is a hole: takes no disk */
  char number[32];
  snprintf(number, sizeof number, "%llu", (unsigned long long)length);
  CHECK_REFUSED(path, SY_ERR_FORMAT, "bad.safetensors", part, file_bytes < 8 ? "" : number);
}

TEST(an_absurd_header_length_is_refused) {
  struct written_model *model = written_model_create(&(struct written_sizes){0});
  check_length_refused(model, 0, 0, "has 0 bytes; expected at least the 8");
  check_length_refused(model, 0, 7, "has 7 bytes; expected at least the 8");
  check_length_refused(model, 1, 8, "expected at most 0");
  check_length_refused(model, 93, 100, "expected at most 92");
  check_length_refused(model, UINT64_MAX, 100, "expected at most 92");
  check_length_refused(model, (uint64_t)1 << 63, 100, "expected at most 92");
  check_length_refused(model, SY_SAFETENSORS_MAX_HEADER_BYTES + 1, (size_t)1 << 36,
                       "allowed: at most 33554432");
  written_model_destroy(model);
}

TEST(a_file_cut_anywhere_is_refused) {
  struct written_model *model = written_model_create(
      &(struct written_sizes){.layers = 1, .hidden = 16, .intermediate = 16, .experts = 1});
  written_tensors_save(model, 1);
  const char *path = written_path(model, "model.safetensors");
  struct stat info;
  CHECK(stat(path, &info) == 0);
  for (off_t bytes = info.st_size - 1; bytes >= 0; --bytes) {
    CHECK(truncate(path, bytes) == 0);
    CHECK_REFUSED(path, SY_ERR_FORMAT, "model.safetensors", "expected");
  }
  written_model_destroy(model);
}

TEST(what_is_no_file_is_refused) {
  struct written_model *model = written_model_create(&sizes);
  char path[600];
  snprintf(path, sizeof path, "%s", written_path(model, "nowhere"));
  CHECK_REFUSED(path, SY_ERR_IO, path, "No such file");
  CHECK_REFUSED(written_path(model, NULL), SY_ERR_IO, "config.json", "No such file");
  CHECK_REFUSED("/dev/zero", SY_ERR_IO, "/dev/zero", "expected a regular file");
  snprintf(path, sizeof path, "%s", written_path(model, "pipe"));
  CHECK(mkfifo(path, 0600) == 0);
  CHECK_REFUSED(path, SY_ERR_IO, path, "pipe", "expected a regular file"); /* and does not wait */
  written_config_save(model, NULL, NULL);
  CHECK_REFUSED(model->folder, SY_ERR_IO, model->folder, "has no weights",
                "expected model.safetensors or model.safetensors.index.json");
  snprintf(path, sizeof path, "%s", written_path(model, "model.safetensors"));
  CHECK(mkdir(path, 0700) == 0);
  CHECK_REFUSED(model->folder, SY_ERR_IO, path, "is a directory", "expected a regular file");
  rmdir(path);
  written_model_destroy(model);
}

TEST(a_long_path_keeps_its_end) {
  char *path = written_text("/", 'p', 3000, "/end.safetensors");
  CHECK_REFUSED(path, SY_ERR_IO, "pp/end.safetensors: cannot be opened", "File name too long");
  free(path);
}

/* Whatever a damaged file says, opening ends, and every tensor found lies within the file. */
TEST(random_damage_is_survived) {
  struct written_model *model = written_model_create(
      &(struct written_sizes){.layers = 1, .hidden = 16, .intermediate = 16, .experts = 2});
  written_tensors_save(model, 1);
  FILE *file = fopen(written_path(model, "model.safetensors"), "rb");
  unsigned char good[8192];
  const size_t bytes = file == NULL ? 0 : fread(good, 1, sizeof good, file);
  CHECK(file != NULL && fclose(file) == 0);
  CHECK(bytes > 2000 && bytes < sizeof good);
  static const char alphabet[] = "{}[]\",:0123456789-.eE\\u nltrfas\n";
  for (int round = 0; round < 300; ++round) {
    unsigned char bad[sizeof good];
    memcpy(bad, good, bytes);
    for (int64_t edits = sy_test_random_between(1, 4); edits > 0; --edits) {
      const int64_t at = sy_test_random_between(0, 700);
      bad[at] = at < 8 ? (unsigned char)sy_test_random()
                       : (unsigned char)alphabet[sy_test_random_between(0, sizeof alphabet - 2)];
    }
    written_file_save(model, "bad.safetensors", bad, bytes);
    sy_checkpoint *checkpoint = NULL;
    if (sy_checkpoint_open(written_path(model, "bad.safetensors"), &checkpoint) != SY_OK) {
      CHECK_STR_HAS(sy_last_error(NULL), "bad.safetensors");
      CHECK(checkpoint == NULL);
      continue;
    }
    for (size_t i = 0; i < checkpoint->num_tensors; ++i) {
      const struct sy_safetensors_entry *entry = checkpoint->tensors[i].entry;
      CHECK(entry->begin <= bytes && entry->tensor.bytes <= bytes - entry->begin);
    }
    sy_checkpoint_close(checkpoint);
  }
  written_model_destroy(model);
}
