/* Measurements between the ranks that a launcher has started. Every wait has a deadline: a call that
 * fails leaves in `error` what was waited for, and for which ranks. One of two files is built:
 * probe_mpi.c, or probe_alone.c where there is no MPI and the world is one rank. All calls are
 * collective, unless they say otherwise. */
#ifndef LAUNCH_PROBE_H
#define LAUNCH_PROBE_H

#include <stdbool.h>
#include <stddef.h>

#include "launch/machine.h"

/* What one rank may receive in an exchange: PROBE_BUFFER_BYTES / world from each peer. */
#define PROBE_BUFFER_BYTES ((size_t)32 << 20)

struct probe_state;

struct probe {
  int rank;
  int world;
  double timeout_s; /* of one wait */
  char error[LAUNCH_ERROR_BYTES];
  struct probe_state *state;
};

/* Local. False: out of memory. */
bool probe_open(struct probe *probe, int rank, int world, double timeout_s);
void probe_close(struct probe *probe);

/* `bytes` from each rank, in rank order, to every rank. */
bool probe_allgather(struct probe *probe, const char *what, const void *mine, void *all,
                     size_t bytes);

/* How far each rank's clock is ahead of rank 0's, on rank 0 alone: half a round trip is its error. */
bool probe_clocks(struct probe *probe, double *ahead_s_out /* [world] */);

struct probe_link {
  double latency_us;    /* median of half round trips of a small message */
  double bandwidth_gbs; /* of the best of three large messages that go both ways at once */
};

/* Of the two ranks that call it with each other as peer; nobody else takes part. The lower rank gets
 * the figures. */
bool probe_pair(struct probe *probe, int peer, struct probe_link *link_out);

/* Each rank sends `block` bytes to every rank that `with` names, and receives as many: how long its
 * own part took, from a common start. With whom is symmetric. */
bool probe_exchange(struct probe *probe, const unsigned char *with /* [world] */, size_t block,
                    double *seconds_out);

#endif
