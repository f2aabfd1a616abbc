/* The world that mpirun started. */
#include <mpi.h>
#include <stddef.h>

#include "tests/support/world.h"

/* LeakSanitizer's, where the program is built with it. */
__attribute__((weak)) void __lsan_disable(void);
__attribute__((weak)) void __lsan_enable(void);
__attribute__((weak)) int __lsan_do_recoverable_leak_check(void);

/* Results travel apart from whatever messages a failed case left behind. */
static MPI_Comm results;

static int start(int *rank_out, int *world_out) {
  return MPI_Init(NULL, NULL) == MPI_SUCCESS &&
         MPI_Comm_dup(MPI_COMM_WORLD, &results) == MPI_SUCCESS &&
         MPI_Comm_rank(results, rank_out) == MPI_SUCCESS &&
         MPI_Comm_size(results, world_out) == MPI_SUCCESS;
}

/* What Open MPI never gives back it takes while it starts, mostly. */
int sy_test_world_begin(int *rank_out, int *world_out) {
  if (__lsan_disable == NULL) {
    return start(rank_out, world_out);
  }
  __lsan_disable();
  const int started = start(rank_out, world_out);
  __lsan_enable();
  return started;
}

int sy_test_world_sum(int value) {
  int sum = 0;
  MPI_Allreduce(&value, &sum, 1, MPI_INT, MPI_SUM, results);
  return sum;
}

void sy_test_world_share(void *all, const size_t *begins) {
  enum { MOST_RANKS = 64 };
  int counts[MOST_RANKS];
  int places[MOST_RANKS];
  int world = 0;
  MPI_Comm_size(results, &world);
  for (int r = 0; r < world && r < MOST_RANKS; ++r) {
    counts[r] = (int)(begins[r + 1] - begins[r]);
    places[r] = (int)begins[r];
  }
  MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, all, counts, places, MPI_BYTE, results);
}

/* Leaks are looked for here and not at exit: MPI_Finalize unloads Open MPI's plugins, and with them
 * the names by which tests/lsan.supp knows their leaks. */
int sy_test_world_end(void) {
  MPI_Comm_free(&results);
  const int leaked = __lsan_do_recoverable_leak_check != NULL && __lsan_do_recoverable_leak_check();
  MPI_Finalize();
  return leaked;
}
