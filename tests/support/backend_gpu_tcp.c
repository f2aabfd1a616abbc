/* Groups of ranks on GPUs without MPI: each at a port of its own, which rank 0 finds. */
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/switchyard_nccl.h"
#include "tests/support/backend.h"
#include "tests/support/harness.h"
#include "tests/support/world.h"

static int find_free_port(void) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  socklen_t bytes = sizeof at;
  CHECK(bind(fd, (struct sockaddr *)&at, sizeof at) == 0);
  getsockname(fd, (struct sockaddr *)&at, &bytes);
  close(fd);
  return ntohs(at.sin_port);
}

sy_status backend_group_mpi(const sy_group_desc *desc, sy_group **group_out) {
  char address[32];
  const int port = sy_test_world_sum(sy_test_rank() == 0 ? find_free_port() : 0);
  snprintf(address, sizeof address, "127.0.0.1:%d", port);
  return sy_group_create_nccl_tcp(address, sy_test_rank(), sy_test_world(), desc, group_out);
}
