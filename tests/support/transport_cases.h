/* What every transport must do, whatever carries its messages: one body per case. All ranks of the
 * transport call a case together; it leaves the transport alive unless its name says otherwise. */
#ifndef SY_TESTS_SUPPORT_TRANSPORT_CASES_H
#define SY_TESTS_SUPPORT_TRANSPORT_CASES_H

#include "comm/transport.h"

enum { TRANSPORT_MAX_WORLD = 16 };

/* How cases reach messages in device memory, in the order of t->stream; NULL: all are in host memory.
 * There receivers know the sizes: receive_max of an exchange counts for nothing. */
struct transport_device {
  void (*write)(struct sy_transport *t, void *to, const void *from, size_t bytes);
  void (*read)(struct sy_transport *t, void *to, const void *from, size_t bytes); /* waits */
};
extern const struct transport_device *transport_device;

/* Bytes of each message, the same table on all ranks. */
struct message_table {
  size_t bytes[TRANSPORT_MAX_WORLD][TRANSPORT_MAX_WORLD]; /* [from][to] */
};

/* Every message has as many. */
struct message_table message_table_of(size_t bytes);

/* One exchange of known bytes. key: which bytes; other exchanges have others. */
struct test_exchange {
  enum sy_direction direction;
  bool broadcast; /* row [from][from] of the table counts */
  const struct message_table *sent;
  const struct message_table *receive_max; /* NULL: as sent */
  unsigned key;
};

/* Far enough away for any machine. */
int64_t transport_deadline(void);

/* Arenas for any table whose messages have at most `bytes`. */
sy_status transport_reserve(struct sy_transport *t, size_t bytes);

/* Opens, fills every landing and starts; then waits and looks at every byte. A message that is too
 * large for its receiver must be NULL there. */
void exchange_begin(struct sy_transport *t, const struct test_exchange *x);
void exchange_end(struct sy_transport *t, const struct test_exchange *x);

void case_messages_arrive_whole(struct sy_transport *t);
void case_messages_of_no_bytes(struct sy_transport *t);
void case_uneven_messages(struct sy_transport *t);
void case_one_block_too_much(struct sy_transport *t);
void case_broadcast(struct sy_transport *t);
void case_random_rounds(struct sy_transport *t);
void case_two_directions_at_once(struct sy_transport *t);
void case_progress_without_waiting(struct sy_transport *t);
void case_arenas_grow(struct sy_transport *t);
void case_sizes_that_do_not_fit(struct sy_transport *t);
void case_calls_out_of_order(struct sy_transport *t);
void case_allgather(struct sy_transport *t);
/* The transport is dead then. */
void case_dead_after_abort(struct sy_transport *t);
void case_written_too_far_before_start(struct sy_transport *t);
void case_written_too_far_before_wait(struct sy_transport *t);

#endif
