/* Checkpoints in the Hugging Face layout: config.json, and safetensors in one file or in shards
 * with an index. Bytes are read when they are asked for, not before; a file that changes while open,
 * or cannot be read, is an error and never a signal. Needs no group: every rank opens the checkpoint by itself and touches its own experts only. */
#ifndef SWITCHYARD_CHECKPOINT_H
#define SWITCHYARD_CHECKPOINT_H

#include "switchyard.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct sy_checkpoint sy_checkpoint;

typedef enum sy_tensor_dtype {
  SY_TENSOR_BF16 = 0,
  SY_TENSOR_F16 = 1,
  SY_TENSOR_F32 = 2,
  SY_TENSOR_F64 = 3,
  SY_TENSOR_I32 = 4,
  SY_TENSOR_I64 = 5,
  SY_TENSOR_U8 = 6,
  SY_TENSOR_F8_E4M3 = 7,
} sy_tensor_dtype;

#define SY_TENSOR_MAX_DIMS 8

typedef struct sy_tensor {
  size_t struct_size;
  sy_tensor_dtype dtype;
  int32_t num_dims;
  int64_t shape[SY_TENSOR_MAX_DIMS];
  size_t bytes; /* product of shape * size of dtype */
} sy_tensor;
#define SY_TENSOR_INIT \
  { .struct_size = sizeof(sy_tensor) }

/* The part of config.json that an MoE layer needs. The rest is read with sy_checkpoint_number. */
typedef struct sy_model_info {
  size_t struct_size;
  const char *family; /* "deepseek_v3", "gpt_oss", "mixtral" or "qwen3_moe" */
  int32_t num_layers;
  sy_shape shape; /* hidden, intermediate, num_experts, top_k, activation, has_bias; mode is BF16 */
} sy_model_info;
#define SY_MODEL_INFO_INIT \
  { .struct_size = sizeof(sy_model_info) }

/* What a checkpoint holds of one layer. */
typedef struct sy_layer_info {
  size_t struct_size;
  int32_t is_dense;      /* 1: has no experts; then the rest is empty */
  const char *format;    /* of the experts: "bf16", "f16", "f32", "fp8", "nvfp4" or "mxfp4" */
  sy_dtype dtype;        /* the same; NVFP4 and MXFP4 want a layer of that format */
  uint64_t expert_bytes; /* of all experts, in the files */
} sy_layer_info;
#define SY_LAYER_INFO_INIT \
  { .struct_size = sizeof(sy_layer_info) }

/* sy_checkpoint_open: opens the checkpoint in directory `path`, or one .safetensors file (then there
 * is no config: tensors only).
 *   shapes: none. memory: host. units: none. ownership: the caller closes it. order: none.
 *   scope: local. threads: any; after opening, reads may run concurrently.
 *   errors: IO, FORMAT, UNSUPPORTED (unknown family: lists those known), MEMORY;
 *   sy_last_error(NULL) names file, tensor or key, found and expected. */
SY_API sy_status sy_checkpoint_open(const char *path, sy_checkpoint **checkpoint_out);
SY_API void sy_checkpoint_close(sy_checkpoint *checkpoint);

/* sy_checkpoint_model: family, number of layers and shape of the MoE layers.
 *   shapes: none. memory: host. units: none. ownership: texts live as long as the checkpoint.
 *   order: none. scope: local. threads: any. errors: STATE (opened without config.json). */
SY_API sy_status sy_checkpoint_model(const sy_checkpoint *checkpoint, sy_model_info *info_out);

/* sy_checkpoint_number: a number (or true/false as 1/0) of config.json by key.
 *   shapes: none. memory: host. units: the key's. ownership: none. order: none. scope: local.
 *   threads: any. errors: FORMAT (missing, or not a number), STATE (no config.json). */
SY_API sy_status sy_checkpoint_number(const sy_checkpoint *checkpoint, const char *key,
                                      double *value_out);

/* sy_checkpoint_tensor: finds a tensor by its full name.
 *   shapes: as the file says. memory: none. units: bytes. ownership: none.
 *   order: none. scope: local. threads: any. errors: FORMAT (no such tensor). */
SY_API sy_status sy_checkpoint_tensor(const sy_checkpoint *checkpoint, const char *name,
                                      sy_tensor *tensor_out);

/* sy_checkpoint_read: reads bytes [offset, offset + bytes) of a tensor into buffer.
 *   shapes: row-major. memory: host. units: bytes. ownership: the buffer is the caller's; its
 *   contents are undefined after a failure. order: none. scope: local. threads: any.
 *   errors: FORMAT (no such tensor), ARGUMENT (beyond its end), IO (cannot be read, or the file was
 *   written to since it was opened). */
SY_API sy_status sy_checkpoint_read(const sy_checkpoint *checkpoint, const char *name,
                                    size_t offset, void *buffer, size_t bytes);

/* sy_checkpoint_check_layer: whether model layer `layer_idx` can be loaded: every tensor of all its
 * experts is there, of the shape that config.json asks for and a dtype that is known. Reads nothing:
 * what a config claims is compared with the files before memory is sized by it.
 *   shapes: none. memory: none. units: bytes. ownership: texts live as long as the checkpoint.
 *   order: none. scope: local. threads: any.
 *   errors: FORMAT (names file, tensor, found and expected), ARGUMENT (layer index), STATE (no
 *   config.json). */
SY_API sy_status sy_checkpoint_check_layer(const sy_checkpoint *checkpoint, int32_t layer_idx,
                                           sy_layer_info *info_out);

/* sy_layer_load_checkpoint: loads this rank's experts of model layer `layer_idx` into a layer whose
 * shape has the checkpoint's sizes and any mode; experts that are FP4 already want modes w4a4 or
 * w4a16 of their format, and are taken code for code. Reads only these experts' bytes, with the
 * group's threads, and never holds more of them than a few rows per thread. The group's
 * progress callback hears bytes done and bytes in all, of this rank and this layer.
 *   shapes: from the checkpoint. memory: host. units: none. ownership: the checkpoint may be closed
 *   afterwards. order: none. scope: local. threads: serial per group.
 *   errors: FORMAT (a tensor missing, or of another shape or dtype: names it), ARGUMENT (layer
 *   index, shape that contradicts the checkpoint), UNSUPPORTED (FP4 experts of another format), IO (cannot be read, or changed while open). */
SY_API sy_status sy_layer_load_checkpoint(sy_layer *layer, const sy_checkpoint *checkpoint,
                                          int32_t layer_idx);

/* A conversion of a checkpoint: experts become FP4, with the codes that a layer makes of them at
 * load; everything else is copied. One caller begins, any number of them (threads, processes, ranks)
 * write shards, each into its own file, and one finishes:
 *
 *   sy_convert_create    everywhere
 *   sy_convert_begin     by one, before the others go on
 *   sy_convert_shard     0 .. num_shards - 1, by whom and in what order does not matter
 *   sy_convert_finish    by the one that began, after all others
 *
 * Until config.json is there, which comes last, the folder is no checkpoint. After an interruption the
 * same calls take up what is whole. */
typedef struct sy_convert sy_convert;

/* sy_convert_create: lays out the conversion into `folder` (NVFP4 in ModelOpt's names, MXFP4 in those
 * of compressed-tensors). Reads no tensor and writes nothing.
 *   shapes: hidden and intermediate are multiples of a block. memory: host. units: none.
 *   ownership: the caller destroys it; the checkpoint must outlive it. order: none. scope: local.
 *   threads: any. errors: ARGUMENT, STATE (no config.json), UNSUPPORTED (sizes, or experts that are
 *   FP4 already), FORMAT (a tensor missing, or of another shape or dtype), MEMORY. */
SY_API sy_status sy_convert_create(const sy_checkpoint *checkpoint, const char *folder,
                                   sy_format format, sy_convert **convert_out);
SY_API void sy_convert_destroy(sy_convert *convert);

/* sy_convert_num_shards, sy_convert_shard_bytes: how many files, and what is read for one.
 *   shapes: none. memory: none. units: bytes. ownership: none. order: none. scope: local.
 *   threads: any. errors: none (0 for NULL, or a shard that does not exist). */
SY_API int32_t sy_convert_num_shards(const sy_convert *convert);
SY_API uint64_t sy_convert_shard_bytes(const sy_convert *convert, int32_t shard);

/* sy_convert_begin: makes the folder, or finds it empty or left by the same conversion.
 *   shapes: none. memory: none. units: none. ownership: the folder is locked until destroy.
 *   order: before any shard. scope: local. threads: one. errors: STATE (the folder holds something
 *   else, or another conversion is at work), IO, MEMORY. */
SY_API sy_status sy_convert_begin(sy_convert *convert);

/* sy_convert_shard: writes one shard, unless it is there already. progress may be NULL.
 *   shapes: none. memory: host, four times the largest tensor. units: progress hears bytes read.
 *   ownership: none. order: after begin. scope: local. threads: any, one for each shard.
 *   errors: IO (cannot be read or written: the disk is full; nothing half is left), FORMAT (a value
 *   that is not finite), ARGUMENT, MEMORY. */
SY_API sy_status sy_convert_shard(const sy_convert *convert, int32_t shard, sy_progress_fn progress,
                                  void *user);

/* sy_convert_finish: gives the files their names, copies what goes with the checkpoint (such as the
 * tokenizer), and writes the index and config.json.
 *   shapes: none. memory: host. units: none. ownership: none. order: after all shards. scope: local.
 *   threads: one. errors: STATE (not begun), IO (a shard is missing), MEMORY. */
SY_API sy_status sy_convert_finish(sy_convert *convert);

#ifdef __cplusplus
}
#endif

#endif
