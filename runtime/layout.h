/* Sizes. Every buffer has one bound, written here once: the rows of each line are the C expression
 * that sizes the buffer, carves it, and is shown as its formula by sy_plan_describe.
 *
 *   scratch | route, for a wave of C tokens | chunk, for M received rows |   64-byte aligned each;
 *            in debug builds a fence of SY_FENCE_BYTES follows every buffer
 *
 * Terms: W world, K top_k, E experts, E_local of this rank, E_max of any rank, H hidden,
 * I intermediate, C tokens of a wave, M received rows of a chunk, and
 *   routed = M * min(K, E_local)        routed rows of a chunk: exceeds E_local in ordinary use
 *   slots  = gather ? K : min(K, E_max) slots that a dispatched row carries
 *   back   = per_slot ? min(K, E_max) : 1   return rows of a dispatched row
 *   w4a4: FP4 rows and intermediate, nvfp4: and of that format; block: columns that share a scale
 * Own messages are written where they are read, in the in buffers: out buffers hold W - 1 peers'.
 * Invariants that keep rows in int32: C * K (so also C * back, the return rows of one message) and
 * routed are below 2^31. */
#ifndef SY_RUNTIME_LAYOUT_H
#define SY_RUNTIME_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "comm/transport.h"
#include "kernels/kernels.h"
#include "runtime/switchyard.h"

struct sy_dims {
  int64_t world;
  int64_t top_k;
  int64_t hidden;
  int64_t intermediate;
  int64_t local_experts;     /* E_local */
  int64_t max_local_experts; /* E_max */
  int64_t wave_tokens;       /* C */
  int64_t chunk_rows;        /* M */
  sy_mode mode;
  sy_format format;
  bool exact, fixed, gather;
  bool per_slot;
  size_t row_bytes;
  size_t return_row_bytes;
};

/* clang-format off */

/* X(field, element type, rows, elements per row) */
#define SY_SCRATCH_BUFFERS(X)                                                                      \
  X(send_offset, int32_t, W + 1, 1)                                                                \
  X(token_offset, int32_t, C + 1, 1)                                                               \
  X(token_row, struct sy_row_ref, C * min(K, W), 1)                                                \
  X(send_slot_offset, int32_t, (gather ? C : C * min(K, W)) + 1, 1)                                \
  X(send_slots, struct sy_wire_slot, C * K, 1)                                                     \
  X(slot_return, struct sy_row_ref, per_slot ? C * K : 0, 1)                                       \
  X(return_rows, int32_t, W, 1)                                                                    \
  X(route_cursor, int32_t, 2 * W, 1)                                                               \
  X(received_row, const unsigned char *, M, 1)                                                     \
  X(return_row, unsigned char *, M, 1)                                                             \
  X(row_slot_offset, int32_t, M + 1, 1)                                                            \
  X(slot_routed, int32_t, routed, 1)                                                               \
  X(routed_source, int32_t, routed, 1)                                                             \
  X(routed_weight, float, routed, 1)                                                               \
  X(expert_offset, int32_t, E_local + 1, 1)                                                        \
  X(active_expert, int32_t, min(E_local, routed), 1)                                               \
  X(intermediate, unsigned char, routed, w4a4 ? I / 2 : 2 * I)                                     \
  X(intermediate_scales, unsigned char, w4a4 ? routed : 0, I / block)                              \
  X(intermediate_global, float, nvfp4 ? routed : 0, (I + 127) / 128)                               \
  X(expert_out, float, routed, H)

/* X(name, arena, direction, rows, row bytes) */
#define SY_EXCHANGE_BUFFERS(X)                                                                     \
  X(dispatch_out_headers, out, SY_DISPATCH, gather ? 0 : W - 1, header_bytes)                      \
  X(dispatch_out, out, SY_DISPATCH, exact ? C * min(K, W - 1) : fixed ? (W - 1) * C : 0,           \
    row_bytes)                                                                                     \
  X(dispatch_in_headers, in, SY_DISPATCH, W, header_bytes)                                         \
  X(dispatch_in, in, SY_DISPATCH, W * C, row_bytes)                                                \
  X(return_out_headers, out, SY_RETURN, W - 1, header_bytes)                                       \
  X(return_out, out, SY_RETURN, (W - 1) * C * back, return_row_bytes)                              \
  X(return_in_headers, in, SY_RETURN, W, header_bytes)                                             \
  X(return_in, in, SY_RETURN, exact ? C * (per_slot ? K : min(K, W)) : W * C * back,               \
    return_row_bytes)

/* clang-format on */

/* The scratch, carved. */
struct sy_scratch {
#define SY_SCRATCH_FIELD(field, type, rows, elements) type *field;
  SY_SCRATCH_BUFFERS(SY_SCRATCH_FIELD)
#undef SY_SCRATCH_FIELD
};

#define SY_SCRATCH_ALIGN 64
#if defined(SY_FENCES)
#define SY_FENCE_BYTES 64
#else
#define SY_FENCE_BYTES 0
#endif

/* Sizes the scratch and, with base, carves it. One function does both. base NULL: sizes only.
 * OVERFLOW when the total exceeds SIZE_MAX. */
sy_status sy_scratch_layout(const struct sy_dims *dims, void *base, struct sy_scratch *scratch_out,
                            size_t *bytes_out);

/* Bytes of the exchange arenas; total_out their sum. */
sy_status sy_exchange_layout(const struct sy_dims *dims, struct sy_arena_bytes *arenas_out,
                             size_t *total_out);

/* Every buffer, exchange first; returns how many there are and fills at most capacity. */
size_t sy_layout_describe(const struct sy_dims *dims, sy_buffer_info *buffers_out, size_t capacity);

/* Debug builds: fences behind every scratch buffer. check returns the index of the first buffer
 * whose fence was written to, or -1. In other builds both do nothing. */
void sy_scratch_fence(const struct sy_dims *dims, void *base);
void sy_scratch_unfence(const struct sy_dims *dims, void *base);
int sy_scratch_check_fences(const struct sy_dims *dims, const void *base);

#endif
