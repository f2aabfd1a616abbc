/* The transport of one process. */
#include "tests/support/harness.h"
#include "tests/support/transport_cases.h"

static void with_transport(void (*body)(struct sy_transport *)) {
  struct sy_transport *t = NULL;
  if (CHECK_OK(sy_transport_create_local(&sy_arena_host, &t))) {
    CHECK_EQ_I64(t->rank, 0);
    CHECK_EQ_I64(t->world, 1);
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

/* The own message is written where it is read. */
TEST(own_message_stays_where_it_landed) {
  struct sy_transport *t = NULL;
  const struct sy_message_bytes message = {.send = 32, .receive_max = 64};
  if (!CHECK_OK(sy_transport_create_local(&sy_arena_host, &t))) {
    return;
  }
  CHECK_OK(transport_reserve(t, 64));
  CHECK_OK(t->ops->open(t, SY_RETURN, false, &message));
  const void *landing = t->ops->landing(t, SY_RETURN, 0);
  CHECK_OK(t->ops->start(t, SY_RETURN));
  CHECK_OK(t->ops->wait(t, SY_RETURN, transport_deadline()));
  size_t bytes = 0;
  CHECK(t->ops->received(t, SY_RETURN, 0, &bytes) == landing);
  CHECK_EQ_U64(bytes, 32);
  t->ops->destroy(t);
}
