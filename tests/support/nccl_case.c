#include "tests/support/nccl_case.h"

#include <mpi.h>
#include <nccl.h>
#include <sched.h>
#include <stdlib.h>

#include "comm/clock.h"
#include "comm/side_mpi.h"
#include "tests/support/harness.h"

static ncclComm_t bare_comm;

static void write_message(struct sy_transport *t, void *to, const void *from, size_t bytes) {
  CHECK_EQ_I64(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, t->stream), cudaSuccess);
}

static void read_message(struct sy_transport *t, void *to, const void *from, size_t bytes) {
  CHECK_OK(nccl_case_wait_stream(t, transport_deadline()));
  CHECK_EQ_I64(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, t->stream), cudaSuccess);
  CHECK_OK(nccl_case_wait_stream(t, transport_deadline()));
}

sy_status nccl_case_wait_stream(struct sy_transport *t, int64_t deadline_ns) {
  for (;;) {
    const cudaError_t state = cudaStreamQuery(t->stream);
    if (state == cudaSuccess) {
      return SY_OK;
    }
    if (state != cudaErrorNotReady) {
      return SY_ERR_DEVICE;
    }
    const sy_status status = t->ops->check(t);
    if (status != SY_OK) {
      return status;
    }
    if (sy_clock_ns() >= deadline_ns) {
      t->ops->expired(t);
      return SY_ERR_PEER;
    }
    sched_yield();
  }
}

static struct sy_transport *create(const struct sy_nccl_desc *desc) {
  static const struct transport_device device = {.write = write_message, .read = read_message};
  struct sy_transport *t = NULL;
  transport_device = &device;
  if (!CHECK_OK(sy_transport_create_nccl(desc, transport_deadline(), &t))) {
    return NULL;
  }
  cudaStream_t stream = NULL;
  CHECK_EQ_I64(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), cudaSuccess);
  t->stream = stream;
  return t;
}

struct sy_transport *nccl_case_create(void) {
  struct sy_side *side = NULL;
  if (!CHECK_OK(sy_side_create_mpi(MPI_COMM_WORLD, transport_deadline(), &side))) {
    return NULL;
  }
  const struct sy_nccl_desc desc = {.rank = sy_test_rank(), .world = sy_test_world(), .side = side};
  return create(&desc);
}

static ncclUniqueId shared_id(void) {
  ncclUniqueId id = {{0}};
  if (sy_test_rank() == 0) {
    CHECK_EQ_I64(ncclGetUniqueId(&id), ncclSuccess);
  }
  MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
  return id;
}

struct sy_transport *nccl_case_create_from_id(void) {
  const ncclUniqueId id = shared_id();
  const struct sy_nccl_desc desc = {
      .unique_id = &id, .rank = sy_test_rank(), .world = sy_test_world()};
  return create(&desc);
}

struct sy_transport *nccl_case_create_bare(void) {
  CHECK_EQ_I64(ncclCommInitRank(&bare_comm, sy_test_world(), shared_id(), sy_test_rank()),
               ncclSuccess);
  const struct sy_nccl_desc desc = {.comm = bare_comm};
  return create(&desc);
}

void nccl_case_close(struct sy_transport *t) {
  cudaStream_t stream = t->stream;
  const bool is_dead = t->ops->check(t) != SY_OK;
  t->ops->destroy(t);
  CHECK_EQ_I64(cudaStreamDestroy(stream), cudaSuccess);
  if (bare_comm != NULL && !is_dead) {
    CHECK_EQ_I64(ncclCommDestroy(bare_comm), ncclSuccess);
  }
  bare_comm = NULL;
}
