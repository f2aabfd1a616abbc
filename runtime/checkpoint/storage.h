/* How a checkpoint stores a projection: which tensors there are, and what they hold. The names that
 * Hugging Face's own files, FP8 files with block scales, ModelOpt, compressed-tensors and gpt-oss
 * use. A storage is a line of the table in storage.c. */
#ifndef SY_RUNTIME_CHECKPOINT_STORAGE_H
#define SY_RUNTIME_CHECKPOINT_STORAGE_H

#include "runtime/checkpoint/checkpoint.h"

/* Names are a projection's stem and one of these suffixes. */
struct sy_storage {
  const char *name; /* "nvfp4" */
  const char *weight;
  const char *scales; /* NULL: none */
  const char *global; /* NULL: none; an F32 scalar that multiplies */
  sy_dtype dtype;
  sy_tensor_dtype weight_dtype;
  sy_tensor_dtype scales_dtype;
  bool stacked;    /* all experts of a layer in each tensor: [experts, rows, ...] */
  bool reciprocal; /* global divides: 1 / global is what multiplies */
};

/* By the tensors that there are. FORMAT when the weights are missing, or of a dtype that no storage
 * has. */
sy_status sy_storage_find(const sy_checkpoint *checkpoint, bool stacked, const char *stem,
                          const struct sy_storage **storage_out);

/* The weights, in any storage; NULL when there are none. */
const struct sy_checkpoint_tensor *sy_storage_lookup(const sy_checkpoint *checkpoint, bool stacked,
                                                     const char *stem);

/* The tensor of a suffix; NULL, and the sentence of a SY_ERR_FORMAT, when there is none. */
const struct sy_checkpoint_tensor *sy_storage_tensor(const sy_checkpoint *checkpoint,
                                                     const char *stem, const char *suffix);

#endif
