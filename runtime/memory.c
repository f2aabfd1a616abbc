#include "runtime/memory.h"

#include <stdlib.h>

void *sy_alloc(size_t bytes) {
  void *block = NULL;
  return posix_memalign(&block, SY_ALLOC_ALIGN, bytes > 0 ? bytes : 1) == 0 ? block : NULL;
}

void sy_free(void *block) { free(block); }
