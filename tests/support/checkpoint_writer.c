#include "tests/support/checkpoint_writer.h"

#include <dirent.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

struct written_tensor *written_expert(struct written_model *model, int layer, int expert,
                                      const char *projection) {
  char stem[96];
  char name[112];
  written_expert_stem(model, layer, expert, projection, stem);
  snprintf(name, sizeof name, "%s.weight", stem);
  return written_tensor_find(model, name);
}

struct written_model *written_model_create(const struct written_sizes *sizes) {
  struct written_model *model = allocate(sizeof *model);
  model->sizes = *sizes;
  model->sizes.family = sizes->family != NULL ? sizes->family : "qwen3_moe";
  model->sizes.storage = sizes->storage != NULL ? sizes->storage : "bf16";
  snprintf(model->folder, sizeof model->folder, "/tmp/switchyard-test-XXXXXX");
  require(mkdtemp(model->folder) != NULL, model->folder);
  written_model_fill(model);
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
  for (int i = 0; i < model->num_owned; ++i) {
    free(model->owned[i]);
  }
  free(model->owned);
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

/* config.json as these models have it, but for what no MoE layer needs. */
#define NUMBER(field) NULL, offsetof(struct written_sizes, field)
static const struct {
  const char *families; /* that have the key, by their first letters */
  const char *key;
  const char *text; /* NULL: the number */
  size_t number;
} config_lines[] = {
    {"d", "model_type", "\"deepseek_v3\"", 0},
    {"g", "model_type", "\"gpt_oss\"", 0},
    {"m", "model_type", "\"mixtral\"", 0},
    {"q", "model_type", "\"qwen3_moe\"", 0},
    {"dgmq", "num_hidden_layers", NUMBER(layers)},
    {"dgmq", "hidden_size", NUMBER(hidden)},
    {"gm", "intermediate_size", NUMBER(intermediate)},
    {"dq", "intermediate_size", "7168", 0}, /* of dense layers */
    {"dq", "moe_intermediate_size", NUMBER(intermediate)},
    {"q", "num_experts", NUMBER(experts)},
    {"gm", "num_local_experts", NUMBER(experts)},
    {"d", "n_routed_experts", NUMBER(experts)},
    {"dgmq", "num_experts_per_tok", NUMBER(top_k)},
    {"g", "experts_per_token", NUMBER(top_k)},
    {"dgmq", "hidden_act", "\"silu\"", 0},
    {"q", "decoder_sparse_step", "1", 0},
    {"q", "mlp_only_layers", "[]", 0},
    {"d", "first_k_dense_replace", NUMBER(dense_layers)},
    {"d", "moe_layer_freq", "1", 0},
    {"d", "n_shared_experts", "1", 0},
    {"d", "n_group", "8", 0},
    {"d", "topk_group", "4", 0},
    {"d", "num_nextn_predict_layers", "1", 0},
    {"d", "scoring_func", "\"sigmoid\"", 0},
    {"d", "routed_scaling_factor", "2.5", 0},
    {"d", "quantization_config",
     "{\"activation_scheme\":\"dynamic\",\"fmt\":\"e4m3\",\"quant_method\":\"fp8\","
     "\"weight_block_size\":[128,128]}",
     0},
    {"g", "swiglu_limit", "7.0", 0},
    {"g", "quantization_config",
     "{\"modules_to_not_convert\":[\"lm_head\"],\"quant_method\":\"mxfp4\"}", 0},
    {"m", "router_aux_loss_coef", "0.02", 0},
    {"m", "sliding_window", "null", 0},
    {"dq", "norm_topk_prob", "true", 0},
    {"dgmq", "rms_norm_eps", "1e-06", 0},
};
#undef NUMBER

void written_config_save(const struct written_model *model, const char *edit_key,
                         const char *edit_value) {
  FILE *file = create(model, "config.json");
  int found = edit_key == NULL;
  fprintf(file, "{\"rope_scaling\":{\"nested\":[[1],null]}");
  for (size_t i = 0; i < sizeof config_lines / sizeof config_lines[0]; ++i) {
    const char *key = config_lines[i].key;
    const int edited = edit_key != NULL && strcmp(key, edit_key) == 0;
    if (strchr(config_lines[i].families, model->sizes.family[0]) == NULL) {
      continue;
    }
    found |= edited;
    if (edited && edit_value == NULL) {
      continue;
    }
    fprintf(file, ",\"%s\":", key);
    if (edited || config_lines[i].text != NULL) {
      fprintf(file, "%s", edited ? edit_value : config_lines[i].text);
    } else {
      int number;
      memcpy(&number, (const char *)&model->sizes + config_lines[i].number, sizeof number);
      fprintf(file, "%d", number);
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
