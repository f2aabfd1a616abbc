/* The harness on several ranks. */
#include <mpi.h>

#include "tests/support/harness.h"
#include "tests/support/world.h"

TEST(ranks_know_their_place) {
  int rank = -1;
  int world = -1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &world);
  CHECK_EQ_I64(sy_test_rank(), rank);
  CHECK_EQ_I64(sy_test_world(), world);
}

TEST(failures_of_all_ranks_add_up) {
  const int world = sy_test_world();
  CHECK_EQ_I64(sy_test_world_sum(sy_test_rank()), world * (world - 1) / 2);
}

TEST(random_numbers_agree_on_all_ranks) {
  const int x = (int)(sy_test_random() & 0xFFFFu);
  CHECK_EQ_I64(sy_test_world_sum(x), (int64_t)x * sy_test_world());
}
