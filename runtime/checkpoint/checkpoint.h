/* A checkpoint: its config, its files, and one table of all tensors by name. */
#ifndef SY_RUNTIME_CHECKPOINT_CHECKPOINT_H
#define SY_RUNTIME_CHECKPOINT_CHECKPOINT_H

#include <jansson.h>
#include <stddef.h>

#include "runtime/checkpoint/family.h"
#include "runtime/checkpoint/safetensors.h"

struct sy_checkpoint_tensor {
  const char *name;
  const struct sy_safetensors *file;
  const struct sy_safetensors_entry *entry;
};

struct sy_checkpoint {
  char *path;
  char *config_path; /* NULL, like config: opened as one file, tensors only */
  json_t *config;
  struct sy_checkpoint_model model; /* of the config */
  struct sy_safetensors **files;
  size_t num_files;
  struct sy_checkpoint_tensor *tensors; /* by name; with an index, those it names */
  size_t num_tensors;
};

/* STATE when the checkpoint was opened without config. */
sy_status sy_checkpoint_require_config(const sy_checkpoint *checkpoint);

/* NULL when there is none. */
const struct sy_checkpoint_tensor *sy_checkpoint_lookup(const sy_checkpoint *checkpoint,
                                                        const char *name);

/* NULL, and the sentence of a SY_ERR_FORMAT, when there is no such tensor or its
 * dtype is unknown. */
const struct sy_checkpoint_tensor *sy_checkpoint_find(const sy_checkpoint *checkpoint,
                                                      const char *name);

#endif
