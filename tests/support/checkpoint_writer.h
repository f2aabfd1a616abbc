/* Checkpoints for tests: a list of tensors that a case may spoil, then files in a temporary folder.
 *
 *   struct written_model *model = written_model_create(&(struct written_sizes){...});
 *   written_tensor_find(model, "...")->dtype = "F16";
 *   written_model_save(model, 1);
 *   ... written_path(model, NULL) ...
 *   written_model_destroy(model);
 *
 * Names and layout are written here from the formats' descriptions, not taken from the library.
 * Failures of the disk end the test program. */
#ifndef SY_TESTS_SUPPORT_CHECKPOINT_WRITER_H
#define SY_TESTS_SUPPORT_CHECKPOINT_WRITER_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/switchyard.h"

#define WRITTEN_MAX_DIMS 9

struct written_tensor {
  char name[96];
  const char *dtype;
  int num_dims;
  int64_t shape[WRITTEN_MAX_DIMS];
  size_t bytes;
  void *data;
};

struct written_sizes {
  int layers, hidden, intermediate, experts, top_k;
  const char *family;  /* NULL: "qwen3_moe" */
  const char *storage; /* NULL: "bf16"; "f16", "f32", "fp8", "modelopt", "nvfp4-pack", "mxfp4-pack",
                          "gpt-oss" */
  int dense_layers;    /* the first ones have no experts */
};

struct written_model {
  struct written_sizes sizes;
  char folder[64];
  int num_tensors;
  int capacity;
  struct written_tensor *tensors;
  sy_expert_weights *weights; /* [layers, experts] what the experts' tensors mean */
  void **owned;
  int num_owned;
  int odd_header; /* 1: a header of odd length, so that data begins at an odd address */
};

/* The experts of a model, with values that differ everywhere, in memory; its folder is made, and
 * empty. */
struct written_model *written_model_create(const struct written_sizes *sizes);

/* Removes the folder too. */
void written_model_destroy(struct written_model *model);

/* Takes data, which is then freed with the model; NULL: zeros. */
struct written_tensor *written_tensor_add(struct written_model *model, const char *name,
                                          const char *dtype, int num_dims, const int64_t *shape,
                                          size_t bytes, void *data);
struct written_tensor *written_tensor_find(struct written_model *model, const char *name);
void written_tensor_drop(struct written_model *model, const char *name);

/* Of checkpoint_model.c: all experts' tensors, and what they mean; the beginning of a name. */
void written_model_fill(struct written_model *model);
void written_expert_stem(const struct written_model *model, int layer, int expert,
                         const char *projection, char stem[96]);

/* The ".weight" of gate, up or down of an expert. */
struct written_tensor *written_expert(struct written_model *model, int layer, int expert,
                                      const char *projection);

/* "folder/name", or the folder itself for NULL; valid until the next call. */
const char *written_path(const struct written_model *model, const char *name);

/* config.json of the sizes, with one key set to this JSON text, or left out for NULL. An unknown
 * key is added. edit_key NULL: as it is. */
void written_config_save(const struct written_model *model, const char *edit_key,
                         const char *edit_value);

/* The tensors: one file, or num_shards files (tensor i in shard i modulo num_shards)
 * and an index. */
void written_tensors_save(const struct written_model *model, int num_shards);

/* Both. */
void written_model_save(const struct written_model *model, int num_shards);

/* Any bytes as a file; and a safetensors file of a header text and zeros as data. */
void written_file_save(const struct written_model *model, const char *name, const void *bytes,
                       size_t num_bytes);
void written_header_save(const struct written_model *model, const char *name, const char *header,
                         size_t data_bytes);

/* `begin`, `count` times `fill`, and `end`; to be freed. */
char *written_text(const char *begin, char fill, size_t count, const char *end);

#endif
