/* That forward allocates nothing. Counts the allocation calls of our own objects: a program that
 * uses this is linked with --wrap (tests/CMakeLists.txt), which redirects only the calls of what is
 * linked statically. MPI and OpenMP may allocate what they like. */
#ifndef SY_TESTS_SUPPORT_ALLOC_FREE_H
#define SY_TESTS_SUPPORT_ALLOC_FREE_H

#include "tests/support/layer_case.h"

/* Counts from now on; the calls since then, and no longer counting. */
void alloc_watch(void);
uint64_t alloc_watched(void);

/* A call that counts, if they are counted now. */
void alloc_note(void);

/* Runs every strategy and combine, in waves and chunks, whole and in halves, and calls that fail;
 * none may allocate or free anything once memory is reserved. The shape is spoil_shape(). */
void check_forward_is_alloc_free(const struct layer_rank *rank, const struct token_split *split);

#endif
