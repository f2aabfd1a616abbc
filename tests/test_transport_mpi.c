/* The transport over MPI: what every transport does, and what only several ranks can get wrong. */
#include <mpi.h>
#include <stdio.h>

#include "comm/mpi_blocks.h"
#include "comm/mpi_transport.h"
#include "runtime/memory.h"
#include "tests/support/harness.h"
#include "tests/support/transport_cases.h"

/* ---- Allocation and MPI calls that can be made to fail (linked with --wrap) ---- */

static int num_allocations;
static bool memory_has_run_out;
static bool sends_fail;

void *__real_sy_alloc(size_t bytes);
void *__wrap_sy_alloc(size_t bytes);
int __real_MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
                     MPI_Request *request);
int __wrap_MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
                     MPI_Request *request);

void *__wrap_sy_alloc(size_t bytes) {
  ++num_allocations;
  return memory_has_run_out ? NULL : __real_sy_alloc(bytes);
}

int __wrap_MPI_Isend(const void *data, int count, MPI_Datatype type, int to, int tag, MPI_Comm comm,
                     MPI_Request *request) {
  return sends_fail ? MPI_ERR_NO_MEM : __real_MPI_Isend(data, count, type, to, tag, comm, request);
}

/* ---- What every transport does ---- */

static struct sy_transport *create_on(MPI_Comm comm) {
  struct sy_transport *t = NULL;
  CHECK_OK(sy_transport_create_mpi(comm, transport_deadline(), &t));
  return t;
}

static void exchange_once(struct sy_transport *t, size_t bytes, unsigned key) {
  const struct message_table table = message_table_of(bytes);
  exchange_begin(t, &(struct test_exchange){SY_DISPATCH, false, &table, NULL, key});
  exchange_end(t, &(struct test_exchange){SY_DISPATCH, false, &table, NULL, key});
}

static void with_transport(void (*body)(struct sy_transport *)) {
  struct sy_transport *t = create_on(MPI_COMM_WORLD);
  if (t != NULL) {
    CHECK_EQ_I64(t->rank, sy_test_rank());
    CHECK_EQ_I64(t->world, sy_test_world());
    CHECK_EQ_I64(t->memory, SY_MEMORY_HOST);
    body(t);
    t->ops->destroy(t);
  }
}

TEST(messages_arrive_whole) { with_transport(case_messages_arrive_whole); }
TEST(messages_of_no_bytes) { with_transport(case_messages_of_no_bytes); }
TEST(uneven_messages) { with_transport(case_uneven_messages); }
TEST(one_block_too_much) { with_transport(case_one_block_too_much); }
TEST(broadcast) { with_transport(case_broadcast); }
TEST(random_rounds) { with_transport(case_random_rounds); }
TEST(two_directions_at_once) { with_transport(case_two_directions_at_once); }
TEST(progress_without_waiting) { with_transport(case_progress_without_waiting); }
TEST(arenas_grow) { with_transport(case_arenas_grow); }
TEST(sizes_that_do_not_fit) { with_transport(case_sizes_that_do_not_fit); }
TEST(calls_out_of_order) { with_transport(case_calls_out_of_order); }
TEST(allgather) { with_transport(case_allgather); }
TEST(dead_after_abort) { with_transport(case_dead_after_abort); }
TEST(written_too_far_before_start) { with_transport(case_written_too_far_before_start); }
TEST(written_too_far_before_wait) { with_transport(case_written_too_far_before_wait); }

/* ---- Several ranks ---- */

/* A communicator whose ranks are numbered the other way, and of which only some ranks are. */
TEST(ranks_are_those_of_the_communicator) {
  MPI_Comm reversed = MPI_COMM_NULL;
  MPI_Comm_split(MPI_COMM_WORLD, sy_test_rank() % 2, -sy_test_rank(), &reversed);
  struct sy_transport *t = create_on(reversed);
  MPI_Comm_free(&reversed); /* the transport has its own */
  if (t == NULL) {
    return;
  }
  const int same_parity_above = (sy_test_world() - 1 - sy_test_rank()) / 2;
  CHECK_EQ_I64(t->rank, same_parity_above);
  case_messages_arrive_whole(t);
  case_allgather(t);
  t->ops->destroy(t);
}

/* Two transports on one communicator, and the caller's own messages with every tag of ours. */
TEST(messages_of_others_do_not_meet_ours) {
  const int world = sy_test_world();
  const int next = (sy_test_rank() + 1) % world;
  const int before = (sy_test_rank() + world - 1) % world;
  struct sy_transport *a = create_on(MPI_COMM_WORLD);
  struct sy_transport *b = create_on(MPI_COMM_WORLD);
  if (a == NULL || b == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(a, 4096));
  CHECK_OK(transport_reserve(b, 4096));
  const struct message_table table = message_table_of(4096);
  const struct test_exchange xa = {SY_DISPATCH, false, &table, NULL, 1};
  const struct test_exchange xb = {SY_DISPATCH, false, &table, NULL, 2};
  int theirs[4] = {0};
  MPI_Request receives[4];
  for (int tag = 0; tag < 4; ++tag) {
    const int mine = 100 * sy_test_rank() + tag;
    MPI_Irecv(&theirs[tag], 1, MPI_INT, before, tag, MPI_COMM_WORLD, &receives[tag]);
    MPI_Send(&mine, 1, MPI_INT, next, tag, MPI_COMM_WORLD);
  }
  exchange_begin(a, &xa);
  exchange_begin(b, &xb);
  exchange_end(b, &xb);
  exchange_end(a, &xa);
  MPI_Waitall(4, receives, MPI_STATUSES_IGNORE);
  for (int tag = 0; tag < 4; ++tag) {
    CHECK_EQ_I64(theirs[tag], 100 * before + tag);
  }
  a->ops->destroy(a);
  b->ops->destroy(b);
}

TEST(transports_come_and_go) {
  for (unsigned i = 0; i < 40; ++i) {
    struct sy_transport *t = create_on(MPI_COMM_WORLD);
    if (t == NULL) {
      return;
    }
    CHECK_OK(transport_reserve(t, 1024));
    exchange_once(t, 1024, i);
    t->ops->destroy(t);
  }
}

TEST(an_exchange_allocates_nothing) {
  struct sy_transport *t = create_on(MPI_COMM_WORLD);
  if (t == NULL) {
    return;
  }
  CHECK_OK(transport_reserve(t, 1 << 17));
  const int before = num_allocations;
  CHECK(before > 0);
  for (unsigned i = 0; i < 10; ++i) {
    exchange_once(t, (size_t)16 << i, i);
  }
  case_allgather(t);
  CHECK_EQ_I64(num_allocations, before);
  t->ops->destroy(t);
}

TEST(no_memory_on_one_rank_is_no_memory_on_all) {
  struct sy_transport *t = create_on(MPI_COMM_WORLD);
  if (t == NULL) {
    return;
  }
  const int32_t poor = t->world - 1;
  CHECK_OK(transport_reserve(t, 1024));
  memory_has_run_out = t->rank == poor;
  CHECK_STATUS(transport_reserve(t, 4096), SY_ERR_MEMORY);
  memory_has_run_out = false;
  if (t->rank != poor) {
    char name[32];
    snprintf(name, sizeof name, "rank %d cannot reserve", poor);
    CHECK_STR_HAS(sy_last_error(NULL), name);
  }
  /* The arenas are as they were, on all ranks. */
  struct sy_message_bytes too_large[TRANSPORT_MAX_WORLD];
  for (int32_t peer = 0; peer < t->world; ++peer) {
    too_large[peer] = (struct sy_message_bytes){.send = 4096, .receive_max = 4096};
  }
  CHECK_STATUS(t->ops->open(t, SY_DISPATCH, false, too_large), SY_ERR_TOO_SMALL);
  exchange_once(t, 1024, 1);
  t->ops->destroy(t);
}

TEST(allgather_of_unequal_sizes_is_named) {
  struct sy_transport *t = create_on(MPI_COMM_WORLD);
  if (t == NULL) {
    return;
  }
  const unsigned char mine[512] = {0};
  unsigned char all[512 * TRANSPORT_MAX_WORLD];
  const size_t bytes = t->rank == 0 ? 512 : 248; /* two rounds, one round */
  CHECK_STATUS(t->ops->allgather(t, mine, bytes, all, transport_deadline()),
               t->world == 1 ? SY_OK : SY_ERR_MISMATCH);
  case_allgather(t);
  t->ops->destroy(t);
}

/* ---- What MPI says ---- */

TEST(a_failing_call_is_reported_in_the_words_of_mpi) {
  struct sy_transport *t = create_on(MPI_COMM_WORLD);
  if (t == NULL) {
    return;
  }
  const sy_status expected = t->world == 1 ? SY_OK : SY_ERR_TRANSPORT;
  CHECK_OK(transport_reserve(t, 64));
  CHECK_EQ_STR(t->ops->error_text(t), "");
  const struct sy_message_bytes messages[TRANSPORT_MAX_WORLD] = {{0}};
  CHECK_OK(t->ops->open(t, SY_DISPATCH, false, messages));
  sends_fail = true;
  CHECK_STATUS(t->ops->start(t, SY_DISPATCH), expected);
  sends_fail = false;
  if (expected != SY_OK) {
    char words[MPI_MAX_ERROR_STRING];
    int length = 0;
    MPI_Error_string(MPI_ERR_NO_MEM, words, &length);
    CHECK_STR_HAS(t->ops->error_text(t), "MPI_Isend");
    CHECK_STR_HAS(t->ops->error_text(t), words);
  }
  t->ops->abort(t);
  t->ops->destroy(t);
}

/* ---- Counting ---- */

TEST(messages_beyond_an_int_of_bytes_are_counted) {
  static const size_t sizes[] = {
      0, 16, (size_t)INT_MAX + 1, (size_t)3 << 30, SY_MPI_MESSAGE_MAX - 16, SY_MPI_MESSAGE_MAX};
  MPI_Datatype block;
  MPI_Type_contiguous(SY_MESSAGE_ALIGN, MPI_BYTE, &block);
  MPI_Type_commit(&block);
  for (unsigned i = 0; i < sizeof sizes / sizeof *sizes; ++i) {
    MPI_Status status;
    memset(&status, 0, sizeof status);
    CHECK_EQ_U64((size_t)sy_mpi_blocks(sizes[i]) * SY_MESSAGE_ALIGN, sizes[i]);
    MPI_Status_set_elements_x(&status, block, (MPI_Count)sizes[i]);
    CHECK_EQ_U64(sy_mpi_received_bytes(&status, block), sizes[i]);
  }
  MPI_Status status;
  memset(&status, 0, sizeof status);
  MPI_Status_set_elements_x(&status, MPI_BYTE, 24);
  CHECK_EQ_U64(sy_mpi_received_bytes(&status, block), SY_LANE_TRUNCATED);
  MPI_Type_free(&block);
}

TEST(a_message_that_mpi_cannot_count_is_refused) {
  struct sy_transport *t = create_on(MPI_COMM_WORLD);
  if (t == NULL) {
    return;
  }
  struct sy_message_bytes messages[TRANSPORT_MAX_WORLD] = {{0}};
  messages[t->world - 1].receive_max = SY_MPI_MESSAGE_MAX + 16;
  CHECK_STATUS(t->ops->open(t, SY_DISPATCH, false, messages), SY_ERR_OVERFLOW);
  CHECK_STR_HAS(sy_last_error(NULL), "34359738368 bytes: MPI can count up to 34359738352");
  messages[t->world - 1].receive_max = SY_MPI_MESSAGE_MAX;
  messages[t->world - 1].send = SY_MPI_MESSAGE_MAX;
  CHECK_STATUS(t->ops->open(t, SY_DISPATCH, false, messages), SY_ERR_TOO_SMALL);
  t->ops->destroy(t);
}
