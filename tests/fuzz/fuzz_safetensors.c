/* A safetensors file. Input: n, two bytes, little-endian, then a text. n < 0xFFFF: the text is the
 * header, its length is put before it and n bytes of data behind; otherwise it is the whole file. */
#include <stdlib.h>
#include <string.h>

#include "runtime/checkpoint/safetensors.h"
#include "tests/fuzz/fuzz.h"

#define WHOLE_FILE 0xFFFFu
#define LENGTH_BYTES 8

static const char *write_file(const uint8_t *data, size_t size, size_t *file_bytes_out) {
  const unsigned n = data[0] | (unsigned)data[1] << 8;
  const size_t text_bytes = size - 2;
  if (n == WHOLE_FILE) {
    *file_bytes_out = text_bytes;
    return fuzz_file(data + 2, text_bytes, 0);
  }
  uint8_t *file = malloc(LENGTH_BYTES + text_bytes);
  FUZZ_CHECK(file != NULL);
  for (int i = 0; i < LENGTH_BYTES; ++i) {
    file[i] = (uint8_t)((uint64_t)text_bytes >> (8 * i));
  }
  memcpy(file + LENGTH_BYTES, data + 2, text_bytes);
  const char *path = fuzz_file(file, LENGTH_BYTES + text_bytes, n);
  free(file);
  *file_bytes_out = LENGTH_BYTES + text_bytes + n;
  return path;
}

/* Names ascend; every tensor lies in the file, can be read, and is found. */
static void check_tensors(const struct sy_safetensors *file, size_t file_bytes) {
  size_t sum = 0;
  for (size_t i = 0; i < file->num_entries; ++i) {
    const struct sy_safetensors_entry *entry = &file->entries[i];
    const size_t bytes = entry->tensor.bytes;
    FUZZ_CHECK(i == 0 || strcmp(file->entries[i - 1].name, entry->name) < 0);
    FUZZ_CHECK(strlen(entry->name) < SY_TENSOR_NAME_BYTES);
    FUZZ_CHECK(sy_safetensors_find(file, entry->name) == entry);
    FUZZ_CHECK(entry->begin >= LENGTH_BYTES && entry->begin <= file_bytes);
    FUZZ_CHECK(bytes <= file_bytes - entry->begin);
    FUZZ_CHECK(entry->tensor.num_dims >= 0 && entry->tensor.num_dims <= SY_TENSOR_MAX_DIMS);
    char last = 1;
    if (bytes > 0) {
      FUZZ_CHECK(sy_safetensors_read(file, entry, bytes - 1, &last, 1) == SY_OK);
    }
    sum += bytes;
  }
  FUZZ_CHECK(sum <= file_bytes - LENGTH_BYTES);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size < 2) {
    return 0;
  }
  size_t file_bytes = 0;
  const char *path = write_file(data, size, &file_bytes);
  struct sy_safetensors *file = NULL;
  if (sy_safetensors_open(path, &file) == SY_OK) {
    check_tensors(file, file_bytes);
  } else {
    FUZZ_CHECK(file == NULL);
    fuzz_check_sentence(sy_last_error(NULL));
  }
  sy_safetensors_close(file);
  return 0;
}
