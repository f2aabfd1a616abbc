/* Errors that one rank finds and every rank reports in the same words. A fault is small enough to
 * travel in a message header; the sentence is made from it where it is read. */
#ifndef SY_RUNTIME_FAULT_H
#define SY_RUNTIME_FAULT_H

#include <stddef.h>
#include <stdint.h>

#include "runtime/switchyard.h"

/* kind, status, sentence: %0 %1 %2 stand for the details; %f for the io field that
 * detail 0 names. */
#define SY_FAULT_MAP(X)                                                                            \
  X(SY_FAULT_NONE, SY_OK, "no error")                                                              \
  X(SY_FAULT_EXPERT_ID, SY_ERR_ROUTING,                                                            \
    "token %0, top-k slot %1: expert id %2 is neither -1 (masked) nor below num_experts")          \
  X(SY_FAULT_NUM_TOKENS, SY_ERR_ARGUMENT, "io.num_tokens is %0; the plan allows 0..%1")            \
  X(SY_FAULT_WAVE_TOKENS, SY_ERR_ARGUMENT,                                                         \
    "io.num_tokens is %0; forward in halves allows one wave, 0..%1 tokens")                        \
  X(SY_FAULT_NO_PLAN, SY_ERR_ARGUMENT, "plan is NULL")                                             \
  X(SY_FAULT_NO_IO, SY_ERR_ARGUMENT, "io is NULL")                                                 \
  X(SY_FAULT_IO_VERSION, SY_ERR_ARGUMENT, "io.struct_size is %0; expected at least %1")            \
  X(SY_FAULT_IO_NULL, SY_ERR_ARGUMENT, "io.%f is NULL")                                            \
  X(SY_FAULT_IO_STRIDE, SY_ERR_ARGUMENT,                                                           \
    "io.%f has a stride of %1 bytes; it must be 0, or at least a row and a multiple of %2")        \
  X(SY_FAULT_IO_ALIGNMENT, SY_ERR_ARGUMENT, "io.%f is not aligned to %1 bytes")                    \
  X(SY_FAULT_IO_MEMORY, SY_ERR_UNSUPPORTED, "io.memory is %0; this backend allows 0 (host) to %1") \
  X(SY_FAULT_IO_PLACE, SY_ERR_ARGUMENT, "io.%f is no memory that the GPU can reach")               \
  X(SY_FAULT_IO_DTYPE, SY_ERR_ARGUMENT, "io.output_dtype is %0; allowed: 0 (bf16), 1 (f32)")       \
  X(SY_FAULT_STREAM, SY_ERR_ARGUMENT, "stream is not NULL; the CPU backend has no streams")        \
  X(SY_FAULT_SCRATCH_SMALL, SY_ERR_TOO_SMALL, "scratch has %0 bytes; the plan needs %1")           \
  X(SY_FAULT_SCRATCH_ALIGNMENT, SY_ERR_ARGUMENT, "scratch is not aligned to %0 bytes")             \
  X(SY_FAULT_SCRATCH_PLACE, SY_ERR_ARGUMENT, "scratch is no memory that the GPU can reach")        \
  X(SY_FAULT_NOT_RESERVED, SY_ERR_STATE,                                                           \
    "the plan needs %0 bytes of exchange memory, %1 are reserved: call sy_group_reserve")          \
  X(SY_FAULT_NO_STAGING, SY_ERR_STATE,                                                             \
    "the plan needs %0 bytes of staging for host tensors, %1 are reserved: call sy_group_reserve") \
  X(SY_FAULT_PLAN_WORLD, SY_ERR_ARGUMENT, "the plan is for rank %0 of %1 ranks, not for this one") \
  X(SY_FAULT_PLAN_SHAPE, SY_ERR_ARGUMENT, "the plan and the layer have different shapes")          \
  X(SY_FAULT_NOT_LOADED, SY_ERR_STATE, "local expert %0 (global expert %1) is not loaded")         \
  X(SY_FAULT_MEMORY, SY_ERR_MEMORY, "%0 bytes cannot be allocated")                                \
  X(SY_FAULT_RECEIVED_ROW, SY_ERR_MISMATCH,                                                        \
    "a received row names an expert or a slot that the plan does not have")                        \
  X(SY_FAULT_FENCE, SY_ERR_INTERNAL, "buffer %0 of the scratch was overrun before stage %1 ended")

enum sy_fault_kind {
#define SY_FAULT_ENUM(kind, status, text) kind,
  SY_FAULT_MAP(SY_FAULT_ENUM)
#undef SY_FAULT_ENUM
      SY_NUM_FAULTS
};

/* Detail 0 of the io faults. */
enum sy_io_field { SY_IO_HIDDEN, SY_IO_EXPERT_IDS, SY_IO_EXPERT_WEIGHTS, SY_IO_OUTPUT };

struct sy_fault {
  enum sy_fault_kind kind;
  int64_t detail[3];
};

sy_status sy_fault_status(const struct sy_fault *fault);

/* Writes the sentence, cut to bytes. A kind that this version does not know is said to be one. */
void sy_fault_text(const struct sy_fault *fault, char *text, size_t bytes);

#endif
