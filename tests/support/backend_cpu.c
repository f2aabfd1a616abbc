#include "tests/support/backend.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

sy_status backend_group(const sy_group_desc *desc, sy_group **group_out) {
  return sy_group_create_local(desc, group_out);
}

void *backend_alloc(size_t bytes) {
  void *block = NULL;
  if (posix_memalign(&block, ALIGNMENT, bytes > 0 ? bytes : 1) != 0) {
    fprintf(stderr, "a test needs %zu bytes more than there are\n", bytes);
    abort();
  }
  return block;
}

void backend_free(void *block) { free(block); }

void backend_upload(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

void backend_download(void *to, const void *from, size_t bytes) { memcpy(to, from, bytes); }

bool backend_is_gpu(void) { return false; }

bool backend_takes_device_tensors(void) { return false; }
