#include "tests/support/transport_cases.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "comm/clock.h"
#include "tests/support/harness.h"

const struct transport_device *transport_device;

int64_t transport_deadline(void) { return sy_clock_ns() + INT64_C(30000000000); }

sy_status transport_reserve(struct sy_transport *t, size_t bytes) {
  const size_t all = (size_t)t->world * bytes;
  const struct sy_arena_bytes arenas = {.out = {all, all}, .in = {all, all}};
  return t->ops->reserve(t, &arenas, transport_deadline());
}

struct message_table message_table_of(size_t bytes) {
  struct message_table table;
  for (int from = 0; from < TRANSPORT_MAX_WORLD; ++from) {
    for (int to = 0; to < TRANSPORT_MAX_WORLD; ++to) {
      table.bytes[from][to] = bytes;
    }
  }
  return table;
}

/* ---- One exchange ---- */

/* Neighbouring keys, ranks and places all give other bytes. */
static unsigned char pattern(unsigned key, int32_t from, int32_t to, size_t i) {
  unsigned x = key * 0x27D4EB2Fu + (unsigned)from * 0x85EBCA6Bu + (unsigned)to * 0xC2B2AE35u;
  x = (x ^ (unsigned)i) * 0x9E3779B1u;
  return (unsigned char)(x >> 24);
}

static size_t sent_bytes(const struct test_exchange *x, int32_t from, int32_t to) {
  return x->sent->bytes[from][x->broadcast ? from : to];
}

static size_t receive_max(const struct test_exchange *x, int32_t from, int32_t to) {
  const bool is_looser = x->receive_max != NULL && transport_device == NULL;
  return is_looser ? x->receive_max->bytes[from][to] : sent_bytes(x, from, to);
}

static void fill(struct sy_transport *t, const struct test_exchange *x, int32_t to) {
  unsigned char *landing = t->ops->landing(t, x->direction, to);
  CHECK_EQ_U64((uintptr_t)landing % SY_MESSAGE_ALIGN, 0);
  const size_t bytes = sent_bytes(x, t->rank, to);
  unsigned char *message = transport_device != NULL ? malloc(bytes + 1) : landing;
  for (size_t i = 0; i < bytes; ++i) {
    message[i] = pattern(x->key, t->rank, x->broadcast ? 0 : to, i);
  }
  if (transport_device != NULL) {
    transport_device->write(t, landing, message, bytes);
    free(message);
  }
}

static void look_at(struct sy_transport *t, const struct test_exchange *x, int32_t from) {
  const size_t expected = sent_bytes(x, from, t->rank);
  size_t bytes = 1;
  const unsigned char *message = t->ops->received(t, x->direction, from, &bytes);
  if (expected > receive_max(x, from, t->rank)) {
    CHECK(message == NULL);
    return;
  }
  CHECK(message != NULL);
  if (message == NULL || !CHECK_EQ_U64(bytes, expected)) {
    return;
  }
  CHECK_EQ_U64((uintptr_t)message % SY_MESSAGE_ALIGN, 0);
  unsigned char *read = NULL;
  if (transport_device != NULL) {
    read = malloc(bytes + 1);
    transport_device->read(t, read, message, bytes);
    message = read;
  }
  size_t num_wrong = 0;
  for (size_t i = 0; i < bytes; ++i) {
    num_wrong += message[i] != pattern(x->key, from, x->broadcast ? 0 : t->rank, i);
  }
  CHECK_EQ_U64(num_wrong, 0);
  free(read);
}

void exchange_begin(struct sy_transport *t, const struct test_exchange *x) {
  struct sy_message_bytes messages[TRANSPORT_MAX_WORLD];
  for (int32_t peer = 0; peer < t->world; ++peer) {
    /* The sizes to peers mean nothing in a broadcast: all but the own are wrong here. */
    messages[peer].send =
        x->broadcast && peer != t->rank ? (size_t)16 * 12345 : sent_bytes(x, t->rank, peer);
    messages[peer].receive_max = receive_max(x, peer, t->rank);
  }
  if (!CHECK_OK(t->ops->open(t, x->direction, x->broadcast, messages))) {
    return;
  }
  for (int32_t to = 0; to < t->world; ++to) {
    if (!x->broadcast || to == t->rank) {
      fill(t, x, to);
    }
  }
  CHECK_OK(t->ops->start(t, x->direction));
  bool is_taken = transport_device == NULL; /* or nothing else may go on the stream */
  while (!is_taken && CHECK_OK(t->ops->progress(t, x->direction, &is_taken))) {
  }
}

void exchange_end(struct sy_transport *t, const struct test_exchange *x) {
  if (!CHECK_OK(t->ops->wait(t, x->direction, transport_deadline()))) {
    return;
  }
  for (int32_t from = 0; from < t->world; ++from) {
    look_at(t, x, from);
  }
}

static void exchange(struct sy_transport *t, const struct test_exchange *x) {
  exchange_begin(t, x);
  exchange_end(t, x);
}

/* Both directions, point to point. */
static void exchange_table(struct sy_transport *t, const struct message_table *sent,
                           const struct message_table *most, unsigned key) {
  exchange(t, &(struct test_exchange){SY_DISPATCH, false, sent, most, key});
  exchange(t, &(struct test_exchange){SY_RETURN, false, sent, most, key + 1});
}

static struct message_table random_table(size_t most) {
  struct message_table table;
  for (int from = 0; from < TRANSPORT_MAX_WORLD; ++from) {
    for (int to = 0; to < TRANSPORT_MAX_WORLD; ++to) {
      const int64_t blocks = (int64_t)(most / SY_MESSAGE_ALIGN);
      const bool empty = sy_test_random() % 4 == 0;
      table.bytes[from][to] =
          empty ? 0 : (size_t)sy_test_random_between(0, blocks) * SY_MESSAGE_ALIGN;
    }
  }
  return table;
}

/* ---- Cases ---- */

void case_messages_arrive_whole(struct sy_transport *t) {
  struct message_table table;
  for (int from = 0; from < TRANSPORT_MAX_WORLD; ++from) {
    for (int to = 0; to < TRANSPORT_MAX_WORLD; ++to) {
      table.bytes[from][to] = 64 + (size_t)16 * (size_t)(TRANSPORT_MAX_WORLD * from + to);
    }
  }
  const struct message_table most = message_table_of(8192);
  CHECK_OK(transport_reserve(t, 8192));
  exchange_table(t, &table, NULL, 1);
  exchange_table(t, &table, &most, 3);
}

void case_messages_of_no_bytes(struct sy_transport *t) {
  const struct message_table none = message_table_of(0);
  const struct message_table most = message_table_of(64);
  exchange_table(t, &none, NULL, 1); /* nothing is reserved */
  CHECK_OK(transport_reserve(t, 64));
  exchange_table(t, &none, &most, 3);
  exchange_table(t, &most, NULL, 5);
}

/* One large message, one small, none: the largest is far beyond what MPI sends without asking. */
void case_uneven_messages(struct sy_transport *t) {
  static const size_t sizes[] = {(size_t)1 << 20, 64, 0, 4096 + 16};
  struct message_table table;
  for (int from = 0; from < TRANSPORT_MAX_WORLD; ++from) {
    for (int to = 0; to < TRANSPORT_MAX_WORLD; ++to) {
      table.bytes[from][to] = sizes[(from + 2 * to) % 4];
    }
  }
  CHECK_OK(transport_reserve(t, sizes[0]));
  exchange_table(t, &table, NULL, 1);
}

/* Rank 0 sends one block more than is allowed, to everyone; the others what is allowed. The next
 * exchange is not disturbed. */
void case_one_block_too_much(struct sy_transport *t) {
  static const size_t sizes[] = {0, 16, 4096, (size_t)1 << 18};
  CHECK_OK(transport_reserve(t, sizes[3] + 16));
  for (unsigned i = 0; i < 4; ++i) {
    const struct message_table most = message_table_of(sizes[i]);
    struct message_table sent = most;
    for (int to = 0; to < TRANSPORT_MAX_WORLD; ++to) {
      sent.bytes[0][to] += 16;
    }
    exchange_table(t, &sent, &most, 4 * i);
    exchange_table(t, &most, NULL, 4 * i + 2);
  }
  /* A rank that found an error of its own takes headers only, whatever the others send. */
  const struct message_table sent = message_table_of(sizes[3]);
  struct message_table most = sent;
  for (int from = 0; from < TRANSPORT_MAX_WORLD; ++from) {
    most.bytes[from][0] = 64;
  }
  exchange_table(t, &sent, &most, 16);
  exchange_table(t, &sent, NULL, 18);
}

void case_broadcast(struct sy_transport *t) {
  CHECK_OK(transport_reserve(t, 1 << 18));
  for (unsigned i = 0; i < 20; ++i) {
    const struct message_table table = random_table(1 << (8 + i % 11));
    struct message_table most = message_table_of(1 << 18);
    exchange(t, &(struct test_exchange){SY_DISPATCH, true, &table, &most, i});
    exchange(t, &(struct test_exchange){SY_RETURN, i % 2 == 0, &table, &most, i});
  }
}

void case_random_rounds(struct sy_transport *t) {
  const struct message_table most = message_table_of(1 << 16);
  CHECK_OK(transport_reserve(t, 1 << 16));
  for (unsigned i = 0; i < 150; ++i) {
    const struct message_table table = random_table((size_t)16 << sy_test_random_between(0, 12));
    const enum sy_direction direction = sy_test_random() % 2 == 0 ? SY_DISPATCH : SY_RETURN;
    const bool tight = sy_test_random() % 2 == 0;
    exchange(t, &(struct test_exchange){direction, false, &table, tight ? NULL : &most, i});
  }
}

void case_two_directions_at_once(struct sy_transport *t) {
  CHECK_OK(transport_reserve(t, 1 << 17));
  for (unsigned i = 0; i < 20; ++i) {
    const struct message_table there = random_table(1 << 17);
    const struct message_table back = random_table(1 << 17);
    const struct test_exchange dispatch = {SY_DISPATCH, false, &there, NULL, 2 * i};
    const struct test_exchange returns = {SY_RETURN, false, &back, NULL, 2 * i + 1};
    exchange_begin(t, &dispatch);
    exchange_begin(t, &returns);
    exchange_end(t, i % 2 == 0 ? &returns : &dispatch);
    exchange_end(t, i % 2 == 0 ? &dispatch : &returns);
  }
}

void case_progress_without_waiting(struct sy_transport *t) {
  const struct message_table table = message_table_of(1 << 16);
  const struct test_exchange x = {SY_DISPATCH, false, &table, NULL, 1};
  const int64_t deadline_ns = transport_deadline();
  CHECK_OK(transport_reserve(t, 1 << 16));
  exchange_begin(t, &x);
  bool done = false;
  while (!done && CHECK(sy_clock_ns() < deadline_ns)) {
    if (!CHECK_OK(t->ops->progress(t, SY_DISPATCH, &done))) {
      break;
    }
    sched_yield();
  }
  CHECK_OK(t->ops->progress(t, SY_DISPATCH, &done));
  CHECK(done);
  exchange_end(t, &x);
}

void case_arenas_grow(struct sy_transport *t) {
  for (unsigned i = 0; i < 7; ++i) {
    const size_t bytes = (size_t)64 << (2 * i);
    const struct message_table table = message_table_of(bytes);
    CHECK_OK(transport_reserve(t, bytes));
    exchange_table(t, &table, NULL, 4 * i);
    CHECK_OK(transport_reserve(t, bytes / 4)); /* no smaller for that */
    exchange_table(t, &table, NULL, 4 * i + 2);
  }
  /* Only some ranks need more. */
  CHECK_OK(transport_reserve(t, t->rank == 0 ? 1 << 22 : 64));
  const struct message_table table = message_table_of(1 << 12);
  exchange_table(t, &table, NULL, 64);
}

static void open_fails(struct sy_transport *t, size_t send, size_t most, sy_status status,
                       const char *part) {
  struct sy_message_bytes messages[TRANSPORT_MAX_WORLD];
  for (int32_t peer = 0; peer < t->world; ++peer) {
    messages[peer] = (struct sy_message_bytes){.send = send, .receive_max = most};
  }
  CHECK_STATUS(t->ops->open(t, SY_DISPATCH, false, messages), status);
  CHECK_STR_HAS(sy_last_error(NULL), part);
}

/* A failed open leaves nothing open, and no peer has heard of it. */
void case_sizes_that_do_not_fit(struct sy_transport *t) {
  const size_t fits = 1024;
  const struct message_table table = message_table_of(fits);
  CHECK_OK(transport_reserve(t, fits));
  open_fails(t, fits + 16, fits + 16, SY_ERR_TOO_SMALL, "1040 bytes");
  open_fails(t, fits * (size_t)t->world + 16, fits, SY_ERR_TOO_SMALL, "arena");
  open_fails(t, 24, fits, SY_ERR_ARGUMENT, "24 bytes: must be a multiple of 16");
  exchange_table(t, &table, NULL, 1);
}

void case_calls_out_of_order(struct sy_transport *t) {
  const struct message_table table = message_table_of(64);
  const struct test_exchange x = {SY_DISPATCH, false, &table, NULL, 1};
  const struct sy_message_bytes messages[TRANSPORT_MAX_WORLD] = {{0}};
  bool done = false;
  CHECK_OK(transport_reserve(t, 64));
  CHECK_STATUS(t->ops->start(t, SY_DISPATCH), SY_ERR_STATE);
  CHECK_STR_HAS(sy_last_error(NULL), "start of an exchange that is closed; it must be open");
  CHECK_STATUS(t->ops->wait(t, SY_DISPATCH, transport_deadline()), SY_ERR_STATE);
  CHECK_STATUS(t->ops->progress(t, SY_DISPATCH, &done), SY_ERR_STATE);
  exchange_begin(t, &x);
  CHECK_STATUS(t->ops->open(t, SY_DISPATCH, false, messages), SY_ERR_STATE);
  CHECK_STATUS(t->ops->start(t, SY_DISPATCH), SY_ERR_STATE);
  CHECK_STATUS(transport_reserve(t, 128), SY_ERR_STATE);
  exchange_end(t, &x);
  CHECK_STATUS(t->ops->wait(t, SY_DISPATCH, transport_deadline()), SY_ERR_STATE);
  exchange_table(t, &table, NULL, 2);
}

/* Sizes around what one round of a transport may carry. */
void case_allgather(struct sy_transport *t) {
  static const size_t sizes[] = {1, 8, 247, 248, 249, 256, 496, 1000};
  unsigned char mine[1000];
  unsigned char all[1000 * TRANSPORT_MAX_WORLD];
  for (unsigned s = 0; s < sizeof sizes / sizeof *sizes; ++s) {
    const size_t bytes = sizes[s];
    for (size_t i = 0; i < bytes; ++i) {
      mine[i] = pattern(s, t->rank, 0, i);
    }
    memset(all, 0, sizeof all);
    CHECK_OK(t->ops->allgather(t, mine, bytes, all, transport_deadline()));
    size_t num_wrong = 0;
    for (int32_t peer = 0; peer < t->world; ++peer) {
      for (size_t i = 0; i < bytes; ++i) {
        num_wrong += all[(size_t)peer * bytes + i] != pattern(s, peer, 0, i);
      }
    }
    CHECK_EQ_U64(num_wrong, 0);
  }
}

void case_dead_after_abort(struct sy_transport *t) {
  const struct sy_message_bytes messages[TRANSPORT_MAX_WORLD] = {{0}};
  unsigned char all[TRANSPORT_MAX_WORLD];
  bool done = false;
  t->ops->abort(t);
  CHECK_STATUS(t->ops->open(t, SY_DISPATCH, false, messages), SY_ERR_PEER);
  CHECK_STATUS(t->ops->start(t, SY_DISPATCH), SY_ERR_PEER);
  CHECK_STATUS(t->ops->progress(t, SY_DISPATCH, &done), SY_ERR_PEER);
  CHECK_STATUS(t->ops->wait(t, SY_DISPATCH, transport_deadline()), SY_ERR_PEER);
  CHECK_STATUS(t->ops->allgather(t, "x", 1, all, transport_deadline()), SY_ERR_PEER);
  CHECK_STATUS(transport_reserve(t, 64), SY_ERR_PEER);
}

/* ---- Fences ---- */

static void expect_overrun(sy_status status, int32_t peer) {
  char sentence[80];
  snprintf(sentence, sizeof sentence, "the message to rank %d was written past its 32 bytes", peer);
  CHECK_EQ_I64(status, SY_ERR_INTERNAL);
  CHECK_STR_HAS(sy_last_error(NULL), sentence);
}

static void open_32_bytes(struct sy_transport *t) {
  struct sy_message_bytes messages[TRANSPORT_MAX_WORLD];
  for (int32_t peer = 0; peer < t->world; ++peer) {
    messages[peer] = (struct sy_message_bytes){.send = 32, .receive_max = 32};
  }
  CHECK_OK(transport_reserve(t, 32));
  CHECK_OK(t->ops->open(t, SY_DISPATCH, false, messages));
}

/* One byte, behind the message to the next rank. */
void case_written_too_far_before_start(struct sy_transport *t) {
  const int32_t next = (t->rank + 1) % t->world;
  open_32_bytes(t);
  unsigned char *landing = t->ops->landing(t, SY_DISPATCH, next);
  landing[32] = 1;
  expect_overrun(t->ops->start(t, SY_DISPATCH), next);
  t->ops->abort(t);
}

/* The last byte of the fence behind the own message, while the exchange is under way. */
void case_written_too_far_before_wait(struct sy_transport *t) {
  open_32_bytes(t);
  unsigned char *landing = t->ops->landing(t, SY_DISPATCH, t->rank);
  CHECK_OK(t->ops->start(t, SY_DISPATCH));
  landing[32 + 63] = 1;
  expect_overrun(t->ops->wait(t, SY_DISPATCH, transport_deadline()), t->rank);
  t->ops->abort(t);
}
