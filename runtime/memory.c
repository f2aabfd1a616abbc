#include "runtime/memory.h"

#include <stdint.h>
#include <stdlib.h>

void *sy_alloc(size_t bytes) {
  if (bytes > SIZE_MAX - SY_ALLOC_ALIGN) {
    return NULL;
  }
  const size_t rounded = (bytes + SY_ALLOC_ALIGN - 1) / SY_ALLOC_ALIGN * SY_ALLOC_ALIGN;
  return aligned_alloc(SY_ALLOC_ALIGN, rounded > 0 ? rounded : SY_ALLOC_ALIGN);
}

void sy_free(void *block) { free(block); }
