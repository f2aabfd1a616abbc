/* The transport over NCCL: what every transport does, and what only this one can get wrong. Built over
 * the stand-ins for CUDA and NCCL, and on GPUs over the real ones. */
#include <mpi.h>
#include <string.h>

#include "comm/clock.h"
#include "comm/side_mpi.h"
#include "tests/support/harness.h"
#include "tests/support/nccl_case.h"

static void with_transport(void (*body)(struct sy_transport *)) {
  struct sy_transport *t = nccl_case_create();
  if (t != NULL) {
    CHECK_EQ_I64(t->rank, sy_test_rank());
    CHECK_EQ_I64(t->world, sy_test_world());
    CHECK_EQ_I64(t->memory, SY_MEMORY_DEVICE);
    body(t);
    nccl_case_close(t);
  }
}

TEST(messages_arrive_whole) { with_transport(case_messages_arrive_whole); }
TEST(messages_of_no_bytes) { with_transport(case_messages_of_no_bytes); }
TEST(uneven_messages) { with_transport(case_uneven_messages); }
TEST(broadcast) { with_transport(case_broadcast); }
TEST(random_rounds) { with_transport(case_random_rounds); }
TEST(two_directions_at_once) { with_transport(case_two_directions_at_once); }
TEST(progress_without_waiting) { with_transport(case_progress_without_waiting); }
TEST(arenas_grow) { with_transport(case_arenas_grow); }
TEST(sizes_that_do_not_fit) { with_transport(case_sizes_that_do_not_fit); }
TEST(calls_out_of_order) { with_transport(case_calls_out_of_order); }
TEST(allgather) { with_transport(case_allgather); }
TEST(dead_after_abort) { with_transport(case_dead_after_abort); }

/* ---- Communicators from elsewhere ---- */

static void without_side_channel(struct sy_transport *t) {
  if (t != NULL) {
    case_allgather(t);
    case_messages_arrive_whole(t);
    case_broadcast(t);
    nccl_case_close(t);
  }
}

TEST(from_an_id) { without_side_channel(nccl_case_create_from_id()); }

TEST(from_the_callers_communicator) { without_side_channel(nccl_case_create_bare()); }

TEST(broadcast_of_equal_sizes) {
  struct sy_transport *t = nccl_case_create();
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, 4096));
  for (unsigned i = 0; i < 4; ++i) {
    const struct message_table table = message_table_of((size_t)16 << (2 * i));
    const struct test_exchange x = {SY_DISPATCH, true, &table, NULL, i};
    exchange_begin(t, &x);
    exchange_end(t, &x);
  }
  nccl_case_close(t);
}

TEST(transports_come_and_go) {
  for (unsigned i = 0; i < 10; ++i) {
    struct sy_transport *t = nccl_case_create();
    if (t == NULL) {
      return;
    }
    const struct message_table table = message_table_of(256);
    const struct test_exchange x = {SY_RETURN, false, &table, NULL, i};
    CHECK_OK(transport_reserve(t, 256));
    exchange_begin(t, &x);
    exchange_end(t, &x);
    nccl_case_close(t);
  }
}

/* Two lanes: a communicator and a stream each, at once. */
TEST(two_transports_at_once) {
  struct sy_transport *a = nccl_case_create();
  struct sy_transport *b = nccl_case_create();
  if (a == NULL || b == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(a, 4096));
  CHECK_OK(transport_reserve(b, 4096));
  const struct message_table table = message_table_of(4096);
  for (unsigned i = 0; i < 6; ++i) {
    const struct test_exchange xa = {SY_DISPATCH, false, &table, NULL, 2 * i};
    const struct test_exchange xb = {SY_DISPATCH, false, &table, NULL, 2 * i + 1};
    exchange_begin(a, &xa);
    exchange_begin(b, &xb);
    exchange_end(i % 2 == 0 ? b : a, i % 2 == 0 ? &xb : &xa);
    exchange_end(i % 2 == 0 ? a : b, i % 2 == 0 ? &xa : &xb);
  }
  nccl_case_close(a);
  nccl_case_close(b);
}

/* The last rank does not come to the second exchange: the others give up, name it, and end the
 * communicator while their streams still wait. */
TEST(a_rank_that_does_not_come) {
  enum { PATIENCE_MS = 2000 };
  struct sy_transport *t = nccl_case_create();
  if (t == NULL) {
    return;
  }
  if (t->world == 1) {
    nccl_case_close(t);
    SKIP("needs a peer");
  }
  const int32_t absent = t->world - 1;
  const struct message_table table = message_table_of(4096);
  const struct test_exchange x = {SY_DISPATCH, false, &table, NULL, 1};
  CHECK_OK(transport_reserve(t, 4096));
  t->ops->beat(t, 1);
  exchange_begin(t, &x);
  exchange_end(t, &x);
  if (t->rank != absent) {
    t->ops->beat(t, 2);
    exchange_begin(t, &x);
    CHECK_OK(t->ops->wait(t, SY_DISPATCH, transport_deadline()));
    CHECK_STATUS(nccl_case_wait_stream(t, sy_clock_ns() + (int64_t)PATIENCE_MS * 1000000),
                 SY_ERR_PEER);
    for (int32_t peer = 0; peer < t->world; ++peer) {
      CHECK_EQ_I64(t->ops->missing(t, peer), peer == absent);
    }
  }
  MPI_Barrier(MPI_COMM_WORLD);
  t->ops->abort(t);
  CHECK_STATUS(t->ops->check(t), SY_ERR_PEER);
  nccl_case_close(t);
}

TEST(what_cannot_be_made) {
  struct sy_transport *t = NULL;
  const struct sy_nccl_desc nothing = {.rank = 0, .world = 2};
  CHECK_STATUS(sy_transport_create_nccl(&nothing, transport_deadline(), &t), SY_ERR_ARGUMENT);
  CHECK_STR_HAS(sy_last_error(NULL), "2 ranks have no communicator, no id and no side channel");
  const struct sy_nccl_desc beyond = {.rank = 2, .world = 2};
  CHECK_STATUS(sy_transport_create_nccl(&beyond, transport_deadline(), &t), SY_ERR_ARGUMENT);
  CHECK_STR_HAS(sy_last_error(NULL), "rank is 2 of 2");
  CHECK(t == NULL);
}
