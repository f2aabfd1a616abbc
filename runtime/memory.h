/* The only two functions by which the library allocates host memory, so that a test can count their
 * calls: after set-up there are none. */
#ifndef SY_RUNTIME_MEMORY_H
#define SY_RUNTIME_MEMORY_H

#include <stddef.h>

#include "runtime/switchyard.h"

/* A cache line, and the widest vector load. */
#define SY_ALLOC_ALIGN 64

/* Contents undefined, start aligned to SY_ALLOC_ALIGN. NULL only when memory has run out: 0 bytes
 * give a block too. */
SY_API void *sy_alloc(size_t bytes);

/* Takes what sy_alloc gave, or NULL. */
SY_API void sy_free(void *block);

#endif
