/* The side channel: small host messages between the ranks, beside an exchange that runs on streams.
 * It brings ranks together, carries what they agree on, and step numbers, so that a timeout can name
 * the ranks that did not arrive. */
#ifndef SY_COMM_SIDE_H
#define SY_COMM_SIDE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/switchyard.h"

struct sy_side {
  const struct sy_side_ops *ops;
  int32_t rank;
  int32_t world;
};

struct sy_side_ops {
  const char *name;

  /* `bytes` from each rank, into all[world * bytes] in rank order. Collective. PEER: the clock passed
   * deadline_ns, or a rank is gone; missing() tells which. MISMATCH: another number of bytes on some
   * rank. */
  sy_status (*allgather)(struct sy_side *side, const void *mine, size_t bytes, void *all,
                         int64_t deadline_ns);
  bool (*missing)(const struct sy_side *side, int32_t peer);

  /* Tells all peers that this rank has begun `step`; steps ascend. Does not block, and does not fail:
   * a peer that takes nothing now is told at a later call. */
  void (*beat)(struct sy_side *side, uint64_t step);

  /* The last step that each rank told, into steps_out[world]; 0: none yet. Takes in what is there,
   * without blocking. */
  void (*steps)(struct sy_side *side, uint64_t *steps_out);

  /* Does not communicate. */
  void (*destroy)(struct sy_side *side);
};

/* Over TCP: rank 0 listens at address, "host:port", until all have come; then each rank has a
 * connection to every other. Collective. ARGUMENT (the address), TRANSPORT (the port is in use; what
 * the system said), PEER (some ranks did not come until deadline_ns, rank 0 cannot be reached),
 * MISMATCH (another number of ranks or another version somewhere, two processes with one rank),
 * MEMORY. */
SY_API sy_status sy_side_create_tcp(const char *address, int32_t rank, int32_t world,
                                    int64_t deadline_ns, struct sy_side **side_out);

#endif
