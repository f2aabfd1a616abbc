/* The world that mpirun started. */
#include <mpi.h>
#include <stddef.h>

#include "tests/support/world.h"

/* Results travel apart from whatever messages a failed case left behind. */
static MPI_Comm results;

int sy_test_world_begin(int *rank_out, int *world_out) {
  return MPI_Init(NULL, NULL) == MPI_SUCCESS &&
         MPI_Comm_dup(MPI_COMM_WORLD, &results) == MPI_SUCCESS &&
         MPI_Comm_rank(results, rank_out) == MPI_SUCCESS &&
         MPI_Comm_size(results, world_out) == MPI_SUCCESS;
}

int sy_test_world_sum(int value) {
  int sum = 0;
  MPI_Allreduce(&value, &sum, 1, MPI_INT, MPI_SUM, results);
  return sum;
}

void sy_test_world_end(void) {
  MPI_Comm_free(&results);
  MPI_Finalize();
}
