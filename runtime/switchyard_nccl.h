/* Groups on GPUs, one GPU per rank, over NCCL. Includes no header of CUDA or NCCL: their handles are
 * pointers here. Link switchyard_nccl. */
#ifndef SWITCHYARD_NCCL_H
#define SWITCHYARD_NCCL_H

#include "switchyard.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- GPUs ---- */

typedef struct sy_gpu_info {
  size_t struct_size;
  char name[256];
  int32_t compute_major; /* compute capability: 12.0 is SM120 */
  int32_t compute_minor;
  int32_t num_sms;
  int32_t is_usable; /* 1: there are kernels for it */
  char kernels[160]; /* which ones and why, for people; or why there are none */
  size_t memory_bytes;
} sy_gpu_info;
#define SY_GPU_INFO_INIT \
  { .struct_size = sizeof(sy_gpu_info) }

/* sy_gpu_count: how many GPUs CUDA shows to this process.
 *   shapes: none. memory: host. units: none. ownership: none. order: none. scope: local.
 *   threads: any. errors: DEVICE (no driver, or one that is too old; the sentence says so). */
SY_API sy_status sy_gpu_count(int32_t *count_out);

/* sy_gpu_query: what a GPU is, and which kernels a group on it will use.
 *   shapes: none. memory: host. units: bytes. ownership: the caller's struct. order: none.
 *   scope: local. threads: any. errors: ARGUMENT, DEVICE. */
SY_API sy_status sy_gpu_query(int32_t device, sy_gpu_info *info_out);

/* sy_gpu_can_access_peer: whether one GPU of this host can read another's memory.
 *   shapes: none. memory: host. units: none. ownership: none. order: none. scope: local.
 *   threads: any. errors: ARGUMENT, DEVICE. */
SY_API sy_status sy_gpu_can_access_peer(int32_t device, int32_t peer, int32_t *can_out);

/* ---- Groups ----
 * desc.device is the GPU; -1: the thread's current one. A GPU with block-scaled matrix instructions
 * (SM12x) is tested when a group is created on it; one that does not compute what they should is an
 * error, unless SWITCHYARD_GPU_MMA is "bf16" in the environment: then codes are dequantised. */

/* sy_group_create_gpu: a group of one process on one GPU.
 *   shapes: none. memory: device. units: desc in ms. ownership: the caller destroys it. order: none.
 *   scope: local. threads: any. errors: ARGUMENT, UNSUPPORTED (no kernels for this GPU), DEVICE,
 *   MEMORY. desc NULL means SY_GROUP_DESC_INIT. */
SY_API sy_status sy_group_create_gpu(const sy_group_desc *desc, sy_group **group_out);

/* sy_group_create_nccl_tcp: a group of world ranks, each on a GPU, which come together at an address:
 * rank 0 listens there, "host:port", until all have come. Needs no mpirun. The ranks keep a
 * connection to each other, which tells who is missing after a timeout.
 *   shapes: none. memory: device. units: desc in ms; all must come within load_timeout_ms. ownership:
 *   the caller destroys it. order: none. scope: collective over the ranks to be. threads: calls come
 *   from one thread at a time. errors: as sy_group_create_gpu, and ARGUMENT (the address, rank),
 *   TRANSPORT (the port is in use), PEER (names the ranks that did not come, or says that rank 0 is
 *   not reached), MISMATCH (versions, the number of ranks, two processes with one rank). A rank
 *   without a GPU fails the call on all. desc.device -1: the ranks of a host take its GPUs in turn. */
SY_API sy_status sy_group_create_nccl_tcp(const char *address, int32_t rank, int32_t world,
                                          const sy_group_desc *desc, sy_group **group_out);

/* sy_group_create_nccl: a group of the ranks of an ncclComm_t, on the communicator's GPU, which is the
 * thread's current one. sy_group_create_nccl_id: one made from an ncclUniqueId (its 128 bytes) that
 * all ranks know. Neither has a way beside NCCL: a timeout cannot name the ranks that are missing,
 * and says so; a rank that fails alone leaves the others to their timeout.
 *   shapes: none. memory: device. units: desc in ms. ownership: the caller destroys the group, and
 *   then the communicator, except after a timeout or sy_group_abort: they abort it, which frees it.
 *   order: none; meanwhile nobody else uses the communicator. scope: collective. threads: calls come
 *   from one thread at a time. errors: as sy_group_create_gpu, and PEER, TRANSPORT, MISMATCH. A
 *   communicator that blocks may block these calls while it connects: better is one that does not. */
struct ncclComm;
SY_API sy_status sy_group_create_nccl(struct ncclComm *comm, const sy_group_desc *desc,
                                      sy_group **group_out);
SY_API sy_status sy_group_create_nccl_id(const void *unique_id, int32_t rank, int32_t world,
                                         const sy_group_desc *desc, sy_group **group_out);

#ifdef __cplusplus
}
#endif

#endif
