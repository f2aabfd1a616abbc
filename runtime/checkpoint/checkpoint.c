#include "runtime/checkpoint/checkpoint.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/index.h"
#include "runtime/checkpoint/json.h"
#include "runtime/internal.h"
#include "runtime/memory.h"

#define CONFIG_NAME "config.json"
#define SINGLE_NAME "model.safetensors"
#define INDEX_NAME "model.safetensors.index.json"

/* Configs of the largest models stay under 100 KiB. Opening takes and keeps at most 100 times as
 * much. */
#define MAX_CONFIG_BYTES ((size_t)1 << 20)

static int by_name(const void *a, const void *b) {
  return strcmp(((const struct sy_checkpoint_tensor *)a)->name,
                ((const struct sy_checkpoint_tensor *)b)->name);
}

static sy_status open_single(sy_checkpoint *checkpoint, const char *path) {
  checkpoint->files = sy_alloc(sizeof(struct sy_safetensors *));
  if (checkpoint->files == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory to open it", sy_path_shown(path));
  }
  SY_TRY(sy_safetensors_open(path, &checkpoint->files[0]));
  checkpoint->num_files = 1;
  const struct sy_safetensors *file = checkpoint->files[0];
  checkpoint->tensors = sy_alloc(file->num_entries * sizeof *checkpoint->tensors);
  if (checkpoint->tensors == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory for its %zu tensors", sy_path_shown(path),
                   file->num_entries);
  }
  for (size_t i = 0; i < file->num_entries; ++i) {
    checkpoint->tensors[i] = (struct sy_checkpoint_tensor){
        .name = file->entries[i].name, .file = file, .entry = &file->entries[i]};
  }
  checkpoint->num_tensors = file->num_entries;
  return SY_OK;
}

static sy_status read_config(sy_checkpoint *checkpoint) {
  SY_TRY(sy_path_join(checkpoint->path, CONFIG_NAME, &checkpoint->config_path));
  char *text = NULL;
  size_t bytes = 0;
  SY_TRY(sy_file_read(checkpoint->config_path, MAX_CONFIG_BYTES, &text, &bytes));
  const sy_status status =
      sy_json_parse(sy_path_shown(checkpoint->config_path), text, bytes, NULL, &checkpoint->config);
  sy_free(text);
  SY_TRY(status);
  return sy_checkpoint_model_read(checkpoint->config_path, checkpoint->config, &checkpoint->model);
}

/* One file if there is one, else the shards of an index: as other loaders of this layout choose. */
static sy_status open_directory(sy_checkpoint *checkpoint) {
  SY_TRY(read_config(checkpoint));
  char *single = NULL;
  char *index = NULL;
  sy_status status = sy_path_join(checkpoint->path, SINGLE_NAME, &single);
  if (status == SY_OK) {
    status = sy_path_join(checkpoint->path, INDEX_NAME, &index);
  }
  if (status != SY_OK) {
    /* Said by sy_path_join. */
  } else if (sy_path_exists(single)) {
    status = open_single(checkpoint, single);
  } else if (sy_path_exists(index)) {
    status = sy_index_open(checkpoint, index);
  } else {
    status = sy_fail(SY_ERR_IO, "%s: has no weights; expected " SINGLE_NAME " or " INDEX_NAME,
                     sy_path_shown(checkpoint->path));
  }
  sy_free(single);
  sy_free(index);
  return status;
}

static sy_status open_path(sy_checkpoint *checkpoint, const char *path) {
  SY_TRY(sy_path_join(NULL, path, &checkpoint->path));
  struct stat info;
  if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
    SY_TRY(open_directory(checkpoint));
  } else {
    SY_TRY(open_single(checkpoint, path));
  }
  qsort(checkpoint->tensors, checkpoint->num_tensors, sizeof *checkpoint->tensors, by_name);
  return SY_OK;
}

sy_status sy_checkpoint_open(const char *path, sy_checkpoint **checkpoint_out) {
  if (path == NULL || checkpoint_out == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_checkpoint_open: %s is NULL",
                   path == NULL ? "path" : "checkpoint_out");
  }
  sy_checkpoint *checkpoint = sy_alloc(sizeof *checkpoint);
  if (checkpoint == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory to open it", sy_path_shown(path));
  }
  *checkpoint = (sy_checkpoint){0};
  const sy_status status = open_path(checkpoint, path);
  if (status != SY_OK) {
    sy_checkpoint_close(checkpoint);
    return status;
  }
  *checkpoint_out = checkpoint;
  return SY_OK;
}

void sy_checkpoint_close(sy_checkpoint *checkpoint) {
  if (checkpoint == NULL) {
    return;
  }
  for (size_t i = 0; i < checkpoint->num_files; ++i) {
    sy_safetensors_close(checkpoint->files[i]);
  }
  sy_free(checkpoint->files);
  sy_free(checkpoint->tensors);
  json_decref(checkpoint->config);
  sy_free(checkpoint->config_path);
  sy_free(checkpoint->path);
  sy_free(checkpoint);
}

sy_status sy_checkpoint_require_config(const sy_checkpoint *checkpoint) {
  return checkpoint->config != NULL
             ? SY_OK
             : sy_fail(SY_ERR_STATE,
                       "%s: was opened as one file; expected a folder with a " CONFIG_NAME,
                       sy_path_shown(checkpoint->path));
}

const struct sy_checkpoint_tensor *sy_checkpoint_lookup(const sy_checkpoint *checkpoint,
                                                        const char *name) {
  const struct sy_checkpoint_tensor key = {.name = name};
  return bsearch(&key, checkpoint->tensors, checkpoint->num_tensors, sizeof key, by_name);
}

const struct sy_checkpoint_tensor *sy_checkpoint_find(const sy_checkpoint *checkpoint,
                                                      const char *name) {
  const struct sy_checkpoint_tensor *tensor = sy_checkpoint_lookup(checkpoint, name);
  if (tensor == NULL) {
    sy_fail(SY_ERR_FORMAT, "%s: tensor '%.*s' is missing; the checkpoint has %zu others",
            sy_path_shown(checkpoint->path), SY_TENSOR_NAME_BYTES, name, checkpoint->num_tensors);
    return NULL;
  }
  if (tensor->entry->unknown_dtype[0] != '\0') {
    sy_fail(SY_ERR_FORMAT, "%s: tensor '%s': dtype is %s, which is not known",
            sy_path_shown(tensor->file->path), name, tensor->entry->unknown_dtype);
    return NULL;
  }
  return tensor;
}

sy_status sy_checkpoint_model(const sy_checkpoint *checkpoint, sy_model_info *info_out) {
  if (checkpoint == NULL || !SY_DESC_OK(info_out)) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_checkpoint_model: %s",
                   checkpoint == NULL ? "checkpoint is NULL" : "info_out needs SY_MODEL_INFO_INIT");
  }
  SY_TRY(sy_checkpoint_require_config(checkpoint));
  const size_t struct_size = info_out->struct_size;
  *info_out = checkpoint->model.info;
  info_out->struct_size = struct_size;
  return SY_OK;
}

sy_status sy_checkpoint_number(const sy_checkpoint *checkpoint, const char *key,
                               double *value_out) {
  if (checkpoint == NULL || key == NULL || value_out == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_checkpoint_number: %s is NULL",
                   checkpoint == NULL ? "checkpoint"
                   : key == NULL      ? "key"
                                      : "value_out");
  }
  SY_TRY(sy_checkpoint_require_config(checkpoint));
  return sy_json_number(sy_path_shown(checkpoint->config_path), checkpoint->config, key, value_out);
}

sy_status sy_checkpoint_tensor(const sy_checkpoint *checkpoint, const char *name,
                               sy_tensor *tensor_out) {
  if (checkpoint == NULL || name == NULL || !SY_DESC_OK(tensor_out)) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_checkpoint_tensor: %s",
                   checkpoint == NULL ? "checkpoint is NULL"
                   : name == NULL     ? "name is NULL"
                                      : "tensor_out needs SY_TENSOR_INIT");
  }
  const struct sy_checkpoint_tensor *found = sy_checkpoint_find(checkpoint, name);
  if (found == NULL) {
    return SY_ERR_FORMAT;
  }
  const size_t struct_size = tensor_out->struct_size;
  *tensor_out = found->entry->tensor;
  tensor_out->struct_size = struct_size;
  return SY_OK;
}

sy_status sy_checkpoint_read(const sy_checkpoint *checkpoint, const char *name, size_t offset,
                             void *buffer, size_t bytes) {
  if (checkpoint == NULL || name == NULL || buffer == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_checkpoint_read: %s is NULL",
                   checkpoint == NULL ? "checkpoint"
                   : name == NULL     ? "name"
                                      : "buffer");
  }
  const struct sy_checkpoint_tensor *found = sy_checkpoint_find(checkpoint, name);
  if (found == NULL) {
    return SY_ERR_FORMAT;
  }
  const size_t size = found->entry->tensor.bytes;
  if (offset > size || bytes > size - offset) {
    return sy_fail(SY_ERR_ARGUMENT,
                   "%s: tensor '%s': %zu bytes at offset %zu asked for; it has %zu",
                   sy_path_shown(found->file->path), name, bytes, offset, size);
  }
  return sy_safetensors_read(found->file, found->entry, offset, buffer, bytes);
}
