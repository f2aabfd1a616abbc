/* What goes wrong over NCCL: ranks that come late or not at all, communicators that fail, memory that
 * runs out, sizes that differ. Over the stand-ins. */
#include <mpi.h>
#include <nccl.h>
#include <time.h>

#include "comm/clock.h"
#include "comm/side_mpi.h"
#include "tests/simt/host.h"
#include "tests/support/harness.h"
#include "tests/support/nccl_case.h"

enum { HASTY_MS = 300, LATE_MS = 1000 };

static void sleep_ms(int64_t ms) {
  const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  nanosleep(&pause, NULL);
}

static int64_t in_ms(int64_t ms) { return sy_clock_ns() + ms * 1000000; }

static bool is_last(void) { return sy_test_rank() == sy_test_world() - 1; }

static sy_status start_exchange(struct sy_transport *t, size_t bytes) {
  struct sy_message_bytes messages[TRANSPORT_MAX_WORLD];
  for (int32_t peer = 0; peer < t->world; ++peer) {
    messages[peer] = (struct sy_message_bytes){.send = bytes, .receive_max = bytes};
  }
  const sy_status status = t->ops->open(t, SY_DISPATCH, false, messages);
  return status == SY_OK ? t->ops->start(t, SY_DISPATCH) : status;
}

/* As the runtime does it: the stream is awaited, and the group dies with it. */
static sy_status run_exchange(struct sy_transport *t, size_t bytes, int64_t timeout_ms) {
  sy_status status = start_exchange(t, bytes);
  if (status == SY_OK) {
    status = t->ops->wait(t, SY_DISPATCH, in_ms(timeout_ms));
  }
  return status == SY_OK ? nccl_case_wait_stream(t, in_ms(timeout_ms)) : status;
}

static void check_missing(const struct sy_transport *t, bool last_is_missing) {
  for (int32_t peer = 0; peer < t->world; ++peer) {
    CHECK_EQ_I64(t->ops->missing(t, peer), last_is_missing && peer == t->world - 1);
  }
}

/* Nothing of it works any more; nothing that a peer may write to is freed; nobody waits. */
static void check_dead(struct sy_transport *t) {
  struct sy_message_bytes messages[TRANSPORT_MAX_WORLD] = {{0}};
  t->ops->abort(t);
  CHECK_STATUS(t->ops->check(t), SY_ERR_PEER);
  CHECK_STATUS(t->ops->open(t, SY_DISPATCH, false, messages), SY_ERR_PEER);
  CHECK_OK(nccl_case_wait_stream(&(struct sy_transport){.ops = t->ops, .stream = t->stream},
                                 in_ms(LATE_MS)));
  const uint64_t frees = simt_count().frees;
  nccl_case_close(t);
  CHECK_EQ_U64(simt_count().frees, frees);
  const char *violation = simt_take_violation();
  CHECK_EQ_STR(violation != NULL ? violation : "", "");
}

/* ---- Ranks that are late or never come ---- */

static void last_rank_comes_late(struct sy_transport *t, bool can_be_named) {
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, 256));
  t->ops->beat(t, 1);
  CHECK_OK(run_exchange(t, 256, LATE_MS * 10));
  if (is_last()) {
    sleep_ms(LATE_MS);
  } else {
    t->ops->beat(t, 2);
    CHECK_STATUS(run_exchange(t, 256, HASTY_MS), SY_ERR_PEER);
    check_missing(t, can_be_named);
    CHECK_STR_HAS(can_be_named ? "side channel" : t->ops->error_text(t), "side channel");
  }
  check_dead(t);
}

TEST(a_late_rank_is_named) { last_rank_comes_late(nccl_case_create(), true); }

TEST(a_bare_communicator_cannot_name_it) {
  last_rank_comes_late(nccl_case_create_from_id(), false);
}

TEST(the_callers_communicator_cannot_name_it) {
  last_rank_comes_late(nccl_case_create_bare(), false);
}

/* A rank that sleeps is waited for. */
TEST(a_slow_rank_is_waited_for) {
  struct sy_transport *t = nccl_case_create();
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, 256));
  for (int sleeper = 0; sleeper < t->world; ++sleeper) {
    if (t->rank == sleeper) {
      sleep_ms(100);
    }
    t->ops->beat(t, (uint64_t)sleeper + 1);
    CHECK_OK(run_exchange(t, 256, LATE_MS * 20));
  }
  nccl_case_close(t);
}

/* All have begun the step, and one of them does not exchange. */
TEST(a_step_that_does_not_end_is_told_from_a_rank_that_is_missing) {
  struct sy_transport *t = nccl_case_create();
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, 256));
  t->ops->beat(t, 1);
  if (is_last()) {
    sleep_ms(LATE_MS);
  } else {
    CHECK_STATUS(run_exchange(t, 256, HASTY_MS), SY_ERR_PEER);
    check_missing(t, false);
    CHECK_STR_HAS(t->ops->error_text(t), "every rank has begun this step, and it does not end");
  }
  check_dead(t);
}

TEST(a_rank_that_does_not_gather_is_named) {
  struct sy_transport *t = nccl_case_create();
  unsigned char all[TRANSPORT_MAX_WORLD];
  if (t == NULL) {
    return;
  }
  if (is_last()) {
    sleep_ms(LATE_MS);
  } else {
    CHECK_STATUS(t->ops->allgather(t, "x", 1, all, in_ms(HASTY_MS)), SY_ERR_PEER);
    check_missing(t, true);
  }
  check_dead(t);
}

TEST(a_rank_that_does_not_gather_over_nccl) {
  struct sy_transport *t = nccl_case_create_from_id();
  unsigned char all[TRANSPORT_MAX_WORLD];
  if (t == NULL) {
    return;
  }
  if (is_last()) {
    sleep_ms(LATE_MS);
  } else {
    CHECK_STATUS(t->ops->allgather(t, "x", 1, all, in_ms(HASTY_MS)), SY_ERR_PEER);
    CHECK_STR_HAS(t->ops->error_text(t), "nobody can tell which ranks are missing");
  }
  check_dead(t);
}

TEST(a_rank_that_does_not_make_the_communicator) {
  struct sy_side *side = NULL;
  struct sy_transport *t = NULL;
  ncclUniqueId id;
  const size_t alive = simt_num_alive();
  CHECK_OK(sy_side_create_mpi(MPI_COMM_WORLD, transport_deadline(), &side));
  CHECK_EQ_I64(ncclGetUniqueId(&id), ncclSuccess);
  MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
  if (!is_last()) {
    const struct sy_nccl_desc desc = {
        .unique_id = &id, .rank = sy_test_rank(), .world = sy_test_world(), .side = side};
    CHECK_STATUS(sy_transport_create_nccl(&desc, in_ms(HASTY_MS), &t), SY_ERR_PEER);
    CHECK_STR_HAS(sy_last_error(NULL), "did not come to make the communicator in time");
    CHECK(t == NULL);
  }
  MPI_Barrier(MPI_COMM_WORLD);
  side->ops->destroy(side);
  CHECK_EQ_U64(simt_num_alive(), alive);
}

/* ---- What fails ---- */

TEST(a_communicator_that_fails_is_reported_in_the_words_of_nccl) {
  struct sy_transport *t = nccl_case_create();
  if (t == NULL) {
    return;
  }
  CHECK_OK(t->ops->check(t));
  CHECK_OK(transport_reserve(t, 256));
  simt_fail_communicators(ncclRemoteError);
  CHECK_STATUS(t->ops->check(t), SY_ERR_TRANSPORT);
  CHECK_STR_HAS(t->ops->error_text(t), "remote process exited or there was a network error");
  CHECK_STATUS(start_exchange(t, 256), SY_ERR_TRANSPORT);
  CHECK_STATUS(t->ops->wait(t, SY_DISPATCH, in_ms(HASTY_MS)), SY_ERR_TRANSPORT);
  check_dead(t);
}

TEST(no_memory_on_one_rank_is_no_memory_on_all) {
  const size_t alive = simt_num_alive();
  struct sy_transport *t = nccl_case_create();
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, 256));
  simt_fail_allocations_after(is_last() ? 1 : SIZE_MAX);
  CHECK_STATUS(transport_reserve(t, 4096), SY_ERR_MEMORY);
  simt_fail_allocations_after(SIZE_MAX);
  if (!is_last()) {
    CHECK_STR_HAS(sy_last_error(NULL), "cannot reserve");
  }
  CHECK_STATUS(start_exchange(t, 4096), SY_ERR_TOO_SMALL);
  CHECK_OK(run_exchange(t, 256, LATE_MS * 10)); /* the arenas are as they were */
  nccl_case_close(t);
  CHECK_EQ_U64(simt_num_alive(), alive);
}

TEST(no_memory_to_begin_with) {
  const size_t alive = simt_num_alive();
  struct sy_transport *t = NULL;
  ncclUniqueId id;
  for (size_t left = 0; left < 6; ++left) {
    ncclGetUniqueId(&id);
    MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
    const struct sy_nccl_desc desc = {
        .unique_id = &id, .rank = sy_test_rank(), .world = sy_test_world()};
    simt_fail_allocations_after(left);
    const sy_status status = sy_transport_create_nccl(&desc, transport_deadline(), &t);
    simt_fail_allocations_after(SIZE_MAX);
    CHECK(status == SY_ERR_MEMORY || status == SY_ERR_DEVICE);
    CHECK(t == NULL);
    CHECK_EQ_U64(simt_num_alive(), alive);
  }
}

TEST(gatherings_of_unequal_sizes) {
  struct sy_transport *t = nccl_case_create_from_id();
  if (t == NULL) {
    return;
  }
  const unsigned char mine[512] = {0};
  unsigned char all[512 * TRANSPORT_MAX_WORLD];
  const size_t bytes = t->rank == 0 ? 200 : 100;
  CHECK_STATUS(t->ops->allgather(t, mine, bytes, all, transport_deadline()), SY_ERR_MISMATCH);
  CHECK_STR_HAS(sy_last_error(NULL), "gathers");
  case_allgather(t);
  nccl_case_close(t);
}

/* The runtime makes sizes agree; where it does not, the stand-in says so on the receiving side. */
TEST(sizes_that_do_not_agree) {
  struct sy_transport *t = nccl_case_create();
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, 256));
  CHECK_OK(run_exchange(t, t->rank == 0 ? 64 : 128, LATE_MS * 10));
  const char *violation = simt_take_violation();
  CHECK_STR_HAS(violation != NULL ? violation : "no violation", "counts do not match");
  nccl_case_close(t);
}

TEST(a_communicator_on_another_gpu) {
  struct sy_transport *t = NULL;
  ncclComm_t comm = NULL;
  ncclUniqueId id;
  CHECK(simt_set_devices("sm120,sm120"));
  ncclGetUniqueId(&id);
  MPI_Bcast(&id, sizeof id, MPI_BYTE, 0, MPI_COMM_WORLD);
  CHECK_EQ_I64(ncclCommInitRank(&comm, sy_test_world(), id, sy_test_rank()), ncclSuccess);
  CHECK_EQ_I64(cudaSetDevice(1), cudaSuccess);
  const struct sy_nccl_desc desc = {.comm = comm};
  CHECK_STATUS(sy_transport_create_nccl(&desc, transport_deadline(), &t), SY_ERR_ARGUMENT);
  CHECK_STR_HAS(sy_last_error(NULL), "the communicator is on GPU 0; the group on GPU 1");
  CHECK_EQ_I64(ncclCommDestroy(comm), ncclSuccess); /* still the caller's */
  CHECK(simt_set_devices("sm120"));
}

/* An exchange under way: its memory stays, and nobody waits. */
TEST(destroyed_in_the_middle) {
  struct sy_transport *t = nccl_case_create();
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, 256));
  CHECK_OK(start_exchange(t, 256));
  const uint64_t frees = simt_count().frees;
  nccl_case_close(t);
  CHECK_EQ_U64(simt_count().frees, frees);
  const char *violation = simt_take_violation();
  CHECK_EQ_STR(violation != NULL ? violation : "", "");
}

/* ---- Capture ---- */

/* What start and wait put on a stream can be recorded, and repeated with other bytes. */
TEST(an_exchange_is_captured) {
  enum { BYTES = 64 };
  struct sy_transport *t = nccl_case_create();
  struct sy_message_bytes messages[TRANSPORT_MAX_WORLD];
  cudaGraph_t graph = NULL;
  cudaGraphExec_t exec = NULL;
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, BYTES));
  for (int32_t peer = 0; peer < t->world; ++peer) {
    messages[peer] = (struct sy_message_bytes){.send = BYTES, .receive_max = BYTES};
  }
  CHECK_EQ_I64(cudaStreamBeginCapture(t->stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  CHECK_OK(t->ops->open(t, SY_DISPATCH, false, messages));
  CHECK_OK(t->ops->start(t, SY_DISPATCH));
  CHECK_OK(t->ops->wait(t, SY_DISPATCH, transport_deadline()));
  CHECK_EQ_I64(cudaStreamEndCapture(t->stream, &graph), cudaSuccess);
  CHECK_EQ_I64(cudaGraphInstantiate(&exec, graph, 0), cudaSuccess);
  CHECK_EQ_I64(cudaGraphDestroy(graph), cudaSuccess);
  for (int round = 0; round < 3; ++round) {
    for (int32_t peer = 0; peer < t->world; ++peer) {
      cudaMemsetAsync(t->ops->landing(t, SY_DISPATCH, peer), 32 * round + 4 * t->rank + peer, BYTES,
                      t->stream);
    }
    CHECK_EQ_I64(cudaGraphLaunch(exec, t->stream), cudaSuccess);
    for (int32_t peer = 0; peer < t->world; ++peer) {
      unsigned char got[BYTES];
      size_t bytes = 0;
      const void *message = t->ops->received(t, SY_DISPATCH, peer, &bytes);
      CHECK_EQ_U64(bytes, BYTES);
      transport_device->read(t, got, message, BYTES);
      CHECK_EQ_I64(got[0], 32 * round + 4 * peer + t->rank);
      CHECK_EQ_I64(got[BYTES - 1], 32 * round + 4 * peer + t->rank);
    }
  }
  CHECK_EQ_I64(cudaGraphExecDestroy(exec), cudaSuccess);
  nccl_case_close(t);
}
