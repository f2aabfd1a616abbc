/* What the ranks of a group to be tell each other before there is one. */
#ifndef SY_RUNTIME_AGREE_H
#define SY_RUNTIME_AGREE_H

#include "comm/side.h"
#include "comm/transport.h"

/* How they reach each other: over a side channel or, where there is none, a transport. */
struct sy_agreement {
  const char *call; /* for sentences */
  int32_t rank;
  int32_t world;
  struct sy_side *side;
  struct sy_transport *transport; /* where side is NULL */
  int64_t deadline_ns;
};

/* `bytes` from each rank, into all[world * bytes]. PEER names the ranks not heard from. */
SY_API sy_status sy_agree_gather(const struct sy_agreement *a, const void *mine, size_t bytes,
                                 void *all);

/* MISMATCH, on all ranks, when some have another version of the library: names them. The first thing
 * that ranks tell each other, in a form that never changes. */
SY_API sy_status sy_agree_on_version(const struct sy_agreement *a);

/* A rank that cannot go on fails the call on all: its own status there, the first such rank's on the
 * others. */
SY_API sy_status sy_agree_on_status(const struct sy_agreement *a, sy_status own);

#endif
