/* What a group keeps on its GPU: tables with one entry per rank, counters, staging for host tensors,
 * and the ways to wait for a stream with a deadline. All of it is made before the first forward. */
#ifndef SY_RUNTIME_GPU_H
#define SY_RUNTIME_GPU_H

#include "runtime/internal.h"

/* clang-format off */

/* X(field, type, entries): device memory. W is the number of ranks. */
#define SY_GPU_TABLES(X)                   \
  X(send_landing, unsigned char *, W)      \
  X(return_landing, unsigned char *, W)    \
  X(received, const unsigned char *, W)    \
  X(returned, const unsigned char *, W)    \
  X(received_rows, int32_t, W)             \
  X(routed, struct sy_routed, 1)           \
  X(cursor, struct sy_receive_cursor, 1)   \
  X(counts, struct sy_device_counts, 1)

/* X(field, type, entries): pinned host memory, which the device writes. */
#define SY_GPU_PINNED(X)                   \
  X(sent_headers, struct sy_wire_header, W)     \
  X(received_headers, struct sy_wire_header, W) \
  X(fault, struct sy_device_fault, 1)

/* X(field, type, entries): host tensors of a wave, in pinned and in device memory. C tokens of a wave,
 * H hidden, K top_k. */
#define SY_STAGING(X)                      \
  X(hidden, uint16_t, C * H)               \
  X(expert_ids, int32_t, C * K)            \
  X(expert_weights, float, C * K)          \
  X(output, float, C * H)

/* clang-format on */

#define SY_GPU_FIELD(field, type, entries) type *field;

struct sy_staging {
  SY_STAGING(SY_GPU_FIELD)
};

struct sy_gpu {
  void *stream;      /* the group's own */
  void *last_stream; /* of the last forward */
  void *tables;      /* one block each */
  void *pinned;
  SY_GPU_TABLES(SY_GPU_FIELD)
  SY_GPU_PINNED(SY_GPU_FIELD)
  void *staging_device; /* for the largest plan reserved, or NULL */
  void *staging_pinned;
  size_t staging_bytes;
};

/* Makes group->gpu on the GPU desc.device; on failure nothing is left. */
sy_status sy_gpu_create(sy_group *group);
void sy_gpu_destroy(sy_group *group);

/* Room for the host tensors of a plan's waves, and with_scratch for its scratch. */
sy_status sy_gpu_reserve(sy_group *group, const sy_plan *plan, bool with_scratch);

/* What the host tensors of a plan's waves need. */
size_t sy_gpu_staging_bytes(const struct sy_dims *dims);

/* The staging carved: of device, or of pinned memory. */
struct sy_staging sy_gpu_staging(const sy_group *group, const struct sy_dims *dims, sy_memory kind);

/* Before a step: its stream, into step->env. NULL: the group's own. STATE when the stream is being
 * captured and the call would wait for it. */
sy_status sy_gpu_begin(sy_group *group, const sy_io *io, void *stream);

/* Until the stream's work is done. What fails, or takes longer, is the group's end: `what` was being
 * waited for. */
sy_status sy_gpu_await(sy_group *group, void *stream, int64_t timeout_ms, const char *what);

/* What was noted on the device, as an error; noted no more. */
sy_status sy_gpu_report(sy_group *group);

/* Before something is freed that the group's work may use: waits for it. Where that fails the group is
 * dead, and nothing is freed. */
void sy_gpu_settle(sy_group *group);

/* After the transport was aborted, which ends what waits for peers on the stream: gives it a second, so
 * that scratch and tensors are the caller's again. */
void sy_gpu_drain(const sy_group *group);

/* sy_group_wait. */
sy_status sy_gpu_wait(sy_group *group, void *stream, int32_t timeout_ms);

/* What was counted at `from`, once the last forward is done; reset: then counts from zero. */
sy_status sy_gpu_read_counts(sy_group *group, bool reset, void *from, size_t bytes, void *to);

/* Adds what the device has counted. */
sy_status sy_gpu_stats(sy_group *group, bool reset, sy_stats *stats);

/* SY_OK, or the end of the group: a stage, or CUDA, has refused. */
sy_status sy_gpu_check(sy_group *group, sy_status status, const char *what);

#endif
