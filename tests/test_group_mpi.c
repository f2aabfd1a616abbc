/* Groups over MPI: creation, and what can go wrong in it. */
#define _GNU_SOURCE /* sched_setaffinity */
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "runtime/internal.h"
#include "runtime/switchyard_mpi.h"
#include "tests/support/harness.h"

/* Linked with --wrap: one rank may pretend to be of another version. */
static const char *pretended_version;

const char *__real_sy_version(void);
const char *__wrap_sy_version(void);

const char *__wrap_sy_version(void) {
  return pretended_version != NULL ? pretended_version : __real_sy_version();
}

static bool is_last(void) { return sy_test_rank() == sy_test_world() - 1; }

TEST(ranks_and_world_are_those_of_the_communicator) {
  MPI_Comm reversed = MPI_COMM_NULL;
  sy_group *group = NULL;
  MPI_Comm_split(MPI_COMM_WORLD, 0, -sy_test_rank(), &reversed);
  if (CHECK_OK(sy_group_create_mpi(reversed, NULL, &group))) {
    MPI_Comm_free(&reversed);
    CHECK_EQ_I64(sy_group_rank(group), sy_test_world() - 1 - sy_test_rank());
    CHECK_EQ_I64(sy_group_world(group), sy_test_world());
    CHECK_OK(sy_group_poll(group));
    sy_group_destroy(group);
  }
}

TEST(groups_come_and_go_in_any_order) {
  sy_group *groups[8];
  for (int i = 0; i < 8; ++i) {
    if (!CHECK_OK(sy_group_create_mpi(MPI_COMM_WORLD, NULL, &groups[i]))) {
      return;
    }
  }
  for (int i = 0; i < 8; ++i) { /* each rank in an order of its own: destroy does not communicate */
    sy_group_destroy(groups[(i + sy_test_rank()) % 8]);
  }
}

TEST(communicators_of_the_wrong_kind_are_named) {
  sy_group *group = NULL;
  CHECK_STATUS(sy_group_create_mpi(MPI_COMM_NULL, NULL, &group), SY_ERR_ARGUMENT);
  CHECK_STR_HAS(sy_last_error(NULL), "MPI_COMM_NULL");
  if (sy_test_world() > 1) {
    MPI_Comm half = MPI_COMM_NULL;
    MPI_Comm inter = MPI_COMM_NULL;
    const int side = sy_test_rank() % 2;
    MPI_Comm_split(MPI_COMM_WORLD, side, 0, &half);
    MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, 1 - side, 0, &inter);
    CHECK_STATUS(sy_group_create_mpi(inter, NULL, &group), SY_ERR_ARGUMENT);
    CHECK_STR_HAS(sy_last_error(NULL), "inter-communicator");
    MPI_Comm_free(&inter);
    MPI_Comm_free(&half);
  }
  CHECK(group == NULL);
}

/* The last rank alone is wrong; all fail, and know who it is. */
static void check_all_refused(const sy_group_desc *desc, sy_group **group_out, const char *why) {
  char name[32];
  snprintf(name, sizeof name, "rank %d", sy_test_world() - 1);
  CHECK_STATUS(sy_group_create_mpi(MPI_COMM_WORLD, desc, group_out), SY_ERR_ARGUMENT);
  CHECK_STR_HAS(sy_last_error(NULL), is_last() ? why : name);
}

TEST(one_rank_with_bad_arguments_fails_all) {
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  sy_group *group = NULL;
  if (is_last()) {
    desc.timeout_ms = 0;
  }
  check_all_refused(&desc, &group, "timeout_ms is 0");
  check_all_refused(NULL, is_last() ? NULL : &group, "group_out is NULL");
  if (is_last()) {
    setenv("SWITCHYARD_CPU_LEVEL", "abacus", 1);
  }
  check_all_refused(NULL, &group, "SWITCHYARD_CPU_LEVEL is 'abacus'");
  CHECK(group == NULL);
  unsetenv("SWITCHYARD_CPU_LEVEL");
  if (CHECK_OK(sy_group_create_mpi(MPI_COMM_WORLD, NULL, &group))) {
    sy_group_destroy(group);
  }
}

TEST(another_version_on_one_rank_is_named) {
  sy_group *group = NULL;
  pretended_version = is_last() ? "9.8.7" : NULL;
  const sy_status status = sy_group_create_mpi(MPI_COMM_WORLD, NULL, &group);
  pretended_version = NULL;
  if (sy_test_world() == 1) { /* there is nobody to differ from */
    CHECK_EQ_I64(status, SY_OK);
    sy_group_destroy(group);
    return;
  }
  CHECK_EQ_I64(status, SY_ERR_MISMATCH);
  CHECK(group == NULL);
  char expected[64];
  snprintf(expected, sizeof expected, "rank 0 has %s, rank %d has 9.8.7", sy_version(),
           sy_test_world() - 1);
  CHECK_STR_HAS(sy_last_error(NULL), expected);
}

TEST(a_rank_missing_from_creation_is_an_error_in_time) {
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  sy_group *group = NULL;
  desc.load_timeout_ms = 200;
  if (is_last()) {
    nanosleep(&(struct timespec){.tv_nsec = 700000000}, NULL);
  }
  const sy_status status = sy_group_create_mpi(MPI_COMM_WORLD, &desc, &group);
  if (sy_test_world() == 1) {
    CHECK_EQ_I64(status, SY_OK);
    sy_group_destroy(group);
    return;
  }
  CHECK_EQ_I64(status, SY_ERR_PEER);
  CHECK(group == NULL);
  CHECK(sy_last_error(NULL)[0] != '\0');
}

/* ---- Threads ---- */

static int32_t default_threads(void) {
  sy_group *group = NULL;
  int32_t num_threads = -1;
  if (CHECK_OK(sy_group_create_mpi(MPI_COMM_WORLD, NULL, &group))) {
    num_threads = group->desc.num_threads;
    sy_group_destroy(group);
  }
  return num_threads;
}

TEST(threads_are_a_share_of_the_cores) {
  cpu_set_t all;
  if (!CHECK(sched_getaffinity(0, sizeof all, &all) == 0)) {
    return;
  }
  const int num_cores = CPU_COUNT(&all);
  const int world = sy_test_world();
  unsetenv("OMP_NUM_THREADS");
  CHECK_EQ_I64(default_threads(), num_cores / world > 1 ? num_cores / world : 1);
  if (num_cores < 2) {
    return;
  }
  /* Rank 0 keeps the first core to itself; the others share the rest, and rank 0 does not count. */
  cpu_set_t mine = all;
  size_t first = 0;
  while (!CPU_ISSET(first, &all)) {
    ++first;
  }
  if (sy_test_rank() == 0) {
    CPU_ZERO(&mine);
    CPU_SET(first, &mine);
  } else {
    CPU_CLR(first, &mine);
  }
  CHECK(sched_setaffinity(0, sizeof mine, &mine) == 0);
  const int others = world > 1 ? (num_cores - 1) / (world - 1) : 1;
  CHECK_EQ_I64(default_threads(), sy_test_rank() == 0 ? 1 : others > 1 ? others : 1);
  CHECK(sched_setaffinity(0, sizeof all, &all) == 0);
}

TEST(threads_that_were_asked_for_are_given) {
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  sy_group *group = NULL;
  desc.num_threads = 3;
  if (CHECK_OK(sy_group_create_mpi(MPI_COMM_WORLD, &desc, &group))) {
    CHECK_EQ_I64(group->desc.num_threads, 3);
    sy_group_destroy(group);
  }
}
