/* What lies inside a message: a header, then rows of one fixed size.
 *
 *   message     | header 64 B | row 0 | row 1 | ...
 *   dispatched  | payload | scales (FP4) | slots | global scale (NVFP4) | pad to 16 |
 *   returned    | hidden values, bf16 or f32 | pad to 16 |
 *
 * Little-endian; rows start at multiples of 16 bytes. Invariants: row_bytes % 16 == 0;
 * 0 <= rows <= C; a row's used slots come first, then slots with expert == SY_WIRE_NO_EXPERT. */
#ifndef SY_KERNELS_WIRE_H
#define SY_KERNELS_WIRE_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/switchyard.h"

#define SY_WIRE_MAGIC 0x44595753u /* "SWYD" */
#define SY_WIRE_VERSION 1u
#define SY_WIRE_NO_EXPERT 0xFFFFu
#define SY_WIRE_ALIGN 16
#define SY_NVFP4_BLOCK 16
#define SY_MXFP4_BLOCK 32

/* Which entry of the API a rank is in: unequal calls are an error that names the ranks. */
enum sy_wire_call { SY_WIRE_CALL_FORWARD = 1, SY_WIRE_CALL_HALVES = 2 };

/* status != SY_OK: the sender found an error of its own and sends no rows. detail then explains it;
 * its meaning depends on `fault` (runtime/fault.h). Otherwise detail[0] of a dispatched message is
 * the number of used slots in its rows. */
struct sy_wire_header {
  uint32_t magic;
  uint16_t version;
  uint16_t call;
  uint64_t plan_hash;
  uint64_t step; /* forwards begun on this group */
  uint32_t wave;
  uint32_t tokens; /* T of the sender, all waves */
  uint32_t rows;   /* rows in this message */
  int16_t status;
  uint16_t fault;
  int64_t detail[3];
};

struct sy_wire_slot {
  float weight;
  uint16_t expert; /* local expert of the receiving rank; gather: global expert */
  uint16_t slot;   /* top-k slot of the token, 0 <= slot < top_k */
};

#ifdef __cplusplus
static_assert(sizeof(struct sy_wire_header) == 64, "wire header");
static_assert(sizeof(struct sy_wire_slot) == 8, "wire slot");
#else
_Static_assert(sizeof(struct sy_wire_header) == 64, "wire header");
_Static_assert(sizeof(struct sy_wire_slot) == 8, "wire slot");
#endif

/* Offsets inside one dispatched row, in bytes. */
struct sy_wire_row {
  size_t scales; /* payload is at 0 */
  size_t slots;
  size_t global; /* f32 */
  size_t bytes;  /* stride of rows */
};

static inline size_t sy_align_up(size_t bytes, size_t align) {
  return (bytes + align - 1) / align * align;
}

/* Columns of a contraction that share a scale. */
static inline int64_t sy_scale_block(sy_format format) {
  return format == SY_FORMAT_MXFP4 ? SY_MXFP4_BLOCK : SY_NVFP4_BLOCK;
}

/* Bounds: hidden <= 2^20, slots_per_row <= 1024: nothing here can overflow. */
static inline struct sy_wire_row sy_wire_row_make(sy_mode mode, sy_format format, int64_t hidden,
                                                  int32_t slots_per_row) {
  const size_t h = (size_t)hidden;
  const int fp4 = mode == SY_MODE_W4A4;
  const int nvfp4 = fp4 && format == SY_FORMAT_NVFP4;
  struct sy_wire_row row;
  row.scales = fp4 ? h / 2 : h * 2;
  row.slots = sy_align_up(row.scales + (fp4 ? h / (size_t)sy_scale_block(format) : 0),
                          sizeof(struct sy_wire_slot));
  row.global = row.slots + (size_t)slots_per_row * sizeof(struct sy_wire_slot);
  row.bytes = sy_align_up(row.global + (nvfp4 ? sizeof(float) : 0), SY_WIRE_ALIGN);
  return row;
}

static inline size_t sy_wire_return_row_bytes(sy_dtype dtype, int64_t hidden) {
  return sy_align_up((size_t)hidden * (dtype == SY_DTYPE_F32 ? 4 : 2), SY_WIRE_ALIGN);
}

#endif
