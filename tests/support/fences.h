/* Buffers of exactly the size asked for, so that one element too many shows: fences before and
 * behind, or AddressSanitizer's. New memory is all ones: NaN in every float format, -1 in every
 * integer, so that reading what nobody wrote shows too. */
#ifndef SY_TESTS_SUPPORT_FENCES_H
#define SY_TESTS_SUPPORT_FENCES_H

#include <stdbool.h>
#include <stddef.h>

struct fenced_block;

/* Starts as {NULL}. */
struct fences {
  struct fenced_block *last;
};

/* 64-byte aligned; ends the program when memory is out. bytes may be 0. */
void *fences_alloc(struct fences *fences, size_t bytes, const char *name)
    __attribute__((returns_nonnull));

#define FENCED(fences, type, count, name) \
  ((type *)fences_alloc((fences), (size_t)(count) * sizeof(type), (name)))

/* Names the buffers whose fences were overwritten; false if there are any. */
bool fences_hold(const struct fences *fences);

/* Frees all buffers. */
void fences_free(struct fences *fences);

#endif
