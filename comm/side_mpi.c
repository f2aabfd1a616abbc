/* The side channel over MPI: gatherings are those of the MPI transport; a beat is a small message with
 * a tag of its own on the transport's duplicate of the communicator. Each rank keeps one receive posted
 * for each peer, and has at most one beat to it under way: a later one replaces what waits. */
#include <stdatomic.h>
#include <string.h>

#include "comm/mpi_transport.h"
#include "comm/side_mpi.h"
#include "runtime/memory.h"
#include "runtime/status.h"

struct mpi_side {
  struct sy_side base;
  struct sy_transport *transport; /* gathers */
  MPI_Comm comm;                  /* the transport's */
  uint64_t step;
  uint64_t *told;        /* [world] the last step sent to each peer */
  uint64_t *heard;       /* [world] the last step each peer told */
  uint64_t *incoming;    /* [world] */
  MPI_Request *sends;    /* [world] */
  MPI_Request *receives; /* [world] */
  struct mpi_side *next_left;
};

static struct mpi_side *mpi_of(struct sy_side *side) { return (struct mpi_side *)side; }

static void post_receive(struct mpi_side *s, int32_t peer) {
  MPI_Irecv(&s->incoming[peer], 1, MPI_UINT64_T, peer, SY_MPI_BEAT_TAG, s->comm,
            &s->receives[peer]);
}

static void send_beat(struct mpi_side *s, int32_t peer) {
  int is_free = 0;
  MPI_Test(&s->sends[peer], &is_free, MPI_STATUS_IGNORE); /* so is what was never sent */
  if (is_free && s->told[peer] < s->step) {
    s->told[peer] = s->step;
    MPI_Isend(&s->told[peer], 1, MPI_UINT64_T, peer, SY_MPI_BEAT_TAG, s->comm, &s->sends[peer]);
  }
}

static void mpi_beat(struct sy_side *side, uint64_t step) {
  struct mpi_side *s = mpi_of(side);
  s->step = step;
  for (int32_t i = 1; i < side->world; ++i) {
    send_beat(s, (side->rank + i) % side->world);
  }
}

static void mpi_steps(struct sy_side *side, uint64_t *steps_out) {
  struct mpi_side *s = mpi_of(side);
  for (int32_t peer = 0; peer < side->world; ++peer) {
    int has_come = peer != side->rank;
    if (peer != side->rank) {
      send_beat(s, peer);
    }
    while (has_come) {
      MPI_Test(&s->receives[peer], &has_come, MPI_STATUS_IGNORE);
      if (has_come) {
        s->heard[peer] = s->incoming[peer];
        post_receive(s, peer);
      }
    }
    steps_out[peer] = peer == side->rank ? s->step : s->heard[peer];
  }
}

static sy_status mpi_allgather(struct sy_side *side, const void *mine, size_t bytes, void *all,
                               int64_t deadline_ns) {
  struct sy_transport *t = mpi_of(side)->transport;
  return t->ops->allgather(t, mine, bytes, all, deadline_ns);
}

static bool mpi_missing(const struct sy_side *side, int32_t peer) {
  const struct sy_transport *t = ((const struct mpi_side *)side)->transport;
  return t->ops->missing(t, peer);
}

/* Those whose beats a peer has not taken stay, within reach of leak checkers. */
static _Atomic(struct mpi_side *) left;

static void release(struct mpi_side *s) {
  sy_free(s->told);
  sy_free(s->sends);
  sy_free(s);
}

/* Giving up a receive is a matter of this rank alone. */
static void mpi_destroy(struct sy_side *side) {
  struct mpi_side *s = mpi_of(side);
  int are_sent = 0;
  for (int32_t peer = 0; peer < side->world; ++peer) {
    if (s->receives[peer] != MPI_REQUEST_NULL) {
      MPI_Cancel(&s->receives[peer]);
      MPI_Wait(&s->receives[peer], MPI_STATUS_IGNORE);
    }
  }
  MPI_Testall(side->world, s->sends, &are_sent, MPI_STATUSES_IGNORE);
  s->transport->ops->destroy(s->transport);
  if (are_sent) {
    release(s);
    return;
  }
  s->next_left = atomic_load(&left);
  while (!atomic_compare_exchange_weak(&left, &s->next_left, s)) {
  }
}

static const struct sy_side_ops mpi_ops = {
    .name = "mpi",
    .allgather = mpi_allgather,
    .missing = mpi_missing,
    .beat = mpi_beat,
    .steps = mpi_steps,
    .destroy = mpi_destroy,
};

static sy_status allocate(struct mpi_side *s) {
  const size_t world = (size_t)s->base.world;
  s->told = sy_alloc(3 * world * sizeof *s->told);
  s->sends = sy_alloc(2 * world * sizeof(MPI_Request));
  if (s->told == NULL || s->sends == NULL) {
    sy_free(s->told);
    sy_free(s->sends);
    return sy_fail(SY_ERR_MEMORY, "no memory for the side channel of %zu ranks", world);
  }
  memset(s->told, 0, 3 * world * sizeof *s->told);
  s->heard = s->told + world;
  s->incoming = s->heard + world;
  s->receives = s->sends + world;
  for (size_t i = 0; i < 2 * world; ++i) {
    s->sends[i] = MPI_REQUEST_NULL;
  }
  return SY_OK;
}

sy_status sy_side_create_mpi(MPI_Comm comm, int64_t deadline_ns, struct sy_side **side_out) {
  struct sy_transport *t = NULL;
  SY_TRY(sy_transport_create_mpi(comm, deadline_ns, &t));
  struct mpi_side *s = sy_alloc(sizeof *s);
  sy_status status = s != NULL ? SY_OK : sy_fail(SY_ERR_MEMORY, "no memory for the side channel");
  if (status == SY_OK) {
    *s = (struct mpi_side){.base = {.ops = &mpi_ops, .rank = t->rank, .world = t->world},
                           .transport = t,
                           .comm = sy_transport_mpi_comm(t)};
    status = allocate(s);
  }
  if (status != SY_OK) {
    sy_free(s);
    t->ops->destroy(t);
    return status;
  }
  for (int32_t peer = 0; peer < s->base.world; ++peer) {
    if (peer != s->base.rank) {
      post_receive(s, peer);
    }
  }
  *side_out = &s->base;
  return SY_OK;
}
