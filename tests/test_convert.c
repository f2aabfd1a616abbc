/* Converting a checkpoint: the codes that loading would make, and a folder that is either whole or
 * clearly not. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kernels/fp4.h"
#include "runtime/checkpoint/checkpoint.h"
#include "runtime/internal.h"
#include "tests/support/checkpoint_writer.h"
#include "tests/support/failure.h"
#include "tests/support/harness.h"

static const struct written_sizes sizes = {
    .layers = 3, .hidden = 64, .intermediate = 32, .experts = 3, .top_k = 2};

/* ---- The disk: the linker leads the library's calls here ---- */

static size_t disk_bytes = SIZE_MAX; /* that can still be written */
static size_t written_bytes;
static bool sync_fails;

ssize_t __real_pwrite(int fd, const void *buffer, size_t bytes, off_t offset);
ssize_t __wrap_pwrite(int fd, const void *buffer, size_t bytes, off_t offset);
int __real_fsync(int fd);
int __wrap_fsync(int fd);

ssize_t __wrap_pwrite(int fd, const void *buffer, size_t bytes, off_t offset) {
  const size_t most = bytes < disk_bytes ? bytes : disk_bytes;
  if (most == 0 && bytes > 0) {
    errno = ENOSPC;
    return -1;
  }
  disk_bytes -= disk_bytes == SIZE_MAX ? 0 : most;
  written_bytes += most;
  return __real_pwrite(fd, buffer, most, offset);
}

int __wrap_fsync(int fd) {
  if (sync_fails) {
    errno = EIO;
    return -1;
  }
  return __real_fsync(fd);
}

/* ---- A checkpoint, and a folder beside it ---- */

struct bench {
  struct written_model *in;
  struct written_model *out; /* no tensors: its folder alone */
  sy_checkpoint *checkpoint;
};

/* Tensors that are copied: of a layer, of none, of a shape without dimensions. */
static void add_others(struct written_model *model) {
  const int64_t gate[] = {3, 64};
  const int64_t norm[] = {64};
  struct written_tensor *added[] = {
      written_tensor_add(model, "model.layers.1.mlp.gate.weight", "BF16", 2, gate, 384, NULL),
      written_tensor_add(model, "model.norm.weight", "F32", 1, norm, 256, NULL),
      written_tensor_add(model, "model.scalar", "I64", 0, norm, 8, NULL)};
  for (int i = 0; i < 3; ++i) {
    memset(added[i]->data, 17 * (i + 1), added[i]->bytes);
  }
}

static bool set_up(struct bench *bench, struct written_model *in) {
  *bench = (struct bench){.in = in, .out = written_model_create(&(struct written_sizes){0})};
  add_others(in);
  written_model_save(in, 2);
  written_file_save(in, "tokenizer.json", "{}", 2);
  return CHECK_OK(sy_checkpoint_open(in->folder, &bench->checkpoint));
}

static void tear_down(struct bench *bench) {
  sy_checkpoint_close(bench->checkpoint);
  written_model_destroy(bench->in);
  written_model_destroy(bench->out);
}

/* How many files of the output folder end so; "/" begins a name. */
static int count_files(const struct bench *bench, const char *end) {
  int count = 0;
  DIR *folder = opendir(bench->out->folder);
  for (struct dirent *entry; (entry = readdir(folder)) != NULL;) {
    char name[300];
    const int bytes = snprintf(name, sizeof name, "/%s", entry->d_name);
    const int skipped = bytes - (int)strlen(end);
    count += entry->d_name[0] != '.' && skipped >= 0 && strcmp(name + skipped, end) == 0;
  }
  closedir(folder);
  return count;
}

/* Nobody may take the folder for a checkpoint. */
static void check_unfinished(const struct bench *bench) {
  CHECK_EQ_I64(count_files(bench, "/config.json"), 0);
  CHECK_EQ_I64(count_files(bench, ".safetensors"), 0);
  CHECK_EQ_I64(count_files(bench, ".writing"), 0);
}

/* All of it; last_first: in the opposite order. */
static bool convert_all(const struct bench *bench, sy_format format, bool last_first) {
  sy_convert *convert = NULL;
  bool held =
      CHECK_OK(sy_convert_create(bench->checkpoint, bench->out->folder, format, &convert)) &&
      CHECK_OK(sy_convert_begin(convert));
  const int32_t count = sy_convert_num_shards(convert);
  for (int32_t i = 0; i < count && held; ++i) {
    held = CHECK_OK(sy_convert_shard(convert, last_first ? count - 1 - i : i, NULL, NULL));
  }
  held = held && CHECK_OK(sy_convert_finish(convert));
  sy_convert_destroy(convert);
  return held;
}

/* ---- What is written ---- */

static void *read_tensor(const sy_checkpoint *checkpoint, const char *name, sy_tensor_dtype dtype,
                         size_t bytes) {
  sy_tensor tensor = SY_TENSOR_INIT;
  void *data = calloc(1, bytes);
  if (CHECK_OK(sy_checkpoint_tensor(checkpoint, name, &tensor)) &&
      CHECK_EQ_I64(tensor.dtype, dtype) && CHECK_EQ_U64(tensor.bytes, bytes)) {
    CHECK_OK(sy_checkpoint_read(checkpoint, name, 0, data, bytes));
  }
  return data;
}

static void check_part(const sy_checkpoint *out, const struct written_tensor *written,
                       const char *suffix, sy_tensor_dtype dtype, const void *expected,
                       size_t bytes) {
  char name[160];
  snprintf(name, sizeof name, "%.*s%s", (int)(strlen(written->name) - strlen(".weight")),
           written->name, suffix);
  void *found = read_tensor(out, name, dtype, bytes);
  CHECK_EQ_BYTES(found, expected, bytes);
  free(found);
}

/* The quantiser's codes, of the whole matrix at once. */
static void check_matrix(const sy_checkpoint *out, const struct written_tensor *written,
                         sy_format format) {
  const int64_t count = written->shape[0] * written->shape[1];
  const size_t bytes = (size_t)count;
  float *values = malloc(bytes * sizeof *values);
  uint8_t *codes = malloc(bytes / 2);
  uint8_t *scales = malloc(bytes / 16);
  for (int64_t i = 0; i < count; ++i) {
    values[i] = sy_bf16_to_f32(((const uint16_t *)written->data)[i]);
  }
  if (format == SY_FORMAT_MXFP4) {
    sy_mxfp4_quantise(values, count, codes, scales);
    check_part(out, written, ".weight_packed", SY_TENSOR_U8, codes, bytes / 2);
    check_part(out, written, ".weight_scale", SY_TENSOR_U8, scales, bytes / 32);
  } else {
    const float global = sy_nvfp4_quantise(values, count, codes, scales);
    check_part(out, written, ".weight", SY_TENSOR_U8, codes, bytes / 2);
    check_part(out, written, ".weight_scale", SY_TENSOR_F8_E4M3, scales, bytes / 16);
    check_part(out, written, ".weight_scale_2", SY_TENSOR_F32, &global, sizeof global);
  }
  free(values);
  free(codes);
  free(scales);
}

static void check_format(sy_format format) {
  struct bench bench;
  sy_checkpoint *out = NULL;
  if (set_up(&bench, written_model_create(&sizes)) && convert_all(&bench, format, false) &&
      CHECK_OK(sy_checkpoint_open(bench.out->folder, &out))) {
    for (int i = 0; i < bench.in->num_tensors; ++i) {
      const struct written_tensor *written = &bench.in->tensors[i];
      if (strstr(written->name, ".experts.") != NULL) {
        check_matrix(out, written, format);
        continue;
      }
      const sy_tensor_dtype dtype = strcmp(written->dtype, "BF16") == 0  ? SY_TENSOR_BF16
                                    : strcmp(written->dtype, "F32") == 0 ? SY_TENSOR_F32
                                                                         : SY_TENSOR_I64;
      void *found = read_tensor(out, written->name, dtype, written->bytes);
      CHECK_EQ_BYTES(found, written->data, written->bytes);
      free(found);
    }
    CHECK_EQ_I64(count_files(&bench, "tokenizer.json"), 1);
    CHECK_EQ_I64(count_files(&bench, ".ready"), 0);
    CHECK_EQ_I64(count_files(&bench, "unfinished.json"), 0);
    CHECK_EQ_I64(count_files(&bench, ".safetensors"), 4); /* three layers, and what is of none */
  }
  sy_checkpoint_close(out);
  tear_down(&bench);
}

TEST(nvfp4_codes_are_the_quantisers) { check_format(SY_FORMAT_NVFP4); }

TEST(mxfp4_codes_are_the_quantisers) { check_format(SY_FORMAT_MXFP4); }

static char *read_file(const char *path, size_t *bytes_out) {
  struct stat info = {0};
  FILE *file = fopen(path, "rb");
  CHECK(file != NULL && stat(path, &info) == 0);
  char *text = calloc((size_t)info.st_size + 1, 1);
  CHECK(file != NULL && fread(text, 1, (size_t)info.st_size, file) == (size_t)info.st_size);
  fclose(file);
  *bytes_out = (size_t)info.st_size;
  return text;
}

static void check_same_file(const struct bench *a, const struct bench *b, const char *name) {
  size_t a_bytes = 0;
  size_t b_bytes = 0;
  char *a_text = read_file(written_path(a->out, name), &a_bytes);
  char *b_text = read_file(written_path(b->out, name), &b_bytes);
  if (CHECK_EQ_U64(a_bytes, b_bytes)) {
    CHECK_EQ_BYTES(a_text, b_text, a_bytes);
  }
  free(a_text);
  free(b_text);
}

static const char *const files[] = {"model-00001-of-00004.safetensors",
                                    "model-00003-of-00004.safetensors",
                                    "model-00004-of-00004.safetensors",
                                    "model.safetensors.index.json",
                                    "hf_quant_config.json",
                                    "config.json"};

static void check_same(const struct bench *a, const struct bench *b) {
  for (size_t i = 0; i < sizeof files / sizeof files[0]; ++i) {
    check_same_file(a, b, files[i]);
  }
}

TEST(the_order_of_shards_changes_no_byte) {
  struct bench forth, back;
  if (set_up(&forth, written_model_create(&sizes)) && set_up(&back, written_model_create(&sizes)) &&
      convert_all(&forth, SY_FORMAT_NVFP4, false) && convert_all(&back, SY_FORMAT_NVFP4, true)) {
    check_same(&forth, &back);
  }
  tear_down(&forth);
  tear_down(&back);
}

/* ---- Interruptions ---- */

/* Begins, writes the first shards, and stops there. */
static void begin_only(const struct bench *bench, sy_format format, int32_t num_shards) {
  sy_convert *convert = NULL;
  if (CHECK_OK(sy_convert_create(bench->checkpoint, bench->out->folder, format, &convert)) &&
      CHECK_OK(sy_convert_begin(convert))) {
    for (int32_t shard = 0; shard < num_shards; ++shard) {
      CHECK_OK(sy_convert_shard(convert, shard, NULL, NULL));
    }
  }
  sy_convert_destroy(convert);
}

TEST(an_interrupted_run_is_taken_up) {
  struct bench whole, broken;
  if (set_up(&whole, written_model_create(&sizes)) &&
      set_up(&broken, written_model_create(&sizes)) &&
      convert_all(&whole, SY_FORMAT_NVFP4, false)) {
    struct stat before, after;
    begin_only(&broken, SY_FORMAT_NVFP4, 1);
    check_unfinished(&broken);
    written_file_save(broken.out, "model-00002-of-00004.safetensors.1-2.writing", "half", 4);
    CHECK(stat(written_path(broken.out, "model-00001-of-00004.safetensors.ready"), &before) == 0);
    if (convert_all(&broken, SY_FORMAT_NVFP4, false)) {
      check_same(&whole, &broken);
      CHECK_EQ_I64(count_files(&broken, ".writing"), 0);
      CHECK(stat(written_path(broken.out, "model-00001-of-00004.safetensors"), &after) == 0);
      CHECK(before.st_ino == after.st_ino && before.st_mtim.tv_nsec == after.st_mtim.tv_nsec);
    }
  }
  tear_down(&whole);
  tear_down(&broken);
}

/* Between the first new name and the last. */
TEST(a_run_interrupted_at_its_end_is_taken_up) {
  struct bench bench;
  if (set_up(&bench, written_model_create(&sizes))) {
    begin_only(&bench, SY_FORMAT_NVFP4, 4);
    char ready[512];
    snprintf(ready, sizeof ready, "%s",
             written_path(bench.out, "model-00001-of-00004.safetensors.ready"));
    CHECK(rename(ready, written_path(bench.out, "model-00001-of-00004.safetensors")) == 0);
    convert_all(&bench, SY_FORMAT_NVFP4, false);
    CHECK_EQ_I64(count_files(&bench, ".safetensors"), 4);
    CHECK_EQ_I64(count_files(&bench, ".ready"), 0);
  }
  tear_down(&bench);
}

static void check_begin_fails(const struct bench *bench, sy_format format, const char *part) {
  sy_convert *convert = NULL;
  if (CHECK_OK(sy_convert_create(bench->checkpoint, bench->out->folder, format, &convert))) {
    CHECK_FAILS(sy_convert_begin(convert), NULL, SY_ERR_STATE, bench->out->folder, part);
  }
  sy_convert_destroy(convert);
}

TEST(a_folder_with_something_else_is_refused) {
  struct bench bench;
  if (set_up(&bench, written_model_create(&sizes))) {
    begin_only(&bench, SY_FORMAT_NVFP4, 0);
    check_begin_fails(&bench, SY_FORMAT_MXFP4, "unfinished conversion of another checkpoint");
    convert_all(&bench, SY_FORMAT_NVFP4, false);
    check_begin_fails(&bench, SY_FORMAT_NVFP4, "holds a checkpoint already");
    CHECK(unlink(written_path(bench.out, "config.json")) == 0);
    check_begin_fails(&bench, SY_FORMAT_NVFP4, "is not empty");
  }
  tear_down(&bench);
}

TEST(a_changed_checkpoint_is_not_taken_up) {
  struct bench bench;
  if (set_up(&bench, written_model_create(&sizes))) {
    begin_only(&bench, SY_FORMAT_NVFP4, 1);
    const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT}, {.tv_sec = 1000}};
    CHECK(utimensat(AT_FDCWD, written_path(bench.in, "model-00001-of-00002.safetensors"), times,
                    0) == 0);
    sy_checkpoint_close(bench.checkpoint);
    bench.checkpoint = NULL;
    if (CHECK_OK(sy_checkpoint_open(bench.in->folder, &bench.checkpoint))) {
      check_begin_fails(&bench, SY_FORMAT_NVFP4, "unfinished conversion of another checkpoint");
    }
  }
  tear_down(&bench);
}

TEST(two_conversions_into_one_folder_are_refused) {
  struct bench bench;
  sy_convert *first = NULL;
  if (set_up(&bench, written_model_create(&sizes)) &&
      CHECK_OK(sy_convert_create(bench.checkpoint, bench.out->folder, SY_FORMAT_NVFP4, &first)) &&
      CHECK_OK(sy_convert_begin(first))) {
    check_begin_fails(&bench, SY_FORMAT_NVFP4, "another conversion is writing here");
  }
  sy_convert_destroy(first);
  convert_all(&bench, SY_FORMAT_NVFP4, false);
  tear_down(&bench);
}

TEST(finishing_early_is_an_error) {
  struct bench bench;
  sy_convert *convert = NULL;
  if (set_up(&bench, written_model_create(&sizes)) &&
      CHECK_OK(sy_convert_create(bench.checkpoint, bench.out->folder, SY_FORMAT_NVFP4, &convert))) {
    CHECK_FAILS(sy_convert_finish(convert), NULL, SY_ERR_STATE, "sy_convert_begin");
    CHECK_OK(sy_convert_begin(convert));
    CHECK_FAILS(sy_convert_finish(convert), NULL, SY_ERR_IO, "model-00001-of-00004.safetensors",
                "No such file");
    check_unfinished(&bench);
  }
  sy_convert_destroy(convert);
  tear_down(&bench);
}

/* ---- What goes wrong ---- */

/* Wherever the disk ends, nothing half is left, and with room it goes on. */
TEST(a_full_disk_leaves_nothing_half) {
  struct bench bench;
  size_t needed = 0;
  if (set_up(&bench, written_model_create(&sizes))) {
    begin_only(&bench, SY_FORMAT_NVFP4, 0);
    written_bytes = 0;
    convert_all(&bench, SY_FORMAT_NVFP4, false);
    needed = written_bytes;
  }
  tear_down(&bench);
  const size_t rooms[] = {0, 1, 500, needed / 4, needed / 2, needed - 5000, needed - 1};
  for (size_t i = 0; i < sizeof rooms / sizeof rooms[0]; ++i) {
    sy_convert *convert = NULL;
    if (set_up(&bench, written_model_create(&sizes)) &&
        CHECK_OK(
            sy_convert_create(bench.checkpoint, bench.out->folder, SY_FORMAT_NVFP4, &convert)) &&
        CHECK_OK(sy_convert_begin(convert))) {
      sy_status status = SY_OK;
      disk_bytes = rooms[i];
      for (int32_t shard = 0; shard < 4 && status == SY_OK; ++shard) {
        status = sy_convert_shard(convert, shard, NULL, NULL);
      }
      status = status == SY_OK ? sy_convert_finish(convert) : status;
      disk_bytes = SIZE_MAX;
      CHECK_EQ_I64(status, SY_ERR_IO);
      CHECK_STR_HAS(sy_last_error(NULL), bench.out->folder);
      CHECK_STR_HAS(sy_last_error(NULL), "No space left on device");
      CHECK_EQ_I64(count_files(&bench, "/config.json"), 0);
      CHECK_EQ_I64(count_files(&bench, ".writing"), 0);
    }
    sy_convert_destroy(convert);
    convert_all(&bench, SY_FORMAT_NVFP4, false);
    tear_down(&bench);
  }
}

TEST(a_file_that_does_not_reach_the_disk_is_an_error) {
  struct bench bench;
  sy_convert *convert = NULL;
  if (set_up(&bench, written_model_create(&sizes)) &&
      CHECK_OK(sy_convert_create(bench.checkpoint, bench.out->folder, SY_FORMAT_NVFP4, &convert)) &&
      CHECK_OK(sy_convert_begin(convert))) {
    sync_fails = true;
    CHECK_FAILS(sy_convert_shard(convert, 0, NULL, NULL), NULL, SY_ERR_IO,
                "model-00001-of-00004.safetensors", "cannot be brought to the disk");
    sync_fails = false;
    check_unfinished(&bench);
  }
  sy_convert_destroy(convert);
  tear_down(&bench);
}

TEST(a_value_that_is_not_finite_is_named) {
  struct bench bench;
  sy_convert *convert = NULL;
  struct written_model *in = written_model_create(&sizes);
  struct written_tensor *tensor = written_expert(in, 1, 2, "up");
  ((uint16_t *)tensor->data)[3 * 64 + 5] = 0x7F80;
  if (set_up(&bench, in) &&
      CHECK_OK(sy_convert_create(bench.checkpoint, bench.out->folder, SY_FORMAT_MXFP4, &convert)) &&
      CHECK_OK(sy_convert_begin(convert))) {
    CHECK_OK(sy_convert_shard(convert, 0, NULL, NULL));
    CHECK_FAILS(sy_convert_shard(convert, 1, NULL, NULL), NULL, SY_ERR_FORMAT, tensor->name,
                "[3, 5] is inf", "expected a finite value");
    check_unfinished(&bench);
  }
  sy_convert_destroy(convert);
  tear_down(&bench);
}

TEST(what_cannot_be_converted_is_refused) {
  struct written_sizes narrow = sizes;
  narrow.intermediate = 48;
  struct bench bench;
  sy_convert *convert = NULL;
  if (set_up(&bench, written_model_create(&narrow))) {
    const char *out = bench.out->folder;
    CHECK_FAILS(sy_convert_create(bench.checkpoint, out, SY_FORMAT_MXFP4, &convert), NULL,
                SY_ERR_UNSUPPORTED, "config.json", "intermediate 48", "multiples of 32");
    CHECK_FAILS(sy_convert_create(NULL, out, SY_FORMAT_MXFP4, &convert), NULL, SY_ERR_ARGUMENT,
                "checkpoint is NULL");
    CHECK_FAILS(sy_convert_create(bench.checkpoint, out, (sy_format)7, &convert), NULL,
                SY_ERR_ARGUMENT, "format is 7");
    CHECK(convert == NULL);
  }
  tear_down(&bench);
  struct written_model *in = written_model_create(&sizes);
  written_tensor_drop(in, "model.layers.2.mlp.experts.1.down_proj.weight");
  if (set_up(&bench, in)) {
    CHECK_FAILS(sy_convert_create(bench.checkpoint, bench.out->folder, SY_FORMAT_NVFP4, &convert),
                NULL, SY_ERR_FORMAT, "model.layers.2.mlp.experts.1.down_proj.weight", "is missing");
  }
  tear_down(&bench);
}

/* ---- What is read again ---- */

/* Weights begin as zeros, so that padding, which nobody writes, compares equal. */
static sy_layer *load_layer(sy_group *group, const char *folder, sy_format format,
                            int32_t layer_idx) {
  sy_checkpoint *checkpoint = NULL;
  sy_model_info info = SY_MODEL_INFO_INIT;
  sy_layer *layer = NULL;
  if (CHECK_OK(sy_checkpoint_open(folder, &checkpoint)) &&
      CHECK_OK(sy_checkpoint_model(checkpoint, &info))) {
    info.shape.mode = SY_MODE_W4A4;
    info.shape.format = format;
    if (CHECK_OK(sy_layer_create(group, &info.shape, &layer))) {
      memset(layer->weights, 0, sy_layer_weight_bytes(layer));
      CHECK_OK(sy_layer_load_checkpoint(layer, checkpoint, layer_idx));
    }
  }
  sy_checkpoint_close(checkpoint);
  return layer;
}

/* The prepacked bytes of a layer that quantises at load, and of one that loads codes. */
static void check_same_bits(const char *family, const char *storage, sy_format format) {
  struct written_sizes stored = sizes;
  stored.family = family;
  stored.storage = storage;
  struct bench bench;
  sy_group *group = NULL;
  if (set_up(&bench, written_model_create(&stored)) && convert_all(&bench, format, false) &&
      CHECK_OK(sy_group_create_local(NULL, &group))) {
    for (int32_t i = 0; i < sizes.layers; ++i) {
      sy_layer *quantised = load_layer(group, bench.in->folder, format, i);
      sy_layer *converted = load_layer(group, bench.out->folder, format, i);
      if (CHECK(quantised != NULL && converted != NULL)) {
        CHECK_EQ_BYTES(converted->weights, quantised->weights, sy_layer_weight_bytes(quantised));
      }
      sy_layer_destroy(quantised);
      sy_layer_destroy(converted);
    }
  }
  sy_group_destroy(group);
  tear_down(&bench);
}

TEST(a_converted_checkpoint_loads_with_the_same_bits) {
  static const struct {
    const char *family, *storage;
  } cases[] = {{"qwen3_moe", "bf16"}, {"qwen3_moe", "f16"}, {"qwen3_moe", "f32"},
               {"qwen3_moe", "fp8"},  {"mixtral", "bf16"},  {"deepseek_v3", "fp8"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    check_same_bits(cases[i].family, cases[i].storage, SY_FORMAT_NVFP4);
    check_same_bits(cases[i].family, cases[i].storage, SY_FORMAT_MXFP4);
  }
}

TEST(fp4_is_not_quantised_again) {
  static const struct {
    const char *family, *storage, *format;
  } cases[] = {{"qwen3_moe", "modelopt", "nvfp4"},
               {"qwen3_moe", "nvfp4-pack", "nvfp4"},
               {"qwen3_moe", "mxfp4-pack", "mxfp4"},
               {"gpt_oss", "gpt-oss", "mxfp4"}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    struct written_sizes stored = sizes;
    stored.family = cases[i].family;
    stored.storage = cases[i].storage;
    struct bench bench;
    sy_convert *convert = NULL;
    if (set_up(&bench, written_model_create(&stored))) {
      CHECK_FAILS(sy_convert_create(bench.checkpoint, bench.out->folder, SY_FORMAT_NVFP4, &convert),
                  NULL, SY_ERR_UNSUPPORTED, bench.in->folder, cases[i].format, "already");
    }
    tear_down(&bench);
  }
}
