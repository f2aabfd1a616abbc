/* One safetensors file, kept open.
 *
 *   | header length N: u64, little-endian | header: N bytes of JSON | data |
 *   header: {"name": {"dtype": "BF16", "shape": [...], "data_offsets": [begin, end]}, ...}
 *
 * Offsets count from the start of the data. Invariants after opening: every tensor lies within the
 * file, is as long as its shape and dtype say, and the tensors cover the data without gap or
 * overlap.
 *
 * Memory: the header has at most SY_SAFETENSORS_MAX_HEADER_BYTES; opening takes at most 40 times its
 * length, and keeps at most 8 times until closing. Nothing is ever sized by a number found in it.
 *
 * The file is read, never mapped: one that is cut short under a mapping would end the process. */
#ifndef SY_RUNTIME_CHECKPOINT_SAFETENSORS_H
#define SY_RUNTIME_CHECKPOINT_SAFETENSORS_H

#include <stddef.h>

#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/json.h"
#include "runtime/switchyard_checkpoint.h"

/* A quarter of a million tensors; checkpoints of 10^12 parameters have fewer in all
 * their shards. */
#define SY_SAFETENSORS_MAX_HEADER_BYTES ((size_t)32 << 20)

/* With the terminating zero. */
#define SY_TENSOR_NAME_BYTES 256

struct sy_safetensors_entry {
  const char *name;
  sy_tensor tensor;
  size_t begin; /* in the file; begin + tensor.bytes <= version.bytes */
  /* Not empty: a dtype that we do not know, as an error text shows it; tensor.dtype is invalid. */
  char unknown_dtype[SY_JSON_SHOWN_BYTES];
};

struct sy_safetensors {
  char *path;
  int fd;
  struct sy_file_version version;
  struct sy_safetensors_entry *entries; /* by name */
  size_t num_entries;
  char *names;
};

sy_status sy_safetensors_open(const char *path, struct sy_safetensors **file_out);
void sy_safetensors_close(struct sy_safetensors *file);

/* NULL when there is none. */
const struct sy_safetensors_entry *sy_safetensors_find(const struct sy_safetensors *file,
                                                       const char *name);

/* Reads bytes [offset, offset + bytes) of a tensor, which lie within it. IO when they cannot be
 * read, or when the file has been written to since it was opened. */
sy_status sy_safetensors_read(const struct sy_safetensors *file,
                              const struct sy_safetensors_entry *entry, size_t offset, void *buffer,
                              size_t bytes);

/* Names are shorter than SY_TENSOR_NAME_BYTES, not empty, and without control characters. */
sy_status sy_tensor_name_check(const char *where, const char *name);

/* "BF16", and the bytes of one element. */
const char *sy_tensor_dtype_name(sy_tensor_dtype dtype);

#endif
