/* The kernels seam: one entry per stage of the road of a token (route, pack, group, experts,
 * reduce, combine), and the two that prepare experts at load. The scalar CPU entries fill the table
 * first and are the specification; faster ones override entries and must give the same bits.
 *
 * Stages allocate nothing and know nothing of peers or messages' headers: they get row pointers.
 * All arrays live in the memory of the backend. Letters in [brackets] are the terms of the layer
 * and plan: W world, T tokens of this wave (T <= C), K top_k, R routed rows of this chunk. */
#ifndef SY_KERNELS_KERNELS_H
#define SY_KERNELS_KERNELS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/wire.h"
#include "runtime/switchyard.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Columns of the intermediate that share one global scale when it is NVFP4 (w4a4). A multiple of
 * both formats' blocks. */
#define SY_INTERMEDIATE_SLICE 128

/* What every stage reads and no stage writes: the constants of a layer and a plan. */
struct sy_stage_env {
  int64_t hidden;
  int64_t intermediate;
  int32_t num_experts;
  int32_t top_k;
  int32_t world;
  int32_t rank;
  int32_t local_experts;
  sy_mode mode;
  sy_format format;
  sy_activation activation;
  float swiglu_alpha;
  float swiglu_limit;
  bool has_bias;
  bool per_slot;         /* combine = per_slot */
  bool gather;           /* rows carry global experts and go to every rank */
  bool fastest;          /* numerics = fastest */
  bool padded_slots;     /* per_slot return row of (row, j-th slot here): row * return_slots + j */
  int32_t slots_per_row; /* slot records in a dispatched row */
  int32_t return_slots;  /* min(K, E_max) */
  sy_dtype return_dtype;
  struct sy_wire_row wire_row;
  size_t return_row_bytes;
  const int32_t *expert_rank;  /* [num_experts] */
  const int32_t *expert_local; /* [num_experts] */
  int32_t num_threads;
  bool fp4_by_bf16; /* GPU: not by block-scaled matrix instructions, though it has them */
  void *stream;
};

/* A row of some rank's message: the row-th one there. rank < 0: none. */
struct sy_row_ref {
  int32_t rank;
  int32_t row;
};

/* An id outside [0, num_experts) that is not -1. */
struct sy_bad_id {
  int64_t token;
  int32_t slot;
  int32_t id;
};

/* route: top-k ids and weights of T tokens -> rows for each rank. Rows of one rank ascend by token;
 * a token's refs ascend by rank; a row's slots ascend by top-k slot. gather: one list of T rows
 * with global experts, row == token, and refs to the ranks that own one of its experts. */
struct sy_route_args {
  int64_t num_tokens;
  const int32_t *expert_ids; /* i32 [T, K] */
  int64_t expert_ids_stride; /* bytes */
  const float *expert_weights;
  int64_t expert_weights_stride;

  int32_t *send_offset;            /* [W + 1]; rows to rank p: [send_offset[p], send_offset[p+1]) */
  int32_t *token_offset;           /* [T + 1] into token_row */
  struct sy_row_ref *token_row;    /* [T * min(K, W)] */
  int32_t *send_slot_offset;       /* [rows sent + 1] into send_slots */
  struct sy_wire_slot *send_slots; /* [T * K] */
  struct sy_row_ref *slot_return;  /* per_slot: [T * K], the return row of each top-k slot */
  int32_t *return_rows;            /* [W] return rows to come from each rank */
  int32_t *cursor;                 /* [2 * W] scratch */
};

/* pack: hidden states -> rows where the transport says they land. Quantises a token once. */
struct sy_pack_args {
  int64_t num_tokens;
  const void *hidden; /* bf16 [T, hidden] */
  int64_t hidden_stride;
  const int32_t *send_offset;
  const int32_t *token_offset;
  const struct sy_row_ref *token_row;
  const int32_t *send_slot_offset;
  const struct sy_wire_slot *send_slots;
  unsigned char *const *landing; /* [W] first row of each message; gather: landing[rank] alone */
};

/* Where the next chunk begins: row `row` of rank `rank`, whose return row is `return_row`. */
struct sy_receive_cursor {
  int32_t rank;
  int32_t row;
  int64_t return_row;
};

/* The routed rows of one chunk of received rows, sorted by local expert, in row
 * order within one. */
struct sy_routed {
  int64_t num_received;               /* rows of this chunk, <= M */
  int64_t num_routed;                 /* R <= num_received * min(K, E_local) */
  int32_t num_active;                 /* <= min(E_local, R) */
  const unsigned char **received_row; /* [M] */
  unsigned char **return_row;         /* [M] first return row of each received row */
  int32_t *row_slot_offset;           /* [M + 1] into slot_routed */
  int32_t *slot_routed;               /* [R] routed row of each slot of each received row */
  int32_t *routed_source;             /* [R] received row of the chunk */
  float *routed_weight;               /* [R] */
  int32_t *expert_offset;             /* [E_local + 1]: routed rows of local expert e */
  int32_t *active_expert;             /* [num_active] local experts, ascending */
};

/* group: slots of received rows -> routed rows. */
struct sy_group_args {
  const unsigned char *const *received; /* [W] first row of each message */
  const int32_t *received_rows;         /* [W] */
  unsigned char *const *landing;        /* [W] first return row to each rank */
  const int32_t *return_rows;           /* [W] return rows that there is room for */
  int64_t max_rows;                     /* M */
  struct sy_receive_cursor *cursor;     /* in: this chunk's begin; out: the next one's */
  struct sy_routed *routed;
  uint64_t *load_counts; /* [E_local] += routed rows */
};

/* experts: routed rows -> FC1 (gate, up) -> activation -> FC2. Intermediate as the mode asks: BF16,
 * or FP4; NVFP4 has one global scale per routed row and SY_INTERMEDIATE_SLICE columns. */
struct sy_experts_args {
  const struct sy_routed *routed;
  int64_t max_rows;             /* M: bounds what `routed` holds, where the host cannot read it */
  const unsigned char *weights; /* local expert e at e * expert_bytes */
  size_t expert_bytes;
  unsigned char *intermediate;        /* [R] rows of intermediate_row_bytes */
  unsigned char *intermediate_scales; /* w4a4: [R, I / scale block] */
  float *intermediate_global;         /* NVFP4 w4a4: [R, ceil(I / 128)] */
  float *expert_out;                  /* f32 [R, hidden] */
  float *fc1_trace; /* NULL, or f32 [R, 2 I]: gate then up before the activation, for the judge */
};

/* reduce: routed rows of one received row, weighted, summed in slot order -> its return row;
 * per_slot: one return row per slot. */
struct sy_reduce_args {
  const struct sy_routed *routed;
  int64_t max_rows;        /* M */
  const float *expert_out; /* f32 [R, hidden] */
};

/* combine: return rows of one token -> its output row. */
struct sy_combine_args {
  int64_t num_tokens;
  const int32_t *token_offset;
  const struct sy_row_ref *token_row;
  const struct sy_row_ref *slot_return; /* per_slot */
  const unsigned char *const *returned; /* [W] first return row of each message */
  void *output;
  int64_t output_stride;
  sy_dtype output_dtype;
  bool accumulate;
};

/* A value, or a block scale, of an expert's weights that cannot be loaded. */
struct sy_bad_weight {
  const char *projection;
  int64_t row, column;
  float value;
  int32_t scale_code; /* -1: it is a value */
};

struct sy_source; /* kernels/source.h */

struct sy_kernels {
  const char *name;        /* as SWITCHYARD_CPU_LEVEL names it */
  const char *description; /* for people */
  bool (*is_available)(void);

  /* Prepacked bytes of one expert: a multiple of 64. */
  size_t (*expert_bytes)(const struct sy_stage_env *env);
  /* Quantises and prepacks; ARGUMENT with *bad when a value or a scale is not finite, any other
   * failure is the source's. Several experts may load at once. */
  sy_status (*load_expert)(const struct sy_stage_env *env, const struct sy_source *source,
                           unsigned char *expert, struct sy_bad_weight *bad);

  /* Looks at all T tokens of a call before anything is sent; ROUTING and the first bad id. */
  sy_status (*check_ids)(const struct sy_stage_env *env, const struct sy_route_args *args,
                         struct sy_bad_id *bad);
  sy_status (*route)(const struct sy_stage_env *env, const struct sy_route_args *args);
  sy_status (*pack)(const struct sy_stage_env *env, const struct sy_pack_args *args);
  /* MISMATCH when a received row names an expert that is not here, or wants more return rows than
   * its message has room for. */
  sy_status (*group)(const struct sy_stage_env *env, const struct sy_group_args *args);
  sy_status (*experts)(const struct sy_stage_env *env, const struct sy_experts_args *args);
  sy_status (*reduce)(const struct sy_stage_env *env, const struct sy_reduce_args *args);
  sy_status (*combine)(const struct sy_stage_env *env, const struct sy_combine_args *args);
};

/* The CPU tables compiled in, best first: one per instruction level, all with the same bits. */
const struct sy_kernels *sy_kernels_cpu_levels(size_t *count_out);

/* The best of them that this CPU can run. */
const struct sy_kernels *sy_kernels_cpu(void);

/* Bytes of one routed row's intermediate: FP4 codes, or BF16. */
static inline size_t sy_intermediate_row_bytes(sy_mode mode, int64_t intermediate) {
  return (size_t)intermediate * (mode == SY_MODE_W4A4 ? 1 : 4) / 2;
}

#ifdef __cplusplus
}
#endif

#endif
