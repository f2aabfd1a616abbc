#include "runtime/checkpoint/index.h"

#include <stdlib.h>
#include <string.h>

#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/json.h"
#include "runtime/memory.h"
#include "runtime/status.h"

/* Half a million tensors. Opening takes at most 40 times as much, besides what the shards keep. */
#define MAX_INDEX_BYTES ((size_t)64 << 20)

#define MAX_SHARD_NAME_BYTES 255

struct placed_tensor {
  const char *name;
  const char *shard;
};

/* A plain file name: the index must not lead out of its folder. */
static sy_status check_shard_name(const char *where, const char *tensor, const json_t *value) {
  static const char suffix[] = ".safetensors";
  const char *name = json_string_value(value);
  const size_t bytes = name == NULL ? 0 : strlen(name);
  bool plain = bytes >= sizeof suffix && bytes <= MAX_SHARD_NAME_BYTES && name[0] != '.' &&
               strcmp(name + bytes - (sizeof suffix - 1), suffix) == 0;
  for (size_t i = 0; plain && i < bytes; ++i) {
    plain = !sy_is_control(name + i) && name[i] != '/' && name[i] != '\\';
  }
  if (!plain) {
    char shown[SY_JSON_SHOWN_BYTES];
    return sy_fail(SY_ERR_FORMAT,
                   "%s: tensor '%s': its shard is %s; expected the plain name of a .safetensors "
                   "file in the same folder",
                   where, tensor, sy_json_show(value, shown));
  }
  return SY_OK;
}

static int by_shard(const void *a, const void *b) {
  return strcmp(((const struct placed_tensor *)a)->shard, ((const struct placed_tensor *)b)->shard);
}

/* The weight map as a list, ordered by shard; its texts belong to `map`. */
static sy_status list_tensors(const char *where, json_t *map, struct placed_tensor *placed) {
  size_t count = 0;
  const char *name;
  json_t *shard;
  json_object_foreach(map, name, shard) {
    SY_TRY(sy_tensor_name_check(where, name));
    SY_TRY(check_shard_name(where, name, shard));
    placed[count++] = (struct placed_tensor){.name = name, .shard = json_string_value(shard)};
  }
  qsort(placed, count, sizeof *placed, by_shard);
  return SY_OK;
}

static sy_status open_shard(sy_checkpoint *checkpoint, const char *name) {
  char *path = NULL;
  SY_TRY(sy_path_join(checkpoint->path, name, &path));
  const sy_status status = sy_safetensors_open(path, &checkpoint->files[checkpoint->num_files]);
  sy_free(path);
  checkpoint->num_files += status == SY_OK;
  return status;
}

static sy_status open_shards(sy_checkpoint *checkpoint, const char *where,
                             const struct placed_tensor *placed, size_t count) {
  for (size_t i = 0; i < count; ++i) {
    if (i == 0 || by_shard(&placed[i - 1], &placed[i]) != 0) {
      SY_TRY(open_shard(checkpoint, placed[i].shard));
    }
    const struct sy_safetensors *file = checkpoint->files[checkpoint->num_files - 1];
    const struct sy_safetensors_entry *entry = sy_safetensors_find(file, placed[i].name);
    if (entry == NULL) {
      return sy_fail(SY_ERR_FORMAT,
                     "%s: tensor '%s': expected in shard '%s', which does not have it", where,
                     placed[i].name, placed[i].shard);
    }
    checkpoint->tensors[i] =
        (struct sy_checkpoint_tensor){.name = entry->name, .file = file, .entry = entry};
  }
  checkpoint->num_tensors = count;
  return SY_OK;
}

static sy_status open_map(sy_checkpoint *checkpoint, const char *where, json_t *index) {
  json_t *map = json_object_get(index, "weight_map");
  char shown[SY_JSON_SHOWN_BYTES];
  if (!json_is_object(map)) {
    return sy_fail(SY_ERR_FORMAT, "%s: 'weight_map' is %s; expected an object", where,
                   sy_json_show(map, shown));
  }
  const size_t count = json_object_size(map);
  struct placed_tensor *placed = sy_alloc(count * sizeof *placed);
  checkpoint->tensors = sy_alloc(count * sizeof *checkpoint->tensors);
  checkpoint->files = sy_alloc(count * sizeof(struct sy_safetensors *)); /* shards <= tensors */
  sy_status status = SY_OK;
  if (placed == NULL || checkpoint->tensors == NULL || checkpoint->files == NULL) {
    status = sy_fail(SY_ERR_MEMORY, "%s: no memory for its %zu tensors", where, count);
  } else if ((status = list_tensors(where, map, placed)) == SY_OK) {
    status = open_shards(checkpoint, where, placed, count);
  }
  sy_free(placed);
  return status;
}

sy_status sy_index_open(sy_checkpoint *checkpoint, const char *index_path) {
  char *text = NULL;
  size_t bytes = 0;
  SY_TRY(sy_file_read(index_path, MAX_INDEX_BYTES, &text, &bytes));
  const char *const where = sy_path_shown(index_path);
  json_t *index = NULL;
  sy_status status = sy_json_parse(where, text, bytes, "{{", &index);
  sy_free(text);
  SY_TRY(status);
  status = open_map(checkpoint, where, index);
  json_decref(index);
  return status;
}
