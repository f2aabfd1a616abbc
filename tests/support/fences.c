#include "tests/support/fences.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64, FENCE_BYTE = 0xC3, FRESH_BYTE = 0xFF };

#if defined(__SANITIZE_ADDRESS__)
#define FENCE_BYTES 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FENCE_BYTES 0
#endif
#endif
#ifndef FENCE_BYTES
#define FENCE_BYTES 64
#endif

static const size_t fence_bytes = FENCE_BYTES;

struct fenced_block {
  struct fenced_block *previous;
  const char *name;
  unsigned char *memory; /* fence | bytes | fence */
  size_t bytes;
};

static void *allocate(size_t bytes) {
  void *memory = NULL;
  if (posix_memalign(&memory, ALIGNMENT, bytes) != 0 || memory == NULL) {
    fprintf(stderr, "a test needs %zu bytes more than there are\n", bytes);
    abort();
  }
  return memory;
}

void *fences_alloc(struct fences *fences, size_t bytes, const char *name) {
  struct fenced_block *block = allocate(sizeof *block);
  /* posix_memalign(0) may give NULL. */
  const size_t all = bytes + 2 * fence_bytes;
  *block = (struct fenced_block){.previous = fences->last,
                                 .name = name,
                                 .memory = allocate(all > 0 ? all : 1),
                                 .bytes = bytes};
  memset(block->memory, FENCE_BYTE, fence_bytes);
  memset(block->memory + fence_bytes, FRESH_BYTE, bytes);
  memset(block->memory + fence_bytes + bytes, FENCE_BYTE, fence_bytes);
  fences->last = block;
  return block->memory + fence_bytes;
}

static bool is_whole(const unsigned char *fence) {
  for (size_t i = 0; i < fence_bytes; ++i) {
    if (fence[i] != FENCE_BYTE) {
      return false;
    }
  }
  return true;
}

bool fences_hold(const struct fences *fences) {
  bool hold = true;
  for (const struct fenced_block *b = fences->last; b != NULL; b = b->previous) {
    const bool before = is_whole(b->memory);
    const bool behind = is_whole(b->memory + fence_bytes + b->bytes);
    if (!before || !behind) {
      fprintf(stderr, "%s: memory %s its %zu bytes was overwritten\n", b->name,
              before ? "behind" : "before", b->bytes);
      hold = false;
    }
  }
  return hold;
}

void fences_free(struct fences *fences) {
  while (fences->last != NULL) {
    struct fenced_block *block = fences->last;
    fences->last = block->previous;
    free(block->memory);
    free(block);
  }
}
