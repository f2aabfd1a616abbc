/* Groups of several ranks on GPUs: the ways to make one, and what keeps one from being made. Over the
 * stand-ins. */
#include <mpi.h>
#include <nccl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/switchyard_nccl_mpi.h"
#include "tests/simt/host.h"
#include "tests/support/harness.h"

static bool is_last(void) { return sy_test_rank() == sy_test_world() - 1; }

static sy_group_desc patient(void) {
  sy_group_desc desc = SY_GROUP_DESC_INIT;
  desc.timeout_ms = 60000;
  desc.load_timeout_ms = 60000;
  return desc;
}

/* A free port of rank 0's loopback interface. */
static const char *shared_address(void) {
  static char address[32];
  int port = 0;
  if (sy_test_rank() == 0) {
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof at;
    CHECK(bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
    getsockname(fd, (struct sockaddr *)&at, &bytes);
    port = ntohs(at.sin_port);
    close(fd);
  }
  MPI_Bcast(&port, 1, MPI_INT, 0, MPI_COMM_WORLD);
  snprintf(address, sizeof address, "127.0.0.1:%d", port);
  return address;
}

static ncclUniqueId shared_id(void) {
  ncclUniqueId id = {{0}};
  if (sy_test_rank() == 0) {
    CHECK_EQ_I64(ncclGetUniqueId(&id), ncclSuccess);
  }
  MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
  return id;
}

static void check_group(sy_group *group) {
  CHECK_EQ_I64(sy_group_rank(group), sy_test_rank());
  CHECK_EQ_I64(sy_group_world(group), sy_test_world());
  CHECK_EQ_I64(sy_group_memory(group), SY_MEMORY_DEVICE);
  CHECK_OK(sy_group_poll(group));
}

TEST(over_mpi) {
  const sy_group_desc desc = patient();
  sy_group *group = NULL;
  if (CHECK_OK(sy_group_create_nccl_mpi(MPI_COMM_WORLD, &desc, &group))) {
    check_group(group);
    sy_group_destroy(group);
  }
  CHECK_EQ_U64(simt_num_alive(), 0);
}

TEST(over_tcp) {
  const sy_group_desc desc = patient();
  sy_group *group = NULL;
  if (CHECK_OK(sy_group_create_nccl_tcp(shared_address(), sy_test_rank(), sy_test_world(), &desc,
                                        &group))) {
    check_group(group);
    sy_group_destroy(group);
  }
  CHECK_EQ_U64(simt_num_alive(), 0);
}

TEST(from_an_id) {
  const ncclUniqueId id = shared_id();
  const sy_group_desc desc = patient();
  sy_group *group = NULL;
  if (CHECK_OK(sy_group_create_nccl_id(&id, sy_test_rank(), sy_test_world(), &desc, &group))) {
    check_group(group);
    sy_group_destroy(group);
  }
  CHECK_EQ_U64(simt_num_alive(), 0);
}

TEST(from_a_communicator) {
  ncclComm_t comm = NULL;
  const sy_group_desc desc = patient();
  sy_group *group = NULL;
  CHECK_EQ_I64(ncclCommInitRank(&comm, sy_test_world(), shared_id(), sy_test_rank()), ncclSuccess);
  if (CHECK_OK(sy_group_create_nccl(comm, &desc, &group))) {
    check_group(group);
    sy_group_destroy(group);
  }
  CHECK_EQ_I64(ncclCommDestroy(comm), ncclSuccess); /* still the caller's */
  CHECK_EQ_U64(simt_num_alive(), 0);
}

/* The ranks of a host take its GPUs in turn. */
TEST(ranks_take_gpus_in_turn) {
  sy_group *group = NULL;
  int device = -1;
  const sy_group_desc desc = patient();
  CHECK(simt_set_devices("sm120,sm120,sm120"));
  if (CHECK_OK(sy_group_create_nccl_tcp(shared_address(), sy_test_rank(), sy_test_world(), &desc,
                                        &group))) {
    CHECK_EQ_I64(cudaGetDevice(&device), cudaSuccess);
    CHECK_EQ_I64(device, sy_test_rank() % 3);
    sy_group_destroy(group);
  }
}

/* ---- What keeps a group from being made ---- */

TEST(a_rank_without_a_gpu_fails_the_call_on_all) {
  sy_group *group = NULL;
  const sy_group_desc desc = patient();
  if (is_last()) {
    CHECK(simt_set_devices(""));
  }
  CHECK_STATUS(sy_group_create_nccl_mpi(MPI_COMM_WORLD, &desc, &group), SY_ERR_DEVICE);
  if (is_last()) {
    CHECK_STR_HAS(sy_last_error(NULL), "no CUDA-capable device is detected");
  } else {
    char name[64];
    snprintf(name, sizeof name, "sy_group_create_nccl_mpi: rank %d:", sy_test_world() - 1);
    CHECK_STR_HAS(sy_last_error(NULL), name);
  }
  CHECK(group == NULL);
}

TEST(a_rank_with_wrong_arguments_fails_the_call_on_all) {
  sy_group *group = NULL;
  sy_group_desc desc = patient();
  desc.num_threads = is_last() ? -7 : 0;
  CHECK_STATUS(
      sy_group_create_nccl_tcp(shared_address(), sy_test_rank(), sy_test_world(), &desc, &group),
      SY_ERR_ARGUMENT);
  CHECK_STR_HAS(sy_last_error(NULL), is_last() ? "num_threads is -7" : "rank ");
  CHECK(group == NULL);
  CHECK_EQ_U64(simt_num_alive(), 0);
}

TEST(arguments_that_are_none) {
  sy_group *group = NULL;
  CHECK_STATUS(sy_group_create_nccl(NULL, NULL, &group), SY_ERR_ARGUMENT);
  CHECK_STATUS(sy_group_create_nccl_id(NULL, 0, 1, NULL, &group), SY_ERR_ARGUMENT);
  CHECK_STATUS(sy_group_create_nccl_mpi(MPI_COMM_NULL, NULL, &group), SY_ERR_ARGUMENT);
  CHECK_STATUS(sy_group_create_nccl_tcp("nowhere", 0, 1, NULL, &group), SY_ERR_ARGUMENT);
  CHECK_STR_HAS(sy_last_error(NULL), "the address 'nowhere' is not of the form host:port");
  CHECK(group == NULL);
}
