/* The transport over NCCL, in device memory. Includes no header of CUDA or NCCL. */
#ifndef SY_COMM_NCCL_TRANSPORT_H
#define SY_COMM_NCCL_TRANSPORT_H

#include "comm/side.h"
#include "comm/transport.h"

struct ncclComm;

#define SY_NCCL_ID_BYTES 128

/* Where the communicator comes from: given, or made from an id, or from an id that rank 0 makes and
 * the side channel carries. */
struct sy_nccl_desc {
  struct ncclComm *comm; /* the caller's, and stays its; NULL: made here */
  const void *unique_id; /* SY_NCCL_ID_BYTES; NULL: rank 0 makes one */
  int32_t rank;          /* where comm is NULL */
  int32_t world;
  struct sy_side *side; /* or NULL; the transport's from success on */
};

/* On the thread's current device; collective. ARGUMENT (the communicator is aborted or of another
 * device, or there is nothing to make it from), PEER (not all ranks came until deadline_ns), TRANSPORT
 * (in NCCL's words), MEMORY. */
SY_API sy_status sy_transport_create_nccl(const struct sy_nccl_desc *desc, int64_t deadline_ns,
                                          struct sy_transport **transport_out);

#endif
