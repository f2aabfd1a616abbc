/* The transport over NCCL: messages between device memory, enqueued on the caller's stream.
 *
 * Sizes are known on both sides, so an exchange is one group of sends and receives, and `received` is
 * known as soon as the communicator has taken the group. Peers are staggered: in round i a rank sends
 * to rank + i and receives from rank - i. A broadcast of equal sizes is an all-gather in place.
 *
 * The communicators made here do not block: a rank that never comes is an error within a deadline and
 * no hang. A caller's own may block inside NCCL while it connects.
 *
 * What ranks agree on goes over the side channel. A communicator that came without one gathers over
 * NCCL itself, through a little memory of its own; then nobody can tell who is missing. */
#include <nccl.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "comm/clock.h"
#include "comm/lane.h"
#include "comm/nccl_transport.h"
#include "runtime/memory.h"
#include "runtime/status.h"

_Static_assert(SY_NCCL_ID_BYTES == sizeof(ncclUniqueId), "an id travels whole");

/* What one round of a gathering without a side channel carries from each rank. */
struct round_message {
  uint64_t bytes_left; /* this round included; the same on all ranks */
  unsigned char payload[248];
};

struct nccl_transport {
  struct sy_transport base;
  bool dead;
  bool owns_comm;
  ncclComm_t comm;
  struct sy_side *side; /* or NULL */
  struct sy_lane lanes[SY_NUM_DIRECTIONS];
  bool *missing; /* [W] */
  uint64_t step;
  uint64_t *steps;              /* [W] told by the side channel */
  cudaStream_t round_stream;    /* without a side channel: */
  struct round_message *rounds; /* [W] pinned */
  void *device_rounds;          /* the same in device memory */
  char error_text[SY_ERROR_TEXT_BYTES];
  struct nccl_transport *next_abandoned;
};

static struct nccl_transport *nccl_of(struct sy_transport *t) { return (struct nccl_transport *)t; }

static sy_status nccl_fail(struct nccl_transport *n, ncclResult_t result, const char *call) {
  const char *details = ncclGetLastError(n->comm);
  snprintf(n->error_text, sizeof n->error_text, "%s: %s%s%s", call, ncclGetErrorString(result),
           details != NULL && details[0] != '\0' ? ": " : "", details != NULL ? details : "");
  return sy_fail(SY_ERR_TRANSPORT, "%s", n->error_text);
}

static sy_status cuda_fail(struct nccl_transport *n, cudaError_t error, const char *call) {
  (void)cudaGetLastError(); /* or the next launch finds it */
  snprintf(n->error_text, sizeof n->error_text, "%s: %s", call, cudaGetErrorString(error));
  return sy_fail(SY_ERR_DEVICE, "%s", n->error_text);
}

#define NCCL_TRY(n, call)                  \
  do {                                     \
    const ncclResult_t result_ = (call);   \
    if (result_ != ncclSuccess) {          \
      return nccl_fail(n, result_, #call); \
    }                                      \
  } while (0)

#define CUDA_TRY(n, call)                 \
  do {                                    \
    const cudaError_t error_ = (call);    \
    if (error_ != cudaSuccess) {          \
      return cuda_fail(n, error_, #call); \
    }                                     \
  } while (0)

static void rest(void) {
  sched_yield();
  nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
}

/* ---- The communicator ---- */

/* Whether it has taken what it was asked for. */
static sy_status poll_comm(struct nccl_transport *n, bool *ready_out) {
  ncclResult_t state = ncclSuccess;
  NCCL_TRY(n, ncclCommGetAsyncError(n->comm, &state));
  if (state != ncclSuccess && state != ncclInProgress) {
    return nccl_fail(n, state, "asynchronously");
  }
  *ready_out = state == ncclSuccess;
  return SY_OK;
}

static sy_status await_comm(struct nccl_transport *n, int64_t deadline_ns) {
  for (;;) {
    bool ready = false;
    SY_TRY(poll_comm(n, &ready));
    if (ready) {
      return SY_OK;
    }
    if (sy_clock_ns() >= deadline_ns) {
      return SY_ERR_PEER;
    }
    rest();
  }
}

/* In progress is no error: await_comm sees it through. */
static sy_status taken(struct nccl_transport *n, ncclResult_t result, const char *call) {
  return result == ncclSuccess || result == ncclInProgress ? SY_OK : nccl_fail(n, result, call);
}

/* ---- Memory ---- */

static void *nccl_alloc(size_t bytes) {
  void *block = NULL;
  const ncclResult_t result = ncclMemAlloc(&block, bytes > 0 ? bytes : SY_MESSAGE_ALIGN);
  (void)cudaGetLastError();
  return result == ncclSuccess ? block : NULL;
}

static void nccl_free(void *block) {
  if (block != NULL) {
    (void)ncclMemFree(block);
  }
}

static const struct sy_arena_memory nccl_memory = {
    .kind = SY_MEMORY_DEVICE, .alloc = nccl_alloc, .free = nccl_free};

/* ---- An exchange ---- */

static sy_status nccl_open(struct sy_transport *t, enum sy_direction direction, bool broadcast,
                           const struct sy_message_bytes *messages) {
  struct nccl_transport *n = nccl_of(t);
  return n->dead ? SY_ERR_PEER : sy_lane_open(&n->lanes[direction], broadcast, messages);
}

static void *nccl_landing(struct sy_transport *t, enum sy_direction direction, int32_t peer) {
  return sy_lane_landing(&nccl_of(t)->lanes[direction], peer);
}

/* Whether what comes lies as an all-gather leaves it: equal sizes, and no fences between. All ranks
 * know all sizes of a broadcast, so they agree. */
static bool is_all_gather(const struct sy_lane *lane) {
  const size_t bytes = lane->messages[lane->rank].send_bytes;
  for (int32_t peer = 0; peer < lane->world; ++peer) {
    const struct sy_lane_message *m = &lane->messages[peer];
    if ((peer != lane->rank && m->receive_max != bytes) || m->in_offset != (size_t)peer * bytes) {
      return false;
    }
  }
  return lane->broadcast;
}

/* Everything between the two calls, so that a group that was begun is ended. */
static ncclResult_t enqueue_messages(const struct nccl_transport *n, const struct sy_lane *lane,
                                     cudaStream_t stream) {
  const int32_t world = lane->world;
  ncclResult_t first = ncclSuccess;
  for (int32_t i = 1; i < world && first == ncclSuccess; ++i) {
    const int32_t to = (lane->rank + i) % world;
    const int32_t from = (lane->rank + world - i) % world;
    const size_t send_bytes = lane->messages[to].send_bytes;
    const size_t receive_bytes = lane->messages[from].receive_max;
    if (send_bytes > 0) {
      first = ncclSend(sy_lane_landing(lane, to), send_bytes, ncclInt8, to, n->comm, stream);
    }
    if (receive_bytes > 0 && first == ncclSuccess) {
      first = ncclRecv(lane->in.start + lane->messages[from].in_offset, receive_bytes, ncclInt8,
                       from, n->comm, stream);
    }
  }
  return first;
}

static sy_status nccl_start(struct sy_transport *t, enum sy_direction direction) {
  struct nccl_transport *n = nccl_of(t);
  struct sy_lane *lane = &n->lanes[direction];
  cudaStream_t stream = t->stream;
  if (n->dead) {
    return SY_ERR_PEER;
  }
  SY_TRY(sy_lane_start(lane));
  if (t->world == 1) {
    return SY_OK;
  }
  if (is_all_gather(lane)) {
    const size_t bytes = lane->messages[t->rank].send_bytes;
    return bytes == 0 ? SY_OK
                      : taken(n,
                              ncclAllGather(sy_lane_landing(lane, t->rank), lane->in.start, bytes,
                                            ncclInt8, n->comm, stream),
                              "ncclAllGather");
  }
  NCCL_TRY(n, ncclGroupStart());
  const ncclResult_t first = enqueue_messages(n, lane, stream);
  const ncclResult_t ended = ncclGroupEnd();
  SY_TRY(taken(n, first, "ncclSend, ncclRecv"));
  return taken(n, ended, "ncclGroupEnd");
}

static sy_status nccl_progress(struct sy_transport *t, enum sy_direction direction,
                               bool *done_out) {
  struct nccl_transport *n = nccl_of(t);
  if (n->dead) {
    return SY_ERR_PEER;
  }
  SY_TRY(sy_lane_check_started(&n->lanes[direction]));
  return poll_comm(n, done_out);
}

static sy_status nccl_wait(struct sy_transport *t, enum sy_direction direction,
                           int64_t deadline_ns) {
  struct nccl_transport *n = nccl_of(t);
  struct sy_lane *lane = &n->lanes[direction];
  if (n->dead) {
    return SY_ERR_PEER;
  }
  SY_TRY(sy_lane_check_started(lane));
  const sy_status status = await_comm(n, deadline_ns);
  if (status == SY_ERR_PEER) {
    t->ops->expired(t);
  }
  SY_TRY(status);
  for (int32_t peer = 0; peer < t->world; ++peer) {
    if (peer != t->rank) {
      lane->messages[peer].received_bytes = lane->messages[peer].receive_max;
    }
  }
  return sy_lane_close(lane);
}

static const void *nccl_received(struct sy_transport *t, enum sy_direction direction, int32_t peer,
                                 size_t *bytes_out) {
  return sy_lane_received(&nccl_of(t)->lanes[direction], peer, bytes_out);
}

/* ---- Who is there ---- */

static void nccl_beat(struct sy_transport *t, uint64_t step) {
  struct nccl_transport *n = nccl_of(t);
  n->step = step;
  if (n->side != NULL && !n->dead) {
    n->side->ops->beat(n->side, step);
  }
}

static sy_status nccl_check(struct sy_transport *t) {
  struct nccl_transport *n = nccl_of(t);
  bool ready = false;
  return n->dead ? SY_ERR_PEER : poll_comm(n, &ready);
}

/* Peers have told their steps when they began them; what is on its way gets a moment. */
static void nccl_expired(struct sy_transport *t) {
  enum { GRACE_NS = 200000000 };
  struct nccl_transport *n = nccl_of(t);
  const int64_t deadline_ns = sy_clock_ns() + GRACE_NS;
  int32_t num_missing = n->side != NULL ? t->world : 0;
  memset(n->missing, 0, (size_t)t->world * sizeof *n->missing);
  while (num_missing > 0) {
    num_missing = 0;
    n->side->ops->steps(n->side, n->steps);
    for (int32_t peer = 0; peer < t->world; ++peer) {
      n->missing[peer] = peer != t->rank && n->steps[peer] < n->step;
      num_missing += n->missing[peer];
    }
    if (sy_clock_ns() >= deadline_ns) {
      break;
    }
    rest();
  }
  if (num_missing == 0) {
    snprintf(n->error_text, sizeof n->error_text, "%s",
             n->side == NULL
                 ? "the communicator came without a side channel: nobody can tell which ranks are "
                   "missing"
                 : "every rank has begun this step, and it does not end");
  }
}

static bool nccl_missing(const struct sy_transport *t, int32_t peer) {
  return ((const struct nccl_transport *)t)->missing[peer];
}

/* ---- Set-up ---- */

/* The next bytes of every rank, into n->rounds. */
static sy_status gather_round(struct nccl_transport *n, const unsigned char *mine, size_t left,
                              int64_t deadline_ns) {
  const size_t world = (size_t)n->base.world;
  const size_t bytes = sizeof *n->rounds;
  struct round_message *own = &n->rounds[n->base.rank];
  unsigned char *device_own = (unsigned char *)n->device_rounds + (size_t)n->base.rank * bytes;
  const size_t payload = left < sizeof own->payload ? left : sizeof own->payload;
  *own = (struct round_message){.bytes_left = left};
  memcpy(own->payload, mine, payload);
  CUDA_TRY(n, cudaMemcpyAsync(device_own, own, bytes, cudaMemcpyDefault, n->round_stream));
  SY_TRY(taken(
      n, ncclAllGather(device_own, n->device_rounds, bytes, ncclInt8, n->comm, n->round_stream),
      "ncclAllGather"));
  SY_TRY(await_comm(n, deadline_ns));
  CUDA_TRY(n, cudaMemcpyAsync(n->rounds, n->device_rounds, world * bytes, cudaMemcpyDefault,
                              n->round_stream));
  for (;;) {
    const cudaError_t state = cudaStreamQuery(n->round_stream);
    if (state == cudaSuccess) {
      break;
    }
    if (state != cudaErrorNotReady) {
      return cuda_fail(n, state, "cudaStreamQuery");
    }
    bool ready = false;
    SY_TRY(poll_comm(n, &ready));
    if (sy_clock_ns() >= deadline_ns) {
      return SY_ERR_PEER;
    }
    rest();
  }
  for (int32_t peer = 0; peer < n->base.world; ++peer) {
    if (n->rounds[peer].bytes_left != left) {
      return sy_fail(SY_ERR_MISMATCH, "set-up: rank %d gathers %zu bytes, rank %d gathers %llu",
                     n->base.rank, left, peer, (unsigned long long)n->rounds[peer].bytes_left);
    }
  }
  return SY_OK;
}

static sy_status gather_without_side(struct nccl_transport *n, const void *mine, size_t bytes,
                                     void *all, int64_t deadline_ns) {
  size_t done = 0;
  do {
    const size_t left = bytes - done;
    const sy_status status = gather_round(n, (const unsigned char *)mine + done, left, deadline_ns);
    if (status == SY_ERR_PEER) {
      n->base.ops->expired(&n->base);
    }
    SY_TRY(status);
    const size_t payload = left < sizeof n->rounds->payload ? left : sizeof n->rounds->payload;
    for (int32_t peer = 0; peer < n->base.world; ++peer) {
      memcpy((unsigned char *)all + (size_t)peer * bytes + done, n->rounds[peer].payload, payload);
    }
    done += payload;
  } while (done < bytes);
  return SY_OK;
}

static sy_status nccl_allgather(struct sy_transport *t, const void *mine, size_t bytes, void *all,
                                int64_t deadline_ns) {
  struct nccl_transport *n = nccl_of(t);
  if (n->dead) {
    return SY_ERR_PEER;
  }
  if (n->side == NULL) {
    return gather_without_side(n, mine, bytes, all, deadline_ns);
  }
  const sy_status status = n->side->ops->allgather(n->side, mine, bytes, all, deadline_ns);
  for (int32_t peer = 0; peer < t->world && status == SY_ERR_PEER; ++peer) {
    n->missing[peer] = n->side->ops->missing(n->side, peer);
  }
  return status;
}

/* Ranks grow their arenas together or not at all. */
static sy_status nccl_reserve(struct sy_transport *t, const struct sy_arena_bytes *bytes,
                              int64_t deadline_ns) {
  struct nccl_transport *n = nccl_of(t);
  struct sy_arena_growth growth = {0};
  if (n->dead) {
    return SY_ERR_PEER;
  }
  const sy_status own = sy_arena_growth_prepare(n->lanes, bytes, &growth);
  const int32_t mine = (int32_t)own;
  int32_t *all = sy_alloc((size_t)t->world * sizeof *all);
  sy_status status = all == NULL
                         ? sy_fail(SY_ERR_MEMORY, "no memory to hear from %d ranks", t->world)
                         : nccl_allgather(t, &mine, sizeof mine, all, deadline_ns);
  for (int32_t peer = 0; peer < t->world && status == SY_OK; ++peer) {
    if (all[peer] != SY_OK) {
      status = peer == t->rank ? own
                               : sy_fail((sy_status)all[peer], "rank %d cannot reserve: %s", peer,
                                         sy_status_text((sy_status)all[peer]));
    }
  }
  sy_free(all);
  if (own != SY_OK) {
    return own;
  }
  if (status != SY_OK) {
    sy_arena_growth_discard(&growth);
    return status;
  }
  sy_arena_growth_commit(n->lanes, &growth);
  return SY_OK;
}

static const char *nccl_error_text(const struct sy_transport *t) {
  return ((const struct nccl_transport *)t)->error_text;
}

/* ---- Life ---- */

/* Ends the communicator's work and frees it, whoever it is of: nobody could use it any more. */
static void abort_comm(struct nccl_transport *n) {
  if (n->comm != NULL) {
    (void)ncclCommAbort(n->comm);
    n->comm = NULL;
  }
}

static void nccl_abort(struct sy_transport *t) {
  nccl_of(t)->dead = true;
  abort_comm(nccl_of(t));
}

/* What has left this rank may still be on its way: finalising flushes it. A peer that does not come
 * to that is not waited for. */
static void close_comm(struct nccl_transport *n) {
  enum { PATIENCE_NS = 2000000000 };
  if (!n->owns_comm || n->comm == NULL) {
    return;
  }
  const ncclResult_t result = ncclCommFinalize(n->comm);
  if ((result == ncclSuccess || result == ncclInProgress) &&
      await_comm(n, sy_clock_ns() + PATIENCE_NS) == SY_OK) {
    (void)ncclCommDestroy(n->comm);
    n->comm = NULL;
    return;
  }
  abort_comm(n);
}

/* As in mpi.c: within reach, so that leak checkers tell it from what was lost. */
static _Atomic(struct nccl_transport *) abandoned;

static void abandon(struct nccl_transport *n) {
  abort_comm(n);
  n->next_abandoned = atomic_load(&abandoned);
  while (!atomic_compare_exchange_weak(&abandoned, &n->next_abandoned, n)) {
  }
}

static void release(struct nccl_transport *n) {
  close_comm(n);
  for (int d = 0; d < SY_NUM_DIRECTIONS; ++d) {
    sy_lane_destroy(&n->lanes[d]);
  }
  if (n->round_stream != NULL) {
    (void)cudaStreamDestroy(n->round_stream);
  }
  (void)cudaFreeHost(n->rounds);
  (void)cudaFree(n->device_rounds);
  sy_free(n->missing);
  sy_free(n->steps);
  sy_free(n);
}

static void nccl_destroy(struct sy_transport *t) {
  struct nccl_transport *n = nccl_of(t);
  bool in_use = n->dead;
  for (int d = 0; d < SY_NUM_DIRECTIONS; ++d) {
    in_use = in_use || n->lanes[d].state != SY_LANE_CLOSED;
  }
  if (n->side != NULL) {
    n->side->ops->destroy(n->side);
    n->side = NULL;
  }
  if (in_use) {
    abandon(n);
  } else {
    release(n);
  }
}

static const struct sy_transport_ops nccl_ops = {
    .name = "nccl",
    .reserve = nccl_reserve,
    .open = nccl_open,
    .landing = nccl_landing,
    .start = nccl_start,
    .progress = nccl_progress,
    .wait = nccl_wait,
    .received = nccl_received,
    .beat = nccl_beat,
    .check = nccl_check,
    .expired = nccl_expired,
    .missing = nccl_missing,
    .allgather = nccl_allgather,
    .error_text = nccl_error_text,
    .abort = nccl_abort,
    .destroy = nccl_destroy,
};

/* ---- Creation ---- */

static sy_status take_comm(struct nccl_transport *n, struct ncclComm *comm) {
  int rank = 0;
  int world = 0;
  int of_comm = 0;
  int current = 0;
  n->comm = comm;
  NCCL_TRY(n, ncclCommUserRank(comm, &rank));
  NCCL_TRY(n, ncclCommCount(comm, &world));
  NCCL_TRY(n, ncclCommCuDevice(comm, &of_comm));
  CUDA_TRY(n, cudaGetDevice(&current));
  if (of_comm != current) {
    return sy_fail(SY_ERR_ARGUMENT, "the communicator is on GPU %d; the group on GPU %d", of_comm,
                   current);
  }
  n->base.rank = rank;
  n->base.world = world;
  return SY_OK;
}

/* Rank 0's, carried by the side channel; and whether rank 0 could make it. */
struct id_note {
  int32_t result;
  ncclUniqueId id;
};

static sy_status agree_on_id(struct nccl_transport *n, int64_t deadline_ns, ncclUniqueId *id_out) {
  struct id_note mine = {.result = ncclSuccess};
  struct id_note *all = sy_alloc((size_t)n->base.world * sizeof *all);
  if (all == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory to hear from %d ranks", n->base.world);
  }
  if (n->base.rank == 0) {
    mine.result = (int32_t)ncclGetUniqueId(&mine.id);
  }
  sy_status status = SY_OK;
  if (n->base.world > 1) {
    status = n->side->ops->allgather(n->side, &mine, sizeof mine, all, deadline_ns);
  } else {
    all[0] = mine;
  }
  if (status == SY_OK && all[0].result != ncclSuccess) {
    status = nccl_fail(n, (ncclResult_t)all[0].result, "ncclGetUniqueId on rank 0");
  }
  *id_out = all[0].id;
  sy_free(all);
  return status;
}

static sy_status make_comm(struct nccl_transport *n, const struct sy_nccl_desc *desc,
                           int64_t deadline_ns) {
  ncclUniqueId id;
  if (desc->unique_id != NULL) {
    memcpy(&id, desc->unique_id, sizeof id);
  } else {
    SY_TRY(agree_on_id(n, deadline_ns, &id));
  }
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  n->owns_comm = true;
  const ncclResult_t result =
      ncclCommInitRankConfig(&n->comm, n->base.world, id, n->base.rank, &config);
  SY_TRY(taken(n, result, "ncclCommInitRankConfig"));
  const sy_status status = await_comm(n, deadline_ns);
  return status != SY_ERR_PEER
             ? status
             : sy_fail(status,
                       "rank %d: some of the %d ranks did not come to make the communicator "
                       "in time; NCCL does not tell which",
                       n->base.rank, n->base.world);
}

static sy_status allocate(struct nccl_transport *n) {
  const size_t world = (size_t)n->base.world;
  n->missing = sy_alloc(world * sizeof *n->missing);
  n->steps = sy_alloc(world * sizeof *n->steps);
  if (n->missing == NULL || n->steps == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory for the tables of %zu ranks", world);
  }
  memset(n->missing, 0, world * sizeof *n->missing);
  for (int d = 0; d < SY_NUM_DIRECTIONS; ++d) {
    SY_TRY(sy_lane_create(&n->lanes[d], &nccl_memory, n->base.rank, n->base.world, 0));
  }
  if (n->side != NULL) {
    return SY_OK;
  }
  const size_t bytes = world * sizeof *n->rounds;
  CUDA_TRY(n, cudaStreamCreateWithFlags(&n->round_stream, cudaStreamNonBlocking));
  CUDA_TRY(n, cudaHostAlloc((void **)&n->rounds, bytes, cudaHostAllocDefault));
  CUDA_TRY(n, cudaMalloc(&n->device_rounds, bytes));
  return SY_OK;
}

static sy_status check_desc(const struct sy_nccl_desc *desc) {
  if (desc->comm == NULL && (desc->world < 1 || desc->rank < 0 || desc->rank >= desc->world)) {
    return sy_fail(SY_ERR_ARGUMENT, "rank is %d of %d", desc->rank, desc->world);
  }
  if (desc->comm == NULL && desc->unique_id == NULL && desc->side == NULL && desc->world > 1) {
    return sy_fail(SY_ERR_ARGUMENT, "%d ranks have no communicator, no id and no side channel",
                   desc->world);
  }
  return SY_OK;
}

sy_status sy_transport_create_nccl(const struct sy_nccl_desc *desc, int64_t deadline_ns,
                                   struct sy_transport **transport_out) {
  SY_TRY(check_desc(desc));
  struct nccl_transport *n = sy_alloc(sizeof *n);
  if (n == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory for the NCCL transport");
  }
  *n = (struct nccl_transport){.base = {.ops = &nccl_ops,
                                        .memory = SY_MEMORY_DEVICE,
                                        .rank = desc->rank,
                                        .world = desc->world},
                               .side = desc->side};
  sy_status status =
      desc->comm != NULL ? take_comm(n, desc->comm) : make_comm(n, desc, deadline_ns);
  if (status == SY_OK) {
    status = allocate(n);
  }
  if (status != SY_OK) {
    if (n->owns_comm) {
      abort_comm(n);
    }
    release(n); /* without the side channel, which stays the caller's */
    return status;
  }
  *transport_out = &n->base;
  return SY_OK;
}
