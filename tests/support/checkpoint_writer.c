#include "tests/support/checkpoint_writer.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/support/random.h"

static void require(int held, const char *what) {
  if (!held) {
    perror(what);
    abort();
  }
}

static void *allocate(size_t bytes) {
  void *block = calloc(bytes > 0 ? bytes : 1, 1);
  require(block != NULL, "memory for a test's checkpoint");
  return block;
}

/* ---- Tensors ---- */

struct written_tensor *written_tensor_add(struct written_model *model, const char *name,
                                          const char *dtype, int num_dims, const int64_t *shape,
                                          size_t bytes, void *data) {
  if (model->num_tensors == model->capacity) {
    model->capacity = 2 * model->capacity + 16;
    model->tensors =
        realloc(model->tensors, (size_t)model->capacity * sizeof(struct written_tensor));
    require(model->tensors != NULL, "memory for a test's tensors");
  }
  struct written_tensor *tensor = &model->tensors[model->num_tensors++];
  *tensor = (struct written_tensor){.dtype = dtype,
                                    .num_dims = num_dims,
                                    .bytes = bytes,
                                    .data = data != NULL ? data : allocate(bytes)};
  snprintf(tensor->name, sizeof tensor->name, "%s", name);
  memcpy(tensor->shape, shape, (size_t)num_dims * sizeof *shape);
  return tensor;
}

struct written_tensor *written_tensor_find(struct written_model *model, const char *name) {
  for (int i = 0; i < model->num_tensors; ++i) {
    if (strcmp(model->tensors[i].name, name) == 0) {
      return &model->tensors[i];
    }
  }
  require(0, name);
  return NULL;
}

void written_tensor_drop(struct written_model *model, const char *name) {
  struct written_tensor *tensor = written_tensor_find(model, name);
  free(tensor->data);
  *tensor = model->tensors[--model->num_tensors];
}

static void expert_name(char name[96], int layer, int expert, const char *projection) {
  snprintf(name, 96, "model.layers.%d.mlp.experts.%d.%s_proj.weight", layer, expert, projection);
}

struct written_tensor *written_expert(struct written_model *model, int layer, int expert,
                                      const char *projection) {
  char name[96];
  expert_name(name, layer, expert, projection);
  return written_tensor_find(model, name);
}

/* BF16 is the upper half of an f32: cutting the lower half off gives a valid value. */
static void add_weight(struct written_model *model, const char *name, int64_t rows,
                       int64_t columns) {
  const size_t count = (size_t)(rows * columns);
  uint16_t *values = allocate(count * sizeof *values);
  struct random_stream random = random_stream_make(1, "weig", model->num_tensors);
  for (size_t i = 0; i < count; ++i) {
    const float value = (float)random_normal(&random);
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    values[i] = (uint16_t)(bits >> 16);
  }
  const int64_t shape[] = {rows, columns};
  written_tensor_add(model, name, "BF16", 2, shape, count * sizeof *values, values);
}

struct written_model *written_model_create(const struct written_sizes *sizes) {
  struct written_model *model = allocate(sizeof *model);
  model->sizes = *sizes;
  snprintf(model->folder, sizeof model->folder, "/tmp/switchyard-test-XXXXXX");
  require(mkdtemp(model->folder) != NULL, model->folder);
  for (int layer = 0; layer < sizes->layers; ++layer) {
    for (int expert = 0; expert < sizes->experts; ++expert) {
      char name[96];
      expert_name(name, layer, expert, "gate");
      add_weight(model, name, sizes->intermediate, sizes->hidden);
      expert_name(name, layer, expert, "up");
      add_weight(model, name, sizes->intermediate, sizes->hidden);
      expert_name(name, layer, expert, "down");
      add_weight(model, name, sizes->hidden, sizes->intermediate);
    }
  }
  return model;
}

void written_model_destroy(struct written_model *model) {
  DIR *folder = opendir(model->folder);
  require(folder != NULL, model->folder);
  for (struct dirent *file; (file = readdir(folder)) != NULL;) {
    if (strcmp(file->d_name, ".") != 0 && strcmp(file->d_name, "..") != 0) {
      unlink(written_path(model, file->d_name));
    }
  }
  closedir(folder);
  rmdir(model->folder);
  for (int i = 0; i < model->num_tensors; ++i) {
    free(model->tensors[i].data);
  }
  free(model->tensors);
  free(model);
}

/* ---- Files ---- */

const char *written_path(const struct written_model *model, const char *name) {
  static char path[512];
  snprintf(path, sizeof path, "%s%s%s", model->folder, name == NULL ? "" : "/",
           name == NULL ? "" : name);
  return path;
}

char *written_text(const char *begin, char fill, size_t count, const char *end) {
  const size_t begin_bytes = strlen(begin);
  const size_t bytes = begin_bytes + count + strlen(end) + 1;
  char *text = allocate(bytes);
  snprintf(text, bytes, "%s", begin);
  memset(text + begin_bytes, fill, count);
  snprintf(text + begin_bytes + count, bytes - begin_bytes - count, "%s", end);
  return text;
}

static FILE *create(const struct written_model *model, const char *name) {
  FILE *file = fopen(written_path(model, name), "wb");
  require(file != NULL, written_path(model, name));
  return file;
}

static void finish(FILE *file) { require(fclose(file) == 0, "closing a test's file"); }

static void put(FILE *file, const void *bytes, size_t num_bytes) {
  require(fwrite(bytes, 1, num_bytes, file) == num_bytes, "writing a test's file");
}

static void put_header(FILE *file, const char *header, size_t header_bytes) {
  unsigned char length[8];
  for (int i = 0; i < 8; ++i) {
    length[i] = (unsigned char)((uint64_t)header_bytes >> (8 * i));
  }
  put(file, length, sizeof length);
  put(file, header, header_bytes);
}

void written_file_save(const struct written_model *model, const char *name, const void *bytes,
                       size_t num_bytes) {
  FILE *file = create(model, name);
  put(file, bytes, num_bytes);
  finish(file);
}

void written_header_save(const struct written_model *model, const char *name, const char *header,
                         size_t data_bytes) {
  void *zeros = allocate(data_bytes);
  FILE *file = create(model, name);
  put_header(file, header, strlen(header));
  put(file, zeros, data_bytes);
  finish(file);
  free(zeros);
}

static void print_tensor(FILE *header, const struct written_tensor *tensor, size_t begin) {
  fprintf(header, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", tensor->name, tensor->dtype);
  for (int d = 0; d < tensor->num_dims; ++d) {
    fprintf(header, "%s%" PRId64, d == 0 ? "" : ",", tensor->shape[d]);
  }
  fprintf(header, "],\"data_offsets\":[%zu,%zu]}", begin, begin + tensor->bytes);
}

static void save_shard(const struct written_model *model, const char *name, int shard,
                       int num_shards) {
  char *header = NULL;
  size_t header_bytes = 0;
  size_t data_bytes = 0;
  FILE *text = open_memstream(&header, &header_bytes);
  require(text != NULL, "memory for a test's header");
  /* A string that looks like structure. */
  fprintf(text, "{\"__metadata__\":{\"format\":\"pt\",\"note\":\"\\\"}]{{[[\\\\\"}");
  for (int i = shard; i < model->num_tensors; i += num_shards) {
    print_tensor(text, &model->tensors[i], data_bytes);
    data_bytes += model->tensors[i].bytes;
  }
  fprintf(text, "}");
  fflush(text);
  for (size_t end = header_bytes; end % 8 != (size_t)model->odd_header; ++end) {
    fputc(' ', text);
  }
  finish(text);
  FILE *file = create(model, name);
  put_header(file, header, header_bytes);
  for (int i = shard; i < model->num_tensors; i += num_shards) {
    put(file, model->tensors[i].data, model->tensors[i].bytes);
  }
  finish(file);
  free(header);
}

static void shard_name(char name[64], int shard, int num_shards) {
  snprintf(name, 64, "model-%05d-of-%05d.safetensors", shard + 1, num_shards);
}

static void save_index(const struct written_model *model, int num_shards) {
  FILE *index = create(model, "model.safetensors.index.json");
  fprintf(index, "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
  for (int i = 0; i < model->num_tensors; ++i) {
    char name[64];
    shard_name(name, i % num_shards, num_shards);
    fprintf(index, "%s\"%s\":\"%s\"", i == 0 ? "" : ",", model->tensors[i].name, name);
  }
  fprintf(index, "}}");
  finish(index);
}

void written_tensors_save(const struct written_model *model, int num_shards) {
  if (num_shards == 1) {
    save_shard(model, "model.safetensors", 0, 1);
    return;
  }
  for (int shard = 0; shard < num_shards; ++shard) {
    char name[64];
    shard_name(name, shard, num_shards);
    save_shard(model, name, shard, num_shards);
  }
  save_index(model, num_shards);
}

void written_config_save(const struct written_model *model, const char *edit_key,
                         const char *edit_value) {
  const struct {
    const char *key;
    const char *text; /* NULL: the number */
    int number;
  } lines[] = {
      {"model_type", "\"qwen3_moe\"", 0},
      {"num_hidden_layers", NULL, model->sizes.layers},
      {"hidden_size", NULL, model->sizes.hidden},
      {"moe_intermediate_size", NULL, model->sizes.intermediate},
      {"num_experts", NULL, model->sizes.experts},
      {"num_experts_per_tok", NULL, model->sizes.top_k},
      {"hidden_act", "\"silu\"", 0},
      {"decoder_sparse_step", "1", 0},
      {"mlp_only_layers", "[]", 0},
      {"norm_topk_prob", "true", 0},
      {"rms_norm_eps", "1e-06", 0},
  };
  FILE *file = create(model, "config.json");
  int found = edit_key == NULL;
  fprintf(file, "{\"rope_scaling\":{\"nested\":[[1],null]}");
  for (size_t i = 0; i < sizeof lines / sizeof lines[0]; ++i) {
    const int edited = edit_key != NULL && strcmp(lines[i].key, edit_key) == 0;
    found |= edited;
    if (edited && edit_value == NULL) {
      continue;
    }
    fprintf(file, ",\"%s\":", lines[i].key);
    if (edited || lines[i].text != NULL) {
      fprintf(file, "%s", edited ? edit_value : lines[i].text);
    } else {
      fprintf(file, "%d", lines[i].number);
    }
  }
  if (!found && edit_value != NULL) {
    fprintf(file, ",\"%s\":%s", edit_key, edit_value);
  }
  fprintf(file, "}");
  finish(file);
}

void written_model_save(const struct written_model *model, int num_shards) {
  written_config_save(model, NULL, NULL);
  written_tensors_save(model, num_shards);
}
