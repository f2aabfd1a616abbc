/* The ranks that run a test together: one process (harness_local.c), MPI's (harness_mpi.c), or those of
 * tests/gpu/local_ranks.sh (harness_tcp.c). */
#ifndef SY_TESTS_SUPPORT_WORLD_H
#define SY_TESTS_SUPPORT_WORLD_H

#include <stddef.h>

/* 0 if the world cannot be set up. */
int sy_test_world_begin(int *rank_out, int *world_out);

/* The sum over all ranks, on every rank. */
int sy_test_world_sum(int value);

/* Each rank brings its part, bytes [begins[rank], begins[rank + 1]) of `all`; then every rank has all. */
void sy_test_world_share(void *all, const size_t *begins);

/* Whether this rank leaked memory, where that is known before the program ends. */
int sy_test_world_end(void);

#endif
