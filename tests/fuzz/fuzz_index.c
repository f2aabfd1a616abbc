/* The index of shards. Input: its text. Two shards lie in the folder: a.safetensors with tensors x
 * and y, b.safetensors with z. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/file.h"
#include "runtime/checkpoint/index.h"
#include "runtime/memory.h"
#include "tests/fuzz/fuzz.h"

static char folder[] = "/tmp/switchyard-fuzz-XXXXXX";
static const struct {
  const char *name, *header, *data;
} shards[] = {
    {"a.safetensors",
     "{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
     "xyy"},
    {"b.safetensors", "{\"z\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]}}", "z"}};
#define NUM_SHARDS (sizeof shards / sizeof shards[0])

static void shard_path(size_t shard, char path[64]) {
  snprintf(path, 64, "%s/%s", folder, shards[shard].name);
}

static void remove_folder(void) {
  for (size_t i = 0; i < NUM_SHARDS; ++i) {
    char path[64];
    shard_path(i, path);
    unlink(path);
  }
  rmdir(folder);
}

static void make_folder(void) {
  FUZZ_CHECK(mkdtemp(folder) != NULL);
  FUZZ_CHECK(atexit(remove_folder) == 0);
  for (size_t i = 0; i < NUM_SHARDS; ++i) {
    char path[64];
    shard_path(i, path);
    FILE *file = fopen(path, "wb");
    const unsigned char length[8] = {(unsigned char)strlen(shards[i].header)};
    FUZZ_CHECK(file != NULL && fwrite(length, 1, sizeof length, file) == sizeof length);
    FUZZ_CHECK(fputs(shards[i].header, file) >= 0 && fputs(shards[i].data, file) >= 0);
    FUZZ_CHECK(fclose(file) == 0);
  }
}

/* Every tensor is one of ours, from the shard that has it; each shard is open once. */
static void check_tensors(const sy_checkpoint *checkpoint) {
  FUZZ_CHECK(checkpoint->num_files <= NUM_SHARDS && checkpoint->num_tensors <= 3);
  for (size_t i = 0; i < checkpoint->num_tensors; ++i) {
    const struct sy_checkpoint_tensor *tensor = &checkpoint->tensors[i];
    const char expected = tensor->name[0];
    char found = 0;
    FUZZ_CHECK(expected >= 'x' && expected <= 'z' && tensor->name[1] == '\0');
    FUZZ_CHECK(sy_safetensors_read(tensor->file, tensor->entry, 0, &found, 1) == SY_OK);
    FUZZ_CHECK(found == expected);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int ready;
  if (!ready) {
    make_folder();
    ready = 1;
  }
  sy_checkpoint *checkpoint = sy_alloc(sizeof *checkpoint);
  FUZZ_CHECK(checkpoint != NULL);
  *checkpoint = (sy_checkpoint){0};
  FUZZ_CHECK(sy_path_join(NULL, folder, &checkpoint->path) == SY_OK);
  if (sy_index_open(checkpoint, fuzz_file(data, size, 0)) == SY_OK) {
    check_tensors(checkpoint);
  } else {
    fuzz_check_sentence(sy_last_error(NULL));
  }
  sy_checkpoint_close(checkpoint);
  return 0;
}
