#include "runtime/checkpoint/safetensors.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/memory.h"
#include "runtime/status.h"

#define LENGTH_BYTES 8

static const struct {
  const char *name;
  size_t bytes;
} dtypes[] = {
    [SY_TENSOR_BF16] = {"BF16", 2}, [SY_TENSOR_F16] = {"F16", 2},
    [SY_TENSOR_F32] = {"F32", 4},   [SY_TENSOR_F64] = {"F64", 8},
    [SY_TENSOR_I32] = {"I32", 4},   [SY_TENSOR_I64] = {"I64", 8},
    [SY_TENSOR_U8] = {"U8", 1},     [SY_TENSOR_F8_E4M3] = {"F8_E4M3", 1},
};
#define NUM_DTYPES (sizeof dtypes / sizeof dtypes[0])

/* The header's sentences begin with the file and the tensor. */
#define WHERE_BYTES 448

const char *sy_tensor_dtype_name(sy_tensor_dtype dtype) { return dtypes[dtype].name; }

sy_status sy_tensor_name_check(const char *where, const char *name) {
  const size_t bytes = strlen(name);
  if (bytes == 0 || bytes >= SY_TENSOR_NAME_BYTES) {
    return sy_fail(SY_ERR_FORMAT, "%s: a tensor's name has %zu bytes; allowed: 1 to %d", where,
                   bytes, SY_TENSOR_NAME_BYTES - 1);
  }
  for (size_t i = 0; i < bytes; ++i) {
    if (sy_is_control(name + i)) {
      return sy_fail(SY_ERR_FORMAT,
                     "%s: a tensor's name has the control character 0x%02x at byte %zu", where,
                     (unsigned char)name[i], i);
    }
  }
  return SY_OK;
}

static sy_status read_dtype(const char *where, const json_t *object,
                            struct sy_safetensors_entry *entry) {
  const char *text = NULL;
  SY_TRY(sy_json_string(where, object, "dtype", &text));
  for (size_t i = 0; i < NUM_DTYPES; ++i) {
    if (strcmp(text, dtypes[i].name) == 0) {
      entry->tensor.dtype = (sy_tensor_dtype)i;
      return SY_OK;
    }
  }
  sy_json_show(json_object_get(object, "dtype"), entry->unknown_dtype);
  return SY_OK;
}

static sy_status read_shape(const char *where, const json_t *object, sy_tensor *tensor) {
  const json_t *shape = NULL;
  SY_TRY(sy_json_array(where, object, "shape", &shape));
  if (json_array_size(shape) > SY_TENSOR_MAX_DIMS) {
    return sy_fail(SY_ERR_FORMAT, "%s: 'shape' has %zu dimensions; allowed: at most %d", where,
                   json_array_size(shape), SY_TENSOR_MAX_DIMS);
  }
  tensor->num_dims = (int32_t)json_array_size(shape);
  for (size_t i = 0; i < json_array_size(shape); ++i) {
    SY_TRY(sy_json_int_at(where, shape, "shape", i, 0, INT64_MAX, &tensor->shape[i]));
  }
  return SY_OK;
}

/* The offsets must lie within the data, which begins at data_offset of the file. */
static sy_status read_offsets(const char *where, const json_t *object, size_t data_offset,
                              size_t data_bytes, struct sy_safetensors_entry *entry) {
  const json_t *offsets = NULL;
  SY_TRY(sy_json_array(where, object, "data_offsets", &offsets));
  if (json_array_size(offsets) != 2) {
    return sy_fail(SY_ERR_FORMAT, "%s: 'data_offsets' has %zu numbers; expected 2", where,
                   json_array_size(offsets));
  }
  int64_t begin = 0;
  int64_t end = 0;
  SY_TRY(sy_json_int_at(where, offsets, "data_offsets", 0, 0, INT64_MAX, &begin));
  SY_TRY(sy_json_int_at(where, offsets, "data_offsets", 1, begin, INT64_MAX, &end));
  if ((uint64_t)end > data_bytes) {
    return sy_fail(
        SY_ERR_FORMAT,
        "%s: 'data_offsets' end at %lld; expected at most %zu, the data in the file: it is cut "
        "short, or its header is wrong",
        where, (long long)end, data_bytes);
  }
  entry->begin = data_offset + (size_t)begin;
  entry->tensor.bytes = (size_t)(end - begin);
  return SY_OK;
}

static sy_status check_size(const char *where, const sy_tensor *tensor) {
  size_t bytes = dtypes[tensor->dtype].bytes;
  bool overflow = false;
  for (int32_t i = 0; i < tensor->num_dims; ++i) {
    overflow |= __builtin_mul_overflow(bytes, (size_t)tensor->shape[i], &bytes);
  }
  if (overflow) {
    return sy_fail(SY_ERR_FORMAT, "%s: the product of 'shape' exceeds 64 bits", where);
  }
  if (bytes != tensor->bytes) {
    return sy_fail(SY_ERR_FORMAT,
                   "%s: 'data_offsets' span %zu bytes; expected %zu from 'shape' and %s", where,
                   tensor->bytes, bytes, dtypes[tensor->dtype].name);
  }
  return SY_OK;
}

static sy_status read_entry(const struct sy_safetensors *file, size_t data_offset,
                            const json_t *object, struct sy_safetensors_entry *entry) {
  char where[WHERE_BYTES];
  snprintf(where, sizeof where, "%s: tensor '%s'", sy_path_shown(file->path), entry->name);
  if (!json_is_object(object)) {
    char shown[SY_JSON_SHOWN_BYTES];
    return sy_fail(SY_ERR_FORMAT, "%s: is %s; expected an object", where,
                   sy_json_show(object, shown));
  }
  SY_TRY(read_dtype(where, object, entry));
  SY_TRY(read_shape(where, object, &entry->tensor));
  SY_TRY(read_offsets(where, object, data_offset, file->version.bytes - data_offset, entry));
  if (entry->unknown_dtype[0] == '\0') {
    SY_TRY(check_size(where, &entry->tensor));
  }
  return SY_OK;
}

static bool is_metadata(const char *name) { return strcmp(name, "__metadata__") == 0; }

/* Room for the entries and their names, both bounded by the header that is already in memory. */
static sy_status allocate_entries(struct sy_safetensors *file, json_t *header) {
  size_t name_bytes = 0;
  const char *name;
  json_t *value;
  json_object_foreach(header, name, value) {
    if (!is_metadata(name)) {
      SY_TRY(sy_tensor_name_check(sy_path_shown(file->path), name));
      name_bytes += strlen(name) + 1;
      ++file->num_entries;
    }
  }
  file->entries = sy_alloc(file->num_entries * sizeof *file->entries);
  file->names = sy_alloc(name_bytes);
  if (file->entries == NULL || file->names == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory for its %zu tensors", sy_path_shown(file->path),
                   file->num_entries);
  }
  return SY_OK;
}

static sy_status read_entries(struct sy_safetensors *file, size_t data_offset, json_t *header) {
  SY_TRY(allocate_entries(file, header));
  struct sy_safetensors_entry *entry = file->entries;
  char *names = file->names;
  const char *name;
  json_t *value;
  json_object_foreach(header, name, value) {
    if (is_metadata(name)) {
      continue;
    }
    const size_t bytes = strlen(name) + 1;
    *entry =
        (struct sy_safetensors_entry){.name = memcpy(names, name, bytes), .tensor = SY_TENSOR_INIT};
    SY_TRY(read_entry(file, data_offset, value, entry));
    names += bytes;
    ++entry;
  }
  return SY_OK;
}

static int by_position(const void *a, const void *b) {
  const struct sy_safetensors_entry *x = a;
  const struct sy_safetensors_entry *y = b;
  if (x->begin != y->begin) {
    return x->begin < y->begin ? -1 : 1;
  }
  return (x->tensor.bytes > y->tensor.bytes) - (x->tensor.bytes < y->tensor.bytes);
}

static int by_name(const void *a, const void *b) {
  return strcmp(((const struct sy_safetensors_entry *)a)->name,
                ((const struct sy_safetensors_entry *)b)->name);
}

/* The tensors, one after the other, are the data: no gap, no overlap. Leaves them
 * sorted by name. */
static sy_status check_cover(struct sy_safetensors *file, size_t data_offset) {
  const char *const shown = sy_path_shown(file->path);
  const size_t data_bytes = file->version.bytes - data_offset;
  size_t end = 0;
  qsort(file->entries, file->num_entries, sizeof *file->entries, by_position);
  for (size_t i = 0; i < file->num_entries; ++i) {
    const struct sy_safetensors_entry *entry = &file->entries[i];
    const size_t begin = entry->begin - data_offset;
    if (begin < end) {
      return sy_fail(SY_ERR_FORMAT,
                     "%s: tensor '%s': begins at %zu, inside a tensor before it; expected %zu",
                     shown, entry->name, begin, end);
    }
    if (begin > end) {
      return sy_fail(SY_ERR_FORMAT,
                     "%s: tensor '%s': begins at %zu; expected %zu, where the one before it ends",
                     shown, entry->name, begin, end);
    }
    end += entry->tensor.bytes;
  }
  if (end != data_bytes) {
    return sy_fail(SY_ERR_FORMAT, "%s: has %zu bytes of data; expected %zu, where its tensors end",
                   shown, data_bytes, end);
  }
  qsort(file->entries, file->num_entries, sizeof *file->entries, by_name);
  return SY_OK;
}

static sy_status read_header_length(const struct sy_safetensors *file, size_t *bytes_out) {
  const char *const shown = sy_path_shown(file->path);
  const size_t file_bytes = file->version.bytes;
  unsigned char length[LENGTH_BYTES];
  if (file_bytes < LENGTH_BYTES) {
    return sy_fail(SY_ERR_FORMAT, "%s: has %zu bytes; expected at least the %d of a header length",
                   shown, file_bytes, LENGTH_BYTES);
  }
  SY_TRY(sy_file_read_at(file->fd, shown, 0, length, sizeof length));
  uint64_t bytes = 0;
  for (int i = LENGTH_BYTES - 1; i >= 0; --i) {
    bytes = bytes << 8 | length[i];
  }
  if (bytes > file_bytes - LENGTH_BYTES) {
    return sy_fail(SY_ERR_FORMAT,
                   "%s: header length %llu; expected at most %zu, what the file holds after it: it "
                   "is cut short, or no safetensors file",
                   shown, (unsigned long long)bytes, file_bytes - LENGTH_BYTES);
  }
  if (bytes > SY_SAFETENSORS_MAX_HEADER_BYTES) {
    return sy_fail(SY_ERR_FORMAT, "%s: header length %llu; allowed: at most %zu", shown,
                   (unsigned long long)bytes, SY_SAFETENSORS_MAX_HEADER_BYTES);
  }
  *bytes_out = (size_t)bytes;
  return SY_OK;
}

static sy_status read_header(const struct sy_safetensors *file, size_t *data_offset_out,
                             json_t **header_out) {
  size_t bytes = 0;
  SY_TRY(read_header_length(file, &bytes));
  char *text = sy_alloc(bytes);
  if (text == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory for its header of %zu bytes",
                   sy_path_shown(file->path), bytes);
  }
  char where[WHERE_BYTES];
  snprintf(where, sizeof where, "%s: header", sy_path_shown(file->path));
  sy_status status = sy_file_read_at(file->fd, where, LENGTH_BYTES, text, bytes);
  if (status == SY_OK) {
    status = sy_json_parse(where, text, bytes, "{{[", header_out);
  }
  sy_free(text);
  *data_offset_out = LENGTH_BYTES + bytes;
  return status;
}

static sy_status open_file(const char *path, struct sy_safetensors *file) {
  SY_TRY(sy_path_join(NULL, path, &file->path));
  SY_TRY(sy_file_open(path, &file->fd, &file->version));
  size_t data_offset = 0;
  json_t *header = NULL;
  SY_TRY(read_header(file, &data_offset, &header));
  const sy_status status = read_entries(file, data_offset, header);
  json_decref(header);
  SY_TRY(status);
  return check_cover(file, data_offset);
}

sy_status sy_safetensors_open(const char *path, struct sy_safetensors **file_out) {
  struct sy_safetensors *file = sy_alloc(sizeof *file);
  if (file == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory to open it", sy_path_shown(path));
  }
  *file = (struct sy_safetensors){.fd = -1};
  const sy_status status = open_file(path, file);
  if (status != SY_OK) {
    sy_safetensors_close(file);
    return status;
  }
  *file_out = file;
  return SY_OK;
}

void sy_safetensors_close(struct sy_safetensors *file) {
  if (file == NULL) {
    return;
  }
  if (file->fd >= 0) {
    close(file->fd);
  }
  sy_free(file->entries);
  sy_free(file->names);
  sy_free(file->path);
  sy_free(file);
}

const struct sy_safetensors_entry *sy_safetensors_find(const struct sy_safetensors *file,
                                                       const char *name) {
  const struct sy_safetensors_entry key = {.name = name};
  return bsearch(&key, file->entries, file->num_entries, sizeof key, by_name);
}

sy_status sy_safetensors_read(const struct sy_safetensors *file,
                              const struct sy_safetensors_entry *entry, size_t offset, void *buffer,
                              size_t bytes) {
  char where[WHERE_BYTES];
  snprintf(where, sizeof where, "%s: tensor '%s'", sy_path_shown(file->path), entry->name);
  const sy_status status = sy_file_read_at(file->fd, where, entry->begin + offset, buffer, bytes);
  /* Afterwards: what was read before a change is what the file said when it was opened. */
  SY_TRY(sy_file_check_unchanged(file->fd, where, &file->version));
  return status;
}
