/* Ranks that come late, or not at all, over MPI. At least two ranks. */
#include <mpi.h>
#include <time.h>

#include "comm/clock.h"
#include "comm/mpi_transport.h"
#include "tests/support/harness.h"
#include "tests/support/transport_cases.h"

static void sleep_ms(int64_t ms) {
  const struct timespec pause = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
  nanosleep(&pause, NULL);
}

static int64_t in_ms(int64_t ms) { return sy_clock_ns() + ms * 1000000; }

static struct sy_transport *create(void) {
  struct sy_transport *t = NULL;
  CHECK_OK(sy_transport_create_mpi(MPI_COMM_WORLD, transport_deadline(), &t));
  return t;
}

static void exchange_once(struct sy_transport *t, size_t bytes, unsigned key) {
  const struct message_table table = message_table_of(bytes);
  exchange_begin(t, &(struct test_exchange){SY_DISPATCH, false, &table, NULL, key});
  exchange_end(t, &(struct test_exchange){SY_DISPATCH, false, &table, NULL, key});
}

TEST(a_rank_that_sleeps_is_waited_for) {
  struct sy_transport *t = create();
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, 1 << 18));
  for (int sleeper = 0; sleeper < t->world; ++sleeper) {
    const int64_t begin_ns = sy_clock_ns();
    if (t->rank == sleeper) {
      sleep_ms(150);
    }
    exchange_once(t, sleeper % 2 == 0 ? 64 : 1 << 18, (unsigned)sleeper);
    CHECK(sy_clock_ns() - begin_ns >= INT64_C(150000000) || t->rank != sleeper);
  }
  t->ops->destroy(t);
}

/* In the cases that follow the last rank comes only after the others have given up. */

static void check_last_is_missing(struct sy_transport *t) {
  for (int32_t peer = 0; peer < t->world; ++peer) {
    CHECK_EQ_I64(t->ops->missing(t, peer), peer == t->world - 1);
  }
}

static sy_status start_exchange(struct sy_transport *t, size_t bytes) {
  struct sy_message_bytes messages[TRANSPORT_MAX_WORLD];
  for (int32_t peer = 0; peer < t->world; ++peer) {
    messages[peer] = (struct sy_message_bytes){.send = bytes, .receive_max = bytes};
  }
  const sy_status status = t->ops->open(t, SY_DISPATCH, false, messages);
  if (status != SY_OK) {
    return status;
  }
  for (int32_t peer = 0; peer < t->world; ++peer) {
    memset(t->ops->landing(t, SY_DISPATCH, peer), t->rank, bytes);
  }
  return t->ops->start(t, SY_DISPATCH);
}

static void last_rank_comes_late(size_t bytes) {
  struct sy_transport *t = create();
  if (t == NULL) {
    return;
  }
  const bool late = t->rank == t->world - 1;
  CHECK_OK(transport_reserve(t, bytes));
  exchange_once(t, bytes, 7);
  if (late) {
    sleep_ms(1500);
  }
  const int64_t begin_ns = sy_clock_ns();
  CHECK_OK(start_exchange(t, bytes));
  const sy_status status = t->ops->wait(t, SY_DISPATCH, in_ms(600));
  if (late) { /* the others' small messages came before they gave up, large ones may not */
    CHECK(status == SY_OK || status == SY_ERR_PEER);
  } else if (CHECK_STATUS(status, SY_ERR_PEER)) {
    CHECK(sy_clock_ns() - begin_ns >= INT64_C(600000000));
    check_last_is_missing(t);
  }
  t->ops->abort(t);
  CHECK_STATUS(t->ops->wait(t, SY_DISPATCH, in_ms(600)), SY_ERR_PEER);
  t->ops->destroy(t);
}

TEST(a_rank_missing_from_a_small_exchange_is_named) { last_rank_comes_late(64); }

TEST(a_rank_missing_from_a_large_exchange_is_named) { last_rank_comes_late(1 << 20); }

/* All others were heard from; the last rank's message came, but it does not take ours. */
TEST(a_rank_that_does_not_receive_is_named) {
  const size_t bytes = 1 << 20;
  struct sy_transport *t = create();
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, bytes));
  const bool deaf = t->rank == t->world - 1;
  struct sy_message_bytes messages[TRANSPORT_MAX_WORLD];
  for (int32_t peer = 0; peer < t->world; ++peer) {
    const bool to_deaf = peer == t->world - 1;
    messages[peer].send = deaf ? 16 : to_deaf ? bytes : 16;
    messages[peer].receive_max = deaf ? bytes : 16;
  }
  messages[t->rank].send = 16;
  CHECK_OK(t->ops->open(t, SY_RETURN, false, messages));
  CHECK_OK(t->ops->start(t, SY_RETURN));
  if (deaf) { /* its small messages are on their way; it does not progress */
    sleep_ms(1500);
  } else if (CHECK_STATUS(t->ops->wait(t, SY_RETURN, in_ms(600)), SY_ERR_PEER)) {
    check_last_is_missing(t);
  }
  t->ops->abort(t);
  t->ops->destroy(t);
}

TEST(a_rank_missing_from_set_up_is_named) {
  for (int i = 0; i < 2; ++i) {
    struct sy_transport *t = create();
    if (t == NULL) {
      return;
    }
    const struct sy_arena_bytes arenas = {.out = {64, 64}, .in = {64, 64}};
    unsigned char all[TRANSPORT_MAX_WORLD];
    if (t->rank == t->world - 1) {
      sleep_ms(1000);
    } else {
      CHECK_STATUS(i == 0 ? t->ops->allgather(t, "x", 1, all, in_ms(400))
                          : t->ops->reserve(t, &arenas, in_ms(400)),
                   SY_ERR_PEER);
      check_last_is_missing(t);
    }
    t->ops->abort(t);
    t->ops->destroy(t);
  }
}

/* MPI may still bring the late rank's part to an end, when the others have other business with it;
 * that rank then finds itself alone in the first exchange. */
TEST(a_rank_missing_from_creation_is_an_error) {
  struct sy_transport *t = NULL;
  if (sy_test_rank() == sy_test_world() - 1) {
    sleep_ms(1000);
    const sy_status status = sy_transport_create_mpi(MPI_COMM_WORLD, in_ms(400), &t);
    if (status == SY_OK) {
      unsigned char all[TRANSPORT_MAX_WORLD];
      CHECK_STATUS(t->ops->allgather(t, "x", 1, all, in_ms(400)), SY_ERR_PEER);
      CHECK(t->ops->missing(t, 0));
      t->ops->abort(t);
      t->ops->destroy(t);
    } else {
      CHECK_EQ_I64(status, SY_ERR_PEER);
    }
    return;
  }
  CHECK_STATUS(sy_transport_create_mpi(MPI_COMM_WORLD, in_ms(400), &t), SY_ERR_PEER);
  CHECK(t == NULL);
  CHECK_STR_HAS(sy_last_error(NULL), "did not come");
}
