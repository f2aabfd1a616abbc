/* The folder of a conversion: begun, or taken up where an interrupted run left it; finished. */
#define _GNU_SOURCE /* flock */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/checkpoint/convert.h"
#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/output.h"
#include "runtime/internal.h"
#include "runtime/memory.h"

#define CONFIG_NAME "config.json"
#define INDEX_NAME "model.safetensors.index.json"
#define MODELOPT_NAME "hf_quant_config.json"
#define MAX_MANIFEST_BYTES ((size_t)4 << 20)
#define MAX_COMPANION_BYTES ((size_t)64 << 20) /* tokenizers have some 10 MB */

static const char *format_name(const sy_convert *convert) {
  return convert->format == SY_FORMAT_MXFP4 ? "mxfp4" : "nvfp4";
}

/* Writes JSON as a file of the folder, and releases it. */
static sy_status save_json(const sy_convert *convert, const char *name, json_t *root) {
  char *path = NULL;
  char *text = root == NULL ? NULL : json_dumps(root, JSON_INDENT(2));
  json_decref(root);
  sy_status status = text != NULL ? sy_path_join(convert->folder, name, &path)
                                  : sy_fail(SY_ERR_MEMORY, "%s: no memory for its JSON", name);
  if (status == SY_OK) {
    status = sy_output_save(path, text, strlen(text));
  }
  free(text);
  sy_free(path);
  return status;
}

/* ---- Beginning ---- */

/* What the output depends on, and nothing else; the same on all ranks. */
static json_t *make_manifest(const sy_convert *convert) {
  const sy_checkpoint *checkpoint = convert->checkpoint;
  json_t *files = json_array();
  for (size_t i = 0; i < checkpoint->num_files; ++i) {
    const struct sy_file_version *version = &checkpoint->files[i]->version;
    json_array_append_new(files, json_pack("[I, I, I]", (json_int_t)version->bytes,
                                           (json_int_t)version->modified.tv_sec,
                                           (json_int_t)version->modified.tv_nsec));
  }
  return json_pack("{s:s, s:s, s:O, s:o}", "version", sy_version(), "format", format_name(convert),
                   "config", checkpoint->config, "files", files);
}

static sy_status check_manifest(const sy_convert *convert, const char *path) {
  char *text = NULL;
  size_t bytes = 0;
  json_t *found = NULL;
  SY_TRY(sy_file_read(path, MAX_MANIFEST_BYTES, &text, &bytes));
  sy_status status = sy_json_parse(sy_path_shown(path), text, bytes, NULL, &found);
  sy_free(text);
  SY_TRY(status);
  json_t *expected = make_manifest(convert);
  if (expected == NULL) {
    status = sy_fail(SY_ERR_MEMORY, "%s: no memory for its JSON", sy_path_shown(path));
  } else if (json_equal(found, expected) == 0) {
    status = sy_fail(SY_ERR_STATE,
                     "%s: holds an unfinished conversion of another checkpoint, format or version; "
                     "expected the same one, or an empty folder",
                     sy_path_shown(convert->folder));
  }
  json_decref(expected);
  json_decref(found);
  return status;
}

/* Whether something lies in the folder. */
static sy_status find_any(const char *path, bool *any_out) {
  DIR *folder = opendir(path);
  if (folder == NULL) {
    return sy_fail(SY_ERR_IO, "%s: cannot be opened as a folder: %s", sy_path_shown(path),
                   strerror(errno));
  }
  bool any = false;
  for (struct dirent *entry; !any && (entry = readdir(folder)) != NULL;) {
    any = strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
  }
  closedir(folder);
  *any_out = any;
  return SY_OK;
}

/* One conversion at a time: a second would write into the first one's files. */
static sy_status lock_manifest(sy_convert *convert, const char *path) {
  convert->manifest_fd = open(path, O_RDONLY | O_CLOEXEC);
  if (convert->manifest_fd < 0) {
    return sy_fail(SY_ERR_IO, "%s: cannot be opened: %s", sy_path_shown(path), strerror(errno));
  }
  if (flock(convert->manifest_fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) {
    return sy_fail(SY_ERR_STATE, "%s: another conversion is writing here",
                   sy_path_shown(convert->folder));
  }
  return SY_OK;
}

static sy_status begin(sy_convert *convert, const char *config_path, const char *manifest_path) {
  if (mkdir(convert->folder, 0777) != 0 && errno != EEXIST) {
    return sy_fail(SY_ERR_IO, "%s: cannot be created: %s", sy_path_shown(convert->folder),
                   strerror(errno));
  }
  if (sy_path_exists(config_path)) {
    return sy_fail(SY_ERR_STATE, "%s: holds a checkpoint already; expected an empty folder",
                   sy_path_shown(convert->folder));
  }
  if (sy_path_exists(manifest_path)) {
    SY_TRY(check_manifest(convert, manifest_path));
    SY_TRY(lock_manifest(convert, manifest_path));
    return sy_output_clean(convert->folder);
  }
  bool any = false;
  SY_TRY(find_any(convert->folder, &any));
  if (any) {
    return sy_fail(SY_ERR_STATE, "%s: is not empty; expected an empty folder",
                   sy_path_shown(convert->folder));
  }
  SY_TRY(save_json(convert, SY_CONVERT_MANIFEST, make_manifest(convert)));
  return lock_manifest(convert, manifest_path);
}

sy_status sy_convert_begin(sy_convert *convert) {
  if (convert == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_convert_begin: convert is NULL");
  }
  char *config_path = NULL;
  char *manifest_path = NULL;
  sy_status status = sy_path_join(convert->folder, CONFIG_NAME, &config_path);
  if (status == SY_OK) {
    status = sy_path_join(convert->folder, SY_CONVERT_MANIFEST, &manifest_path);
  }
  if (status == SY_OK) {
    status = begin(convert, config_path, manifest_path);
  }
  sy_free(config_path);
  sy_free(manifest_path);
  return status;
}

sy_status sy_convert_shard_is_ready(const sy_convert *convert, int32_t shard, bool *ready_out) {
  char *path = NULL;
  char *ready = NULL;
  sy_status status = sy_convert_shard_path(convert, shard, "", &path);
  if (status == SY_OK) {
    status = sy_convert_shard_path(convert, shard, SY_CONVERT_READY, &ready);
  }
  if (status == SY_OK) {
    *ready_out = sy_path_exists(path) || sy_path_exists(ready);
  }
  sy_free(path);
  sy_free(ready);
  return status;
}

/* ---- Finishing ---- */

static sy_status name_shard(const sy_convert *convert, int32_t shard) {
  char *path = NULL;
  char *ready = NULL;
  sy_status status = sy_convert_shard_path(convert, shard, "", &path);
  if (status == SY_OK) {
    status = sy_convert_shard_path(convert, shard, SY_CONVERT_READY, &ready);
  }
  if (status == SY_OK && rename(ready, path) != 0 && !(errno == ENOENT && sy_path_exists(path))) {
    status = sy_fail(SY_ERR_IO, "%s: cannot be renamed: %s", sy_path_shown(ready), strerror(errno));
  }
  sy_free(path);
  sy_free(ready);
  return status;
}

static sy_status save_index(const sy_convert *convert) {
  json_t *map = json_object();
  json_int_t total = 0;
  for (int32_t shard = 0; shard < convert->num_shards; ++shard) {
    struct sy_convert_list list;
    char *path = NULL;
    sy_status status = sy_convert_shard_path(convert, shard, "", &path);
    if (status == SY_OK) {
      status = sy_convert_list_shard(convert, shard, &list);
    }
    if (status != SY_OK) {
      sy_free(path);
      json_decref(map);
      return status;
    }
    const char *name = path + strlen(convert->folder) + 1;
    for (size_t i = 0; i < list.count; ++i) {
      json_object_set_new(map, list.tensors[i].name, json_string(name));
    }
    total += (json_int_t)list.data_bytes;
    sy_free(list.tensors);
    sy_free(path);
  }
  return save_json(convert, INDEX_NAME,
                   json_pack("{s:{s:I}, s:o}", "metadata", "total_size", total, "weight_map", map));
}

/* The modules that stay as they are: matrices "x.weight" that are copied. */
static json_t *list_copied_modules(const sy_convert *convert) {
  static const char suffix[] = ".weight";
  const sy_checkpoint *checkpoint = convert->checkpoint;
  json_t *list = json_array();
  for (size_t i = 0; i < checkpoint->num_tensors; ++i) {
    const struct sy_checkpoint_tensor *tensor = &checkpoint->tensors[i];
    const size_t bytes = strlen(tensor->name);
    if (convert->fate[i] == SY_FATE_COPIED && tensor->entry->tensor.num_dims == 2 &&
        bytes >= sizeof suffix && strcmp(tensor->name + bytes - (sizeof suffix - 1), suffix) == 0) {
      json_array_append_new(list, json_stringn(tensor->name, bytes - (sizeof suffix - 1)));
    }
  }
  return list;
}

/* As ModelOpt writes it into config.json. */
static json_t *nvfp4_config(const sy_convert *convert) {
  return json_pack("{s:s, s:s, s:i, s:o, s:{s:s, s:s}}", "quant_method", "modelopt", "quant_algo",
                   "NVFP4", "group_size", SY_NVFP4_BLOCK, "ignore", list_copied_modules(convert),
                   "producer", "name", "switchyard", "version", sy_version());
}

/* As compressed-tensors writes it. */
static json_t *mxfp4_config(const sy_convert *convert) {
  json_t *weights = json_pack("{s:i, s:s, s:s, s:i, s:b, s:b, s:s}", "num_bits", 4, "type", "float",
                              "strategy", "group", "group_size", SY_MXFP4_BLOCK, "symmetric", 1,
                              "dynamic", 0, "scale_dtype", "torch.uint8");
  json_t *group = json_pack("{s:[s], s:s, s:o, s:n}", "targets", "Linear", "format",
                            "mxfp4-pack-quantized", "weights", weights, "input_activations");
  return json_pack("{s:s, s:s, s:s, s:{s:o}, s:o}", "quant_method", "compressed-tensors", "format",
                   "mxfp4-pack-quantized", "quantization_status", "compressed", "config_groups",
                   "group_0", group, "ignore", list_copied_modules(convert));
}

static sy_status save_config(const sy_convert *convert) {
  json_t *config = json_deep_copy(convert->checkpoint->config);
  json_t *added =
      convert->format == SY_FORMAT_MXFP4 ? mxfp4_config(convert) : nvfp4_config(convert);
  if (config == NULL || json_object_set_new(config, "quantization_config", added) != 0) {
    json_decref(config);
    return sy_fail(SY_ERR_MEMORY, "no memory for " CONFIG_NAME);
  }
  return save_json(convert, CONFIG_NAME, config);
}

/* Where readers of ModelOpt's checkpoints look first. */
static sy_status save_modelopt(const sy_convert *convert) {
  return save_json(convert, MODELOPT_NAME,
                   json_pack("{s:{s:s, s:s}, s:{s:s, s:n, s:i, s:o}}", "producer", "name",
                             "switchyard", "version", sy_version(), "quantization", "quant_algo",
                             "NVFP4", "kv_cache_quant_algo", "group_size", SY_NVFP4_BLOCK,
                             "exclude_modules", list_copied_modules(convert)));
}

static bool ends_with(const char *text, const char *end) {
  const size_t text_bytes = strlen(text);
  const size_t end_bytes = strlen(end);
  return text_bytes >= end_bytes && strcmp(text + text_bytes - end_bytes, end) == 0;
}

/* What goes with a checkpoint: the tokenizer, the licence. Not weights, and not what is written anew. */
static bool is_companion(const char *path, const char *name) {
  struct stat info;
  return name[0] != '.' && !ends_with(name, ".safetensors") && strcmp(name, CONFIG_NAME) != 0 &&
         strcmp(name, INDEX_NAME) != 0 && strcmp(name, MODELOPT_NAME) != 0 &&
         stat(path, &info) == 0 && S_ISREG(info.st_mode) &&
         (size_t)info.st_size <= MAX_COMPANION_BYTES;
}

static sy_status copy_companion(const sy_convert *convert, const char *name) {
  char *from = NULL;
  char *to = NULL;
  char *text = NULL;
  size_t bytes = 0;
  sy_status status = sy_path_join(convert->checkpoint->path, name, &from);
  if (status == SY_OK && is_companion(from, name)) {
    status = sy_file_read(from, MAX_COMPANION_BYTES, &text, &bytes);
    if (status == SY_OK) {
      status = sy_path_join(convert->folder, name, &to);
    }
    if (status == SY_OK) {
      status = sy_output_save(to, text, bytes);
    }
  }
  sy_free(from);
  sy_free(to);
  sy_free(text);
  return status;
}

static sy_status copy_companions(const sy_convert *convert) {
  const char *path = convert->checkpoint->path;
  DIR *folder = opendir(path);
  if (folder == NULL) {
    return sy_fail(SY_ERR_IO, "%s: cannot be opened as a folder: %s", sy_path_shown(path),
                   strerror(errno));
  }
  sy_status status = SY_OK;
  for (struct dirent *entry; status == SY_OK && (entry = readdir(folder)) != NULL;) {
    status = copy_companion(convert, entry->d_name);
  }
  closedir(folder);
  return status;
}

sy_status sy_convert_finish(sy_convert *convert) {
  if (convert == NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_convert_finish: convert is NULL");
  }
  if (convert->manifest_fd < 0) {
    return sy_fail(SY_ERR_STATE, "sy_convert_finish: sy_convert_begin has not been called");
  }
  for (int32_t shard = 0; shard < convert->num_shards; ++shard) {
    SY_TRY(name_shard(convert, shard));
  }
  SY_TRY(copy_companions(convert));
  SY_TRY(save_index(convert));
  if (convert->format == SY_FORMAT_NVFP4) {
    SY_TRY(save_modelopt(convert));
  }
  SY_TRY(save_config(convert));
  char *manifest_path = NULL;
  SY_TRY(sy_path_join(convert->folder, SY_CONVERT_MANIFEST, &manifest_path));
  unlink(manifest_path); /* with config.json there it means nothing any more */
  sy_free(manifest_path);
  return SY_OK;
}
