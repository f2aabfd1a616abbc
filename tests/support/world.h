/* The ranks that run a test together: one process (harness_local.c) or MPI's (harness_mpi.c). */
#ifndef SY_TESTS_SUPPORT_WORLD_H
#define SY_TESTS_SUPPORT_WORLD_H

/* 0 if the world cannot be set up. */
int sy_test_world_begin(int *rank_out, int *world_out);

/* The sum over all ranks, on every rank. */
int sy_test_world_sum(int value);

/* Whether this rank leaked memory, where that is known before the program ends. */
int sy_test_world_end(void);

#endif
