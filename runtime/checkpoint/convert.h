/* A conversion: experts become FP4, everything else is copied. The files of convert*.c share this.
 *
 * A shard holds the tensors of one layer, or those of no layer; its bytes depend on the checkpoint
 * and the format alone, so that any rank may write it. While a conversion runs, the folder holds
 *
 *   convert.unfinished.json    what is converted: a run resumes only what is the same
 *   model-....safetensors....writing   begun; after an interruption worthless, and removed
 *   model-....safetensors.ready     whole
 *
 * and at its end the shards get their names, then come the index and, last, config.json, without
 * which no reader takes the folder for a checkpoint. */
#ifndef SY_RUNTIME_CHECKPOINT_CONVERT_H
#define SY_RUNTIME_CHECKPOINT_CONVERT_H

#include "runtime/checkpoint/checkpoint.h"

#define SY_CONVERT_MANIFEST "convert.unfinished.json"
#define SY_CONVERT_READY ".ready"

/* What becomes of a tensor; >= 0: expert * SY_NUM_PROJECTIONS + projection, whose weights become FP4. */
enum { SY_FATE_COPIED = -1, SY_FATE_DROPPED = -2 };

enum sy_convert_part { SY_PART_COPY, SY_PART_CODES, SY_PART_SCALES, SY_PART_GLOBAL };

/* A tensor of the output. */
struct sy_convert_tensor {
  char name[SY_TENSOR_NAME_BYTES];
  enum sy_convert_part part;
  const struct sy_checkpoint_tensor *source; /* copied, or quantised */
  sy_tensor_dtype dtype;
  int32_t num_dims;
  int64_t shape[SY_TENSOR_MAX_DIMS];
  size_t bytes;
  size_t begin; /* in the shard's data */
};

/* The tensors of one shard, in the order of the file. */
struct sy_convert_list {
  struct sy_convert_tensor *tensors;
  size_t count;
  size_t data_bytes;
};

struct sy_convert {
  const sy_checkpoint *checkpoint;
  char *folder;
  sy_format format;
  int32_t num_shards;
  int32_t *shard_layer;  /* [num_shards] its layer; num_layers: what is of no layer */
  int32_t *tensor_layer; /* [checkpoint->num_tensors] */
  int32_t *fate;         /* [checkpoint->num_tensors] */
  int manifest_fd;       /* locked by the rank that began; -1 */
};

/* To be released with sy_free(list.tensors). */
sy_status sy_convert_list_shard(const sy_convert *convert, int32_t shard,
                                struct sy_convert_list *list_out);

/* "folder/model-00001-of-00005.safetensors" and a suffix; to be freed with sy_free. */
sy_status sy_convert_shard_path(const sy_convert *convert, int32_t shard, const char *suffix,
                                char **path_out);

/* Whether the shard is written already, under either name. */
sy_status sy_convert_shard_is_ready(const sy_convert *convert, int32_t shard, bool *ready_out);

#endif
