/* The transport over MPI: nonblocking point-to-point messages on a duplicate of the caller's
 * communicator, one message per peer and direction.
 *
 * Whose message is it? MPI matches messages of one sender, communicator and tag in the order sent.
 * A direction has a tag of its own, and in it every rank posts, for each open, one receive from and
 * one send to every peer, even of 0 bytes, even when it has found an error of its own. So the n-th
 * message of a pair is always that of the n-th exchange, and one that a failed call left behind
 * cannot be taken for a later one.
 *
 * The duplicate. Freeing a communicator is collective: MPI allows an implementation to synchronise
 * in it, and add-on collective components do. Destroy must not communicate, so the duplicate lives
 * until MPI_Finalize, which every rank enters: there the deletion of an attribute of MPI_COMM_SELF
 * frees it, the one callback that MPI promises to run while it still works. A communicator freed
 * with messages pending (a dead group) is legal; MPI keeps it until they end. */
#define _GNU_SOURCE /* RUSAGE_THREAD */
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "comm/clock.h"
#include "comm/lane.h"
#include "comm/mpi_blocks.h"
#include "comm/mpi_transport.h"
#include "runtime/memory.h"
#include "runtime/status.h"

/* Set-up has a lane of its own beside the two directions. A lane's number is its tag. */
enum { LANE_SETUP = SY_NUM_DIRECTIONS, NUM_LANES };

enum request_kind { RECEIVES, SENDS, NUM_REQUEST_KINDS };

/* What one round of the set-up lane carries from each rank. Never changes: ranks find out by it
 * that their versions of the library differ. */
struct setup_message {
  uint64_t bytes_left; /* this round included; the same on all ranks */
  unsigned char payload[248];
};
_Static_assert(sizeof(struct setup_message) % SY_MESSAGE_ALIGN == 0, "set-up message");

/* What outlives the transport, until MPI_Finalize. */
struct mpi_handles {
  MPI_Comm comm;
  MPI_Datatype block; /* SY_MESSAGE_ALIGN bytes */
};

struct mpi_transport {
  struct sy_transport base;
  bool dead;
  struct mpi_handles *handles;
  struct sy_lane lanes[NUM_LANES];
  MPI_Request *requests; /* [NUM_LANES][NUM_REQUEST_KINDS][W] */
  int *completed;        /* [W] MPI_Testsome's indices and statuses */
  MPI_Status *statuses;
  bool *missing;                          /* [W] */
  struct sy_message_bytes *setup_message; /* [W] one struct setup_message each way */
  long core_switches;                     /* of this thread, when it last looked */
  char error_text[SY_ERROR_TEXT_BYTES];
  struct mpi_transport *next_abandoned;
};

static struct mpi_transport *mpi_of(struct sy_transport *t) { return (struct mpi_transport *)t; }

static sy_status mpi_fail(struct mpi_transport *m, int code, const char *call) {
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  snprintf(m->error_text, sizeof m->error_text, "%s: %s", call, text);
  return sy_fail(SY_ERR_TRANSPORT, "%s", m->error_text);
}

#define MPI_TRY(m, call)                    \
  do {                                      \
    const int mpi_code_ = (call);           \
    if (mpi_code_ != MPI_SUCCESS) {         \
      return mpi_fail(m, mpi_code_, #call); \
    }                                       \
  } while (0)

/* ---- One lane ---- */

static sy_status check_countable(const struct mpi_transport *m, bool broadcast,
                                 const struct sy_message_bytes *messages) {
  for (int32_t peer = 0; peer < m->base.world; ++peer) {
    const size_t send = messages[broadcast ? m->base.rank : peer].send;
    const size_t receive_max = messages[peer].receive_max;
    const size_t larger = send > receive_max ? send : receive_max;
    if (larger > SY_MPI_MESSAGE_MAX) {
      return sy_fail(SY_ERR_OVERFLOW, "rank %d's message of %zu bytes: MPI can count up to %zu",
                     peer, larger, SY_MPI_MESSAGE_MAX);
    }
  }
  return SY_OK;
}

/* [W], by peer; null where nothing is under way. */
static MPI_Request *requests_of(const struct mpi_transport *m, int lane_idx,
                                enum request_kind kind) {
  const size_t row = (size_t)lane_idx * NUM_REQUEST_KINDS + (size_t)kind;
  return m->requests + row * (size_t)m->base.world;
}

static sy_status open_lane(struct mpi_transport *m, int lane_idx, bool broadcast,
                           const struct sy_message_bytes *messages) {
  struct sy_lane *lane = &m->lanes[lane_idx];
  if (m->dead) {
    return SY_ERR_PEER;
  }
  SY_TRY(check_countable(m, broadcast, messages));
  SY_TRY(sy_lane_open(lane, broadcast, messages));
  for (int32_t peer = 0; peer < m->base.world; ++peer) {
    if (peer == m->base.rank) {
      continue;
    }
    const struct sy_lane_message *message = &lane->messages[peer];
    MPI_TRY(m, MPI_Irecv(lane->in.start + message->in_offset, sy_mpi_blocks(message->receive_max),
                         m->handles->block, peer, lane_idx, m->handles->comm,
                         requests_of(m, lane_idx, RECEIVES) + peer));
  }
  return SY_OK;
}

static sy_status start_lane(struct mpi_transport *m, int lane_idx) {
  struct sy_lane *lane = &m->lanes[lane_idx];
  const int32_t world = m->base.world;
  if (m->dead) {
    return SY_ERR_PEER;
  }
  SY_TRY(sy_lane_start(lane));
  for (int32_t i = 1; i < world; ++i) {
    const int32_t peer = (m->base.rank + i) % world;
    MPI_TRY(m, MPI_Isend(sy_lane_landing(lane, peer),
                         sy_mpi_blocks(lane->messages[peer].send_bytes), m->handles->block, peer,
                         lane_idx, m->handles->comm, requests_of(m, lane_idx, SENDS) + peer));
  }
  return SY_OK;
}

/* A peer that sent too much has not hurt the transport: its message is cut off, and both sides go
 * on. The code of each completed request is in its status only when MPI says so. */
static sy_status note_completed(struct mpi_transport *m, int lane_idx, enum request_kind kind,
                                int peer, int code, const MPI_Status *status) {
  int class = MPI_SUCCESS;
  if (code != MPI_SUCCESS) {
    MPI_Error_class(code, &class);
  }
  if (kind == RECEIVES && class == MPI_SUCCESS) {
    m->lanes[lane_idx].messages[peer].received_bytes =
        sy_mpi_received_bytes(status, m->handles->block);
    return SY_OK;
  }
  const bool cut_off = kind == RECEIVES && class == MPI_ERR_TRUNCATE;
  return class == MPI_SUCCESS || cut_off
             ? SY_OK
             : mpi_fail(m, code, kind == RECEIVES ? "a receive" : "a send");
}

static sy_status poll_requests(struct mpi_transport *m, int lane_idx, enum request_kind kind) {
  int num_completed = 0;
  const int code = MPI_Testsome(m->base.world, requests_of(m, lane_idx, kind), &num_completed,
                                m->completed, m->statuses);
  int class = MPI_SUCCESS;
  if (code != MPI_SUCCESS) {
    MPI_Error_class(code, &class);
  }
  if (class != MPI_SUCCESS && class != MPI_ERR_IN_STATUS) {
    return mpi_fail(m, code, "MPI_Testsome");
  }
  for (int i = 0; num_completed != MPI_UNDEFINED && i < num_completed; ++i) {
    const int own_code = class == MPI_ERR_IN_STATUS ? m->statuses[i].MPI_ERROR : MPI_SUCCESS;
    SY_TRY(note_completed(m, lane_idx, kind, m->completed[i], own_code, &m->statuses[i]));
  }
  return SY_OK;
}

static int32_t count_pending(const struct mpi_transport *m, int lane_idx, enum request_kind kind) {
  const MPI_Request *requests = requests_of(m, lane_idx, kind);
  int32_t count = 0;
  for (int32_t peer = 0; peer < m->base.world; ++peer) {
    count += requests[peer] != MPI_REQUEST_NULL;
  }
  return count;
}

/* Receives are tested apart from sends. When one was cut off, Open MPI 4.1 releases every request
 * of the array whose status holds an error, and the status of a send under way holds anything. */
static sy_status progress_lane(struct mpi_transport *m, int lane_idx, int32_t *pending_out) {
  if (m->dead) {
    return SY_ERR_PEER;
  }
  SY_TRY(sy_lane_check_started(&m->lanes[lane_idx]));
  int32_t pending = 0;
  for (enum request_kind kind = RECEIVES; kind < NUM_REQUEST_KINDS; ++kind) {
    if (count_pending(m, lane_idx, kind) > 0) {
      SY_TRY(poll_requests(m, lane_idx, kind));
      pending += count_pending(m, lane_idx, kind);
    }
  }
  *pending_out = pending;
  return SY_OK;
}

/* Ranks may share cores: a wait gives its core away at once. When nothing has come for a while, and
 * the core did go to somebody else meanwhile, it sleeps for a small share of the time already lost:
 * yielding alone takes turns with those who have work. Nobody else there: it stays awake, since a
 * large message moves only while both its ends poll. Measured on two cores (EPYC, Linux 6.18): eight
 * ranks, of which one computes, are done 1.4 to 2.8 times sooner than by yielding alone; two ranks
 * exchange 1 MiB at 4.3 GB/s, and at 0.7 GB/s if they sleep whatever happens. */
static void rest(struct mpi_transport *m, int64_t idle_ns) {
  enum { AWAKE_NS = 100000, SLEEP_SHARE = 8, SLEEP_MAX_NS = 50000 };
  sched_yield();
  if (idle_ns < AWAKE_NS) {
    return;
  }
  struct rusage usage;
  getrusage(RUSAGE_THREAD, &usage);
  if (usage.ru_nivcsw != m->core_switches) { /* a yield to another thread counts as involuntary */
    m->core_switches = usage.ru_nivcsw;
    const int64_t sleep_ns = idle_ns / SLEEP_SHARE;
    nanosleep(&(struct timespec){.tv_nsec = sleep_ns < SLEEP_MAX_NS ? sleep_ns : SLEEP_MAX_NS},
              NULL);
  }
}

/* A peer not heard from is missing. When all were heard from, those are that did not take our
 * message. */
static void note_missing(struct mpi_transport *m, int lane_idx) {
  const bool unheard = count_pending(m, lane_idx, RECEIVES) > 0;
  const MPI_Request *requests = requests_of(m, lane_idx, unheard ? RECEIVES : SENDS);
  for (int32_t peer = 0; peer < m->base.world; ++peer) {
    m->missing[peer] = requests[peer] != MPI_REQUEST_NULL;
  }
}

static sy_status wait_lane(struct mpi_transport *m, int lane_idx, int64_t deadline_ns) {
  int64_t idle_since_ns = 0;
  int32_t last_pending = -1;
  for (;;) {
    int32_t pending = 0;
    SY_TRY(progress_lane(m, lane_idx, &pending));
    if (pending == 0) {
      return sy_lane_close(&m->lanes[lane_idx]);
    }
    const int64_t now_ns = sy_clock_ns();
    if (now_ns >= deadline_ns) {
      note_missing(m, lane_idx);
      return SY_ERR_PEER;
    }
    if (pending != last_pending) {
      last_pending = pending;
      idle_since_ns = now_ns;
    }
    rest(m, now_ns - idle_since_ns);
  }
}

/* ---- Set-up ---- */

static size_t payload_bytes(size_t left) {
  const size_t most = sizeof((struct setup_message *)0)->payload;
  return left < most ? left : most;
}

/* One round: the next bytes of every rank. Leaves them in the lane: setup_payload. */
static sy_status gather_round(struct mpi_transport *m, const unsigned char *mine, size_t left,
                              int64_t deadline_ns) {
  struct sy_lane *lane = &m->lanes[LANE_SETUP];
  SY_TRY(open_lane(m, LANE_SETUP, true, m->setup_message));
  struct setup_message *message = sy_lane_landing(lane, m->base.rank);
  *message = (struct setup_message){.bytes_left = left};
  memcpy(message->payload, mine, payload_bytes(left));
  SY_TRY(start_lane(m, LANE_SETUP));
  SY_TRY(wait_lane(m, LANE_SETUP, deadline_ns));
  for (int32_t peer = 0; peer < m->base.world; ++peer) {
    size_t bytes = 0;
    const struct setup_message *theirs = sy_lane_received(lane, peer, &bytes);
    if (bytes != sizeof *theirs || theirs->bytes_left != left) {
      return sy_fail(
          SY_ERR_MISMATCH,
          "set-up: rank %d and rank %d gather different things: one sends %zu bytes, the "
          "other another number",
          m->base.rank, peer, left);
    }
  }
  return SY_OK;
}

static const unsigned char *setup_payload(struct mpi_transport *m, int32_t peer) {
  size_t bytes = 0;
  const struct setup_message *message = sy_lane_received(&m->lanes[LANE_SETUP], peer, &bytes);
  return message->payload;
}

/* In rounds through memory of the transport's own, so that nothing is allocated and a late peer
 * cannot write to the caller's memory. */
static sy_status mpi_allgather(struct sy_transport *t, const void *mine, size_t bytes, void *all,
                               int64_t deadline_ns) {
  struct mpi_transport *m = mpi_of(t);
  size_t done = 0;
  do {
    SY_TRY(gather_round(m, (const unsigned char *)mine + done, bytes - done, deadline_ns));
    const size_t n = payload_bytes(bytes - done);
    for (int32_t peer = 0; peer < t->world; ++peer) {
      memcpy((unsigned char *)all + (size_t)peer * bytes + done, setup_payload(m, peer), n);
    }
    done += n;
  } while (done < bytes);
  return SY_OK;
}

/* Ranks grow their arenas together or not at all. */
static sy_status mpi_reserve(struct sy_transport *t, const struct sy_arena_bytes *bytes,
                             int64_t deadline_ns) {
  struct mpi_transport *m = mpi_of(t);
  struct sy_arena_growth growth = {0};
  const sy_status own = m->dead ? SY_ERR_PEER : sy_arena_growth_prepare(m->lanes, bytes, &growth);
  const int32_t mine = (int32_t)own;
  sy_status status = gather_round(m, (const unsigned char *)&mine, sizeof mine, deadline_ns);
  for (int32_t peer = 0; peer < t->world && status == SY_OK; ++peer) {
    int32_t theirs = SY_OK;
    memcpy(&theirs, setup_payload(m, peer), sizeof theirs);
    if (theirs != SY_OK) {
      status = peer == t->rank ? own
                               : sy_fail((sy_status)theirs, "rank %d cannot reserve: %s", peer,
                                         sy_status_text((sy_status)theirs));
    }
  }
  if (status != SY_OK) {
    sy_arena_growth_discard(&growth);
    return status;
  }
  sy_arena_growth_commit(m->lanes, &growth);
  return SY_OK;
}

/* ---- The table ---- */

static sy_status mpi_open(struct sy_transport *t, enum sy_direction direction, bool broadcast,
                          const struct sy_message_bytes *messages) {
  return open_lane(mpi_of(t), (int)direction, broadcast, messages);
}

static void *mpi_landing(struct sy_transport *t, enum sy_direction direction, int32_t peer) {
  return sy_lane_landing(&mpi_of(t)->lanes[direction], peer);
}

static sy_status mpi_start(struct sy_transport *t, enum sy_direction direction) {
  return start_lane(mpi_of(t), (int)direction);
}

static sy_status mpi_progress(struct sy_transport *t, enum sy_direction direction, bool *done_out) {
  int32_t pending = 0;
  SY_TRY(progress_lane(mpi_of(t), (int)direction, &pending));
  *done_out = pending == 0;
  return SY_OK;
}

static sy_status mpi_wait(struct sy_transport *t, enum sy_direction direction,
                          int64_t deadline_ns) {
  return wait_lane(mpi_of(t), (int)direction, deadline_ns);
}

static const void *mpi_received(struct sy_transport *t, enum sy_direction direction, int32_t peer,
                                size_t *bytes_out) {
  return sy_lane_received(&mpi_of(t)->lanes[direction], peer, bytes_out);
}

/* Messages lie in host memory, and wait() names who is missing: none of these has anything to do. */
static void mpi_beat(struct sy_transport *t, uint64_t step) {
  (void)t;
  (void)step;
}

static sy_status mpi_check(struct sy_transport *t) { return mpi_of(t)->dead ? SY_ERR_PEER : SY_OK; }

static void mpi_expired(struct sy_transport *t) { (void)t; }

static bool mpi_missing(const struct sy_transport *t, int32_t peer) {
  return ((const struct mpi_transport *)t)->missing[peer];
}

static const char *mpi_error_text(const struct sy_transport *t) {
  return ((const struct mpi_transport *)t)->error_text;
}

static void mpi_abort(struct sy_transport *t) { mpi_of(t)->dead = true; }

/* ---- Life ---- */

/* Transports that a peer may still write to stay allocated, and within reach, so that leak checkers
 * tell them from what was lost. */
static _Atomic(struct mpi_transport *) abandoned;

static void abandon(struct mpi_transport *m) {
  m->next_abandoned = atomic_load(&abandoned);
  while (!atomic_compare_exchange_weak(&abandoned, &m->next_abandoned, m)) {
  }
}

static void release(struct mpi_transport *m) {
  for (int i = 0; i < NUM_LANES; ++i) {
    sy_lane_destroy(&m->lanes[i]);
  }
  sy_free(m->requests);
  sy_free(m->completed);
  sy_free(m->statuses);
  sy_free(m->missing);
  sy_free(m->setup_message);
  sy_free(m);
}

static void mpi_destroy(struct sy_transport *t) {
  struct mpi_transport *m = mpi_of(t);
  bool in_use = m->dead;
  for (int i = 0; i < NUM_LANES; ++i) {
    in_use = in_use || m->lanes[i].state != SY_LANE_CLOSED;
  }
  if (in_use) {
    abandon(m);
  } else {
    release(m);
  }
}

static const struct sy_transport_ops mpi_ops = {
    .name = "mpi",
    .reserve = mpi_reserve,
    .open = mpi_open,
    .landing = mpi_landing,
    .start = mpi_start,
    .progress = mpi_progress,
    .wait = mpi_wait,
    .received = mpi_received,
    .beat = mpi_beat,
    .check = mpi_check,
    .expired = mpi_expired,
    .missing = mpi_missing,
    .allgather = mpi_allgather,
    .error_text = mpi_error_text,
    .abort = mpi_abort,
    .destroy = mpi_destroy,
};

static sy_status allocate_lanes(struct mpi_transport *m) {
  for (int i = 0; i < NUM_LANES; ++i) {
    const size_t in_bytes =
        i == LANE_SETUP ? (size_t)m->base.world * sizeof(struct setup_message) : 0;
    SY_TRY(sy_lane_create(&m->lanes[i], &sy_arena_host, m->base.rank, m->base.world, in_bytes));
  }
  return SY_OK;
}

static sy_status allocate_tables(struct mpi_transport *m) {
  const size_t w = (size_t)m->base.world;
  const size_t num_requests = (size_t)NUM_LANES * NUM_REQUEST_KINDS * w;
  m->requests = sy_alloc(num_requests * sizeof(MPI_Request));
  m->completed = sy_alloc(w * sizeof *m->completed);
  m->statuses = sy_alloc(w * sizeof *m->statuses);
  m->missing = sy_alloc(w * sizeof *m->missing);
  m->setup_message = sy_alloc(w * sizeof *m->setup_message);
  if (m->requests == NULL || m->completed == NULL || m->statuses == NULL || m->missing == NULL ||
      m->setup_message == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory for the request tables of %zu ranks", w);
  }
  for (size_t i = 0; i < num_requests; ++i) {
    m->requests[i] = MPI_REQUEST_NULL;
  }
  for (size_t peer = 0; peer < w; ++peer) {
    m->missing[peer] = false;
    m->setup_message[peer] =
        (struct sy_message_bytes){sizeof(struct setup_message), sizeof(struct setup_message)};
  }
  return SY_OK;
}

/* Of an attribute of MPI_COMM_SELF, so in MPI_Finalize, on every rank in the reverse order of
 * creation. */
static int release_handles(MPI_Comm self, int keyval, void *attribute, void *extra) {
  (void)self;
  (void)keyval;
  (void)extra;
  struct mpi_handles *handles = attribute;
  MPI_Type_free(&handles->block);
  MPI_Comm_free(&handles->comm);
  sy_free(handles);
  return MPI_SUCCESS;
}

static sy_status keep_until_finalize(struct mpi_transport *m) {
  int keyval = MPI_KEYVAL_INVALID;
  MPI_TRY(m, MPI_Comm_create_keyval(MPI_COMM_NULL_COPY_FN, release_handles, &keyval, NULL));
  MPI_TRY(m, MPI_Comm_set_attr(MPI_COMM_SELF, keyval, m->handles));
  MPI_TRY(m, MPI_Comm_free_keyval(&keyval)); /* at once; it lasts as long as the attribute */
  return SY_OK;
}

/* Nonblocking, so that a rank that never comes is an error and no hang. */
static sy_status duplicate(struct mpi_transport *m, MPI_Comm comm, int64_t deadline_ns) {
  MPI_Request request = MPI_REQUEST_NULL;
  MPI_TRY(m, MPI_Comm_idup(comm, &m->handles->comm, &request));
  const int64_t begin_ns = sy_clock_ns();
  for (;;) {
    int done = 0;
    MPI_TRY(m, MPI_Test(&request, &done, MPI_STATUS_IGNORE));
    if (done) {
      break;
    }
    const int64_t now_ns = sy_clock_ns();
    if (now_ns >= deadline_ns) {
      return sy_fail(SY_ERR_PEER,
                     "some of the %d ranks did not come to create the group in time; "
                     "MPI does not tell which",
                     m->base.world);
    }
    rest(m, now_ns - begin_ns);
  }
  MPI_TRY(m, MPI_Comm_set_errhandler(m->handles->comm, MPI_ERRORS_RETURN));
  MPI_TRY(m, MPI_Type_contiguous(SY_MESSAGE_ALIGN, MPI_BYTE, &m->handles->block));
  MPI_TRY(m, MPI_Type_commit(&m->handles->block));
  return keep_until_finalize(m);
}

MPI_Comm sy_transport_mpi_comm(struct sy_transport *t) { return mpi_of(t)->handles->comm; }

sy_status sy_transport_create_mpi(MPI_Comm comm, int64_t deadline_ns,
                                  struct sy_transport **transport_out) {
  struct mpi_transport *m = sy_alloc(sizeof *m);
  struct mpi_handles *handles = sy_alloc(sizeof *handles);
  if (m == NULL || handles == NULL) {
    sy_free(m);
    sy_free(handles);
    return sy_fail(SY_ERR_MEMORY, "no memory for the MPI transport");
  }
  *m = (struct mpi_transport){.base = {.ops = &mpi_ops, .memory = SY_MEMORY_HOST},
                              .handles = handles};
  MPI_Comm_rank(comm, &m->base.rank);
  MPI_Comm_size(comm, &m->base.world);
  sy_status status = allocate_lanes(m);
  if (status == SY_OK) {
    status = allocate_tables(m);
  }
  if (status != SY_OK) {
    sy_free(handles);
    release(m);
    return status;
  }
  status = duplicate(m, comm, deadline_ns);
  if (status != SY_OK) {
    abandon(m);
    return status;
  }
  *transport_out = &m->base;
  return SY_OK;
}
