#include "runtime/memory.h"

#include <stdlib.h>
#include <sys/mman.h>

/* From this size on a block is worth huge pages: weights are read from end to end, and with small
 * pages every 4 KiB costs a walk of the page table. */
#define SY_HUGE_PAGE ((size_t)2 << 20)
#define SY_HUGE_BYTES (2 * SY_HUGE_PAGE)

void *sy_alloc(size_t bytes) {
  const size_t align = bytes >= SY_HUGE_BYTES ? SY_HUGE_PAGE : SY_ALLOC_ALIGN;
  void *block = NULL;
  if (posix_memalign(&block, align, bytes > 0 ? bytes : 1) != 0) {
    return NULL;
  }
#if defined(MADV_HUGEPAGE)
  if (bytes >= SY_HUGE_BYTES) {
    madvise(block, bytes / SY_HUGE_PAGE * SY_HUGE_PAGE, MADV_HUGEPAGE); /* advice: may be refused */
  }
#endif
  return block;
}

void sy_free(void *block) { free(block); }
