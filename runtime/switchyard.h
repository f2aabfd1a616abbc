/* Switchyard: expert-parallel inference of mixture-of-experts (MoE) layers.
 *
 * Each of W ranks owns a slice of a layer's experts. sy_forward sends every token once to each rank
 * that owns one of its experts, runs the experts there, and brings the weighted sums back.
 *
 *   sy_group    the ranks that work together: one process, an MPI communicator (switchyard_mpi.h), or
 *               GPUs over NCCL (switchyard_nccl.h)
 *   sy_layer    this rank's experts of one MoE layer, prepacked for the kernels
 *   sy_plan     every size that a shape and its limits imply; local and pure
 *   sy_forward  the road of a token: route, pack, dispatch, group, experts, reduce, return, combine
 *
 * Conventions. Every call that can fail returns a sy_status; outputs come last and are untouched on
 * failure. Structs that may grow begin with struct_size: initialise them with the SY_*_INIT macro.
 * Handles are opaque; destroying NULL is legal. The library never prints, exits or aborts.
 *
 * Each function's comment has the same slots: shapes (and dtypes), memory (host or device), units,
 * ownership, order (on a stream), scope (local, or collective over the group), threads, errors.
 * "serial per group" means: calls that name one group, or layers of it, must not overlap in time;
 * different groups are independent.
 *
 * On a GPU (groups of switchyard_nccl.h) `stream` is a cudaStream_t, NULL the group's own, which is
 * ordered with CUDA's default stream. Calls of one group on different streams are ordered by the
 * caller. A thread that calls into such a group gets its GPU as the current one. */
#ifndef SWITCHYARD_H
#define SWITCHYARD_H

#include <stddef.h>
#include <stdint.h>

#define SY_VERSION_MAJOR 0
#define SY_VERSION_MINOR 1
#define SY_VERSION_PATCH 0

#if defined(__GNUC__)
#define SY_API __attribute__((visibility("default")))
#else
#define SY_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Status ----
 * Codes are grouped by what is lost: the call (1..19), a resource (20..39), agreement with a peer
 * (40..49; the next call works), the group (50..; every later call returns SY_ERR_PEER). */
#define SY_STATUS_MAP(X)                                                             \
  X(SY_OK, 0, "success")                                                             \
  X(SY_ERR_ARGUMENT, 1, "an argument is outside its allowed range")                  \
  X(SY_ERR_ROUTING, 2, "an expert id is outside its allowed range")                  \
  X(SY_ERR_UNSUPPORTED, 3, "this combination is not supported")                      \
  X(SY_ERR_OVERFLOW, 4, "a size does not fit in size_t")                             \
  X(SY_ERR_TOO_SMALL, 5, "a buffer or a budget is too small")                        \
  X(SY_ERR_STATE, 6, "the call is out of order")                                     \
  X(SY_ERR_MEMORY, 20, "out of memory")                                              \
  X(SY_ERR_IO, 21, "a file cannot be read or written")                               \
  X(SY_ERR_FORMAT, 22, "a file's contents are not what they should be")              \
  X(SY_ERR_MISMATCH, 40, "the ranks disagree about the call, the plan or the layer") \
  X(SY_ERR_PEER, 50, "a rank is missing; the group is dead")                         \
  X(SY_ERR_TRANSPORT, 51, "the transport failed; the group is dead")                 \
  X(SY_ERR_DEVICE, 53, "the GPU reported an error; the group is dead")               \
  X(SY_ERR_INTERNAL, 52, "an internal check failed; please report it")

typedef enum sy_status {
#define SY_STATUS_ENUM(name, value, text) name = (value),
  SY_STATUS_MAP(SY_STATUS_ENUM)
#undef SY_STATUS_ENUM
} sy_status;

typedef struct sy_group sy_group;
typedef struct sy_layer sy_layer;
typedef struct sy_plan sy_plan;

/* sy_version: the library's version, "major.minor.patch".
 *   shapes: none. memory: host. units: none. ownership: static text. order: none.
 *   scope: local. threads: any. errors: none. */
SY_API const char *sy_version(void);

/* sy_status_name, sy_status_text: a status's identifier ("SY_ERR_PEER") and its general meaning.
 *   shapes: none. memory: host. units: none. ownership: static text. order: none.
 *   scope: local. threads: any. errors: an unknown value gives "unknown status". */
SY_API const char *sy_status_name(sy_status status);
SY_API const char *sy_status_text(sy_status status);

/* sy_last_error: the sentence that explains the last failure on this group: rank, stage, the value
 * found and the range allowed. With group == NULL: of this thread's last failing call of any kind.
 * Empty when nothing failed.
 *   shapes: none. memory: host. units: none. ownership: the group's (the thread's); valid until the
 *   next call on the group (of the thread). order: none. scope: local. threads: serial per group.
 *   errors: none. */
SY_API const char *sy_last_error(const sy_group *group);

/* sy_backend: the kernels that a group created now would use, for people; e.g. which instruction
 * level of the CPU, and why.
 *   shapes: none. memory: host. units: none. ownership: the thread's, until its next call.
 *   order: none. scope: local. threads: any. errors: none. */
SY_API const char *sy_backend(void);

/* ---- The layer's shape ---- */

/* How weights are stored and how rows travel. */
typedef enum sy_mode {
  SY_MODE_W4A4 = 0,  /* FP4 weights; rows travel as FP4, the intermediate is FP4 */
  SY_MODE_W4A16 = 1, /* FP4 weights; rows travel as BF16, the intermediate is BF16 */
  SY_MODE_BF16 = 2,  /* BF16 weights, rows and intermediate */
} sy_mode;

/* What FP4 means: E2M1 codes whose scales lie along the contraction. value = code * block scale *
 * global scale; every scale multiplies. */
typedef enum sy_format {
  SY_FORMAT_NVFP4 = 0, /* a UE4M3 scale per 16 columns, and one f32 global scale */
  SY_FORMAT_MXFP4 = 1, /* a UE8M0 scale (a power of two) per 32 columns, no global scale */
} sy_format;

typedef enum sy_activation {
  SY_ACTIVATION_SWIGLU = 0,         /* silu(gate) * up */
  SY_ACTIVATION_SWIGLU_CLAMPED = 1, /* g = min(gate, limit), u = clamp(up, -limit, limit):
                                       g * sigmoid(alpha * g) * (u + 1) */
  SY_ACTIVATION_GELU_TANH = 2,      /* gelu_tanh(gate) * up */
  SY_ACTIVATION_RELU2 = 3,          /* max(up, 0)^2; there is no gate */
} sy_activation;

/* Return rows and outputs are BF16 or F32; weights are any of these. */
typedef enum sy_dtype {
  SY_DTYPE_BF16 = 0,
  SY_DTYPE_F32 = 1,
  SY_DTYPE_F16 = 2,
  SY_DTYPE_F8_E4M3 = 3, /* with an f32 scale per 128 x 128 block */
  SY_DTYPE_NVFP4 = 4,   /* quantised already, as SY_FORMAT_NVFP4 and SY_FORMAT_MXFP4 say */
  SY_DTYPE_MXFP4 = 5,
} sy_dtype;

/* How a token's partial results meet again. */
typedef enum sy_combine {
  SY_COMBINE_PER_RANK = 0, /* one return row per (token, rank); summed in ascending rank order */
  SY_COMBINE_PER_SLOT = 1, /* one return row per top-k slot, summed in slot order: the result does
                              not depend on the world size or the placement */
} sy_combine;

typedef enum sy_strategy {
  SY_STRATEGY_AUTO = 0,   /* the plan chooses from the link figures */
  SY_STRATEGY_EXACT = 1,  /* only the rows there are; prefill */
  SY_STRATEGY_FIXED = 2,  /* C rows to every peer, always; decode, CUDA graphs */
  SY_STRATEGY_GATHER = 3, /* every row to every rank; immune to skew */
} sy_strategy;

/* Which arithmetic the experts use. One order of sums per choice, whatever the batch, the chunk or
 * the number of threads: the same token gives the same bits with either. */
typedef enum sy_numerics {
  SY_NUMERICS_INVARIANT = 0, /* the bits of the scalar specification, on every instruction level */
  SY_NUMERICS_FASTEST = 1,   /* the fastest that this machine has: FC1 and FC2 within relative L2
                                2e-6 of the specification; bits differ between instruction levels.
                                w4a4 needs no other arithmetic and keeps its bits */
} sy_numerics;

typedef enum sy_memory { SY_MEMORY_HOST = 0, SY_MEMORY_DEVICE = 1 } sy_memory;

/* One MoE layer, as every rank sees it. Both plans and layers are made from it.
 * Limits: hidden and intermediate are multiples of 16 (of 32 where the mode is FP4 and the format
 * MXFP4) in [16, 2^20]; num_experts in [1, 65534];
 * top_k in [1, 1024]; world in [1, 65536].
 * The placement maps each global expert to its rank and to its local expert there. Both tables
 * NULL: contiguous, the first num_experts % world ranks own one expert more. expert_local NULL:
 * ascending global expert order on each rank. A rank may own no experts. */
typedef struct sy_shape {
  size_t struct_size;
  int64_t hidden;
  int64_t intermediate;
  int32_t num_experts;
  int32_t top_k;
  sy_mode mode;
  sy_activation activation;
  float swiglu_alpha;          /* SWIGLU_CLAMPED only; finite */
  float swiglu_limit;          /* SWIGLU_CLAMPED only; > 0 */
  int32_t has_bias;            /* 1: every projection has an f32 bias */
  const int32_t *expert_rank;  /* [num_experts], or NULL */
  const int32_t *expert_local; /* [num_experts], or NULL */
  sy_format format;            /* of what is FP4 in this mode; BF16 does not look at it */
} sy_shape;
#define SY_SHAPE_INIT \
  { .struct_size = sizeof(sy_shape), .swiglu_alpha = 1.702f, .swiglu_limit = 7.0f }

/* sy_placement_resolve: the placement that a shape means in a world of `world` ranks.
 *   shapes: rank_out, local_out: i32 [num_experts]; either may be NULL. memory: host. units: none.
 *   ownership: the caller's. order: none. scope: local. threads: any.
 *   errors: ARGUMENT (a rank outside the world; a local expert missing, repeated or out of
 *   range). */
SY_API sy_status sy_placement_resolve(const sy_shape *shape, int32_t world, int32_t *rank_out,
                                      int32_t *local_out);

/* ---- Groups ---- */

typedef enum sy_log_level { SY_LOG_ERROR = 0, SY_LOG_WARN = 1, SY_LOG_INFO = 2 } sy_log_level;

/* Callbacks run on the calling thread, inside the call that reports; they must not call back. */
typedef void (*sy_log_fn)(void *user, sy_log_level level, const char *text);
typedef void (*sy_progress_fn)(void *user, const char *what, uint64_t done_bytes,
                               uint64_t total_bytes);

typedef struct sy_group_desc {
  size_t struct_size;
  int32_t timeout_ms;      /* of one exchange; a missing peer is an error after it. > 0 */
  int32_t load_timeout_ms; /* of set-up and loading, where ranks may be minutes apart. > 0 */
  int32_t num_threads;     /* CPU threads of this rank; 0: its share of the host's cores */
  sy_log_fn log;           /* or NULL */
  sy_progress_fn progress; /* or NULL */
  void *user;              /* passed to both */
  int32_t device;          /* GPU groups: CUDA's number of it; -1: chosen, see their creation */
} sy_group_desc;
#define SY_GROUP_DESC_INIT                                                                \
  {                                                                                       \
    .struct_size = sizeof(sy_group_desc), .timeout_ms = 30000, .load_timeout_ms = 600000, \
    .device = -1                                                                          \
  }

/* sy_group_create_local: a group of one process.
 *   shapes: none. memory: host. units: desc in ms. ownership: the caller destroys it. order: none.
 *   scope: local. threads: any. errors: ARGUMENT, MEMORY. desc NULL means SY_GROUP_DESC_INIT. */
SY_API sy_status sy_group_create_local(const sy_group_desc *desc, sy_group **group_out);

/* sy_group_destroy: releases the group; its layers must be gone. Does not communicate. On a dead
 * group exchange memory is left allocated on purpose: a late peer may still write to it.
 *   shapes: none. memory: host. units: none. ownership: takes the handle; NULL is legal.
 *   order: none. scope: local. threads: serial per group. errors: none. */
SY_API void sy_group_destroy(sy_group *group);

/* sy_group_rank, sy_group_world: this rank, 0 <= rank < world; the number of ranks W.
 *   shapes: none. memory: host. units: none. ownership: none. order: none. scope: local.
 *   threads: any. errors: none. */
SY_API int32_t sy_group_rank(const sy_group *group);
SY_API int32_t sy_group_world(const sy_group *group);

/* sy_group_reserve: allocates, on all ranks together, the exchange memory that a plan needs (and
 * its scratch, where the caller will not bring any), and checks that all ranks bring the same plan.
 * May be called for several plans: memory is the largest need, not the sum. After it sy_forward
 * does not allocate.
 *   shapes: none. memory: host. units: none. ownership: the group's. order: none.
 *   scope: collective. threads: serial per group.
 *   errors: MISMATCH (names the ranks whose plan differs), MEMORY on any rank, PEER. */
SY_API sy_status sy_group_reserve(sy_group *group, const sy_plan *plan, int32_t with_scratch);

/* sy_group_memory: where the group's kernels work: where device tensors and scratch must lie.
 *   shapes: none. memory: host. units: none. ownership: none. order: none. scope: local.
 *   threads: any. errors: none. */
SY_API sy_memory sy_group_memory(const sy_group *group);

/* sy_group_wait, sy_group_poll: whether work given to the group has gone well. Wait returns once the
 * stream's work is done; poll returns at once with what is known. On the CPU every call has ended
 * when it returns, so both give the group's lasting state. On a GPU they tell what was noted on the
 * device since the last time (a bad id, a peer's error: the next call works), what NCCL reports,
 * and wait that timeout_ms have passed: then the communicator is aborted, and the ranks that have
 * not begun this rank's step are named where there is a way to know.
 *   shapes: none. memory: host. units: ms. ownership: none. order: waits for the stream, which may
 *   be destroyed afterwards. scope: local. threads: serial per group.
 *   errors: ARGUMENT, ROUTING, MISMATCH; PEER, TRANSPORT, DEVICE (the group is dead). */
SY_API sy_status sy_group_wait(sy_group *group, void *stream, int32_t timeout_ms);
SY_API sy_status sy_group_poll(sy_group *group);

/* sy_group_abort: declares the group dead: every later call on it returns SY_ERR_PEER. Peers find
 * out by their timeout. Does not communicate. NULL is legal.
 *   shapes: none. memory: host. units: none. ownership: none. order: none.
 *   scope: local. threads: serial per group. errors: none. */
SY_API void sy_group_abort(sy_group *group);

/* Where a rank's time and bytes went, summed over calls since creation or the last reset. */
typedef struct sy_stats {
  size_t struct_size;
  uint64_t forwards; /* calls that succeeded */
  uint64_t waves;
  uint64_t tokens;         /* T of this rank, summed */
  uint64_t received_rows;  /* tokens that reached this rank */
  uint64_t routed_rows;    /* received row x local expert */
  uint64_t active_experts; /* local experts with >= 1 routed row, summed over layers and waves */
  uint64_t local_experts;  /* local experts, summed the same way: active / local is the share */
  uint64_t bytes_sent;     /* to other ranks, headers included */
  uint64_t bytes_received;
  uint64_t route_ns, pack_ns, dispatch_ns, group_ns, experts_ns, reduce_ns, return_ns, combine_ns;
} sy_stats;
#define SY_STATS_INIT \
  { .struct_size = sizeof(sy_stats) }

/* sy_group_stats: reads the counters; reset != 0 then sets them to zero. On a GPU it waits for the
 * last forward, times are 0 (they would make stages wait for each other), and replays of a CUDA graph
 * count in received_rows, routed_rows and active_experts alone.
 *   shapes: none. memory: host. units: bytes, ns, counts. ownership: the caller's struct.
 *   order: behind the last forward. scope: local. threads: serial per group.
 *   errors: ARGUMENT; on a GPU PEER, TRANSPORT, DEVICE. */
SY_API sy_status sy_group_stats(sy_group *group, int32_t reset, sy_stats *stats_out);

/* ---- Layers ---- */

/* sy_layer_create: room for this rank's experts of one MoE layer.
 *   shapes: from shape, which is copied. memory: host. units: none. ownership: the caller destroys
 *   the layer before the group. order: none. scope: local. threads: serial per group.
 *   errors: ARGUMENT, UNSUPPORTED, OVERFLOW, MEMORY. */
SY_API sy_status sy_layer_create(sy_group *group, const sy_shape *shape, sy_layer **layer_out);
SY_API void sy_layer_destroy(sy_layer *layer);

/* One expert's weights, row-major: gate and up [intermediate, hidden], down [hidden, intermediate];
 * gate is NULL for RELU2. Biases f32 [intermediate], [intermediate], [hidden], given exactly when
 * the shape says has_bias (gate_bias NULL for RELU2). Quantised at load as the mode asks: NVFP4
 * with the global scale amax / (6 * 448) of each projection.
 *
 * dtype F8_E4M3: value = code * scale; scales f32 [ceil(rows / 128), ceil(columns / 128)].
 * dtype NVFP4, MXFP4: quantised already, in the layer's format, and taken code for code: two codes a
 * byte, the even column low; scales u8 [rows, columns / 16 or 32], UE4M3 or UE8M0; NVFP4: a global
 * scale of each projection, finite and not negative, that multiplies. Modes w4a4 and w4a16 only. */
typedef struct sy_expert_weights {
  size_t struct_size;
  sy_dtype dtype;
  const void *gate, *up, *down;
  const float *gate_bias, *up_bias, *down_bias;
  const void *gate_scales, *up_scales, *down_scales; /* F8_E4M3, NVFP4, MXFP4; else NULL */
  float gate_global, up_global, down_global;         /* NVFP4 */
} sy_expert_weights;
#define SY_EXPERT_WEIGHTS_INIT \
  { .struct_size = sizeof(sy_expert_weights) }

/* sy_layer_load_expert: quantises and prepacks one local expert, with the group's threads. Loading
 * one twice replaces it. shapes: see sy_expert_weights. memory: host. units: none. ownership:
 *   weights are copied. order: none. scope: local. threads: different experts of one layer may load
 *   concurrently. errors: ARGUMENT (expert out of range, a pointer missing, a value or scale not
 *   finite: names the projection, row and column), UNSUPPORTED (FP4 weights of another format than
 *   the layer's). On failure the expert counts as not loaded. */
SY_API sy_status sy_layer_load_expert(sy_layer *layer, int32_t local_expert,
                                      const sy_expert_weights *weights);

/* sy_layer_num_local_experts: experts that this rank owns.
 * sy_layer_global_expert: the global expert of a local one, -1 when out of range.
 * sy_layer_weight_bytes: bytes of prepacked weights that this rank holds.
 *   shapes: none. memory: host. units: bytes. ownership: none. order: none. scope: local.
 *   threads: any. errors: none. */
SY_API int32_t sy_layer_num_local_experts(const sy_layer *layer);
SY_API int32_t sy_layer_global_expert(const sy_layer *layer, int32_t local_expert);
SY_API size_t sy_layer_weight_bytes(const sy_layer *layer);

/* sy_layer_load_counts: routed rows per local expert since creation or the last reset.
 *   shapes: counts_out u64 [capacity]; count_out gets the number of local experts. memory: host.
 *   units: rows. ownership: the caller's. order: none. scope: local. threads: serial per group.
 *   errors: TOO_SMALL when capacity is short (count_out alone is set), ARGUMENT. */
SY_API sy_status sy_layer_load_counts(sy_layer *layer, int32_t reset, uint64_t *counts_out,
                                      size_t capacity, size_t *count_out);

/* ---- Plans ---- */

/* What links can do, while all ranks exchange at once; AUTO chooses the strategy from it. Rank r is
 * on host r / ranks_per_host. Defaults: shared memory, and 10 Gb Ethernet between hosts. */
typedef struct sy_link_level {
  double latency_us;    /* until one message is there; > 0 */
  double message_us;    /* that each message costs its rank beside; >= 0 */
  double bandwidth_gbs; /* of one rank, each direction, 1e9 bytes per second; > 0 */
} sy_link_level;

typedef struct sy_link {
  sy_link_level in_host;
  sy_link_level between_hosts;
  int32_t ranks_per_host; /* 0: all on one host */
} sy_link;

typedef struct sy_plan_desc {
  size_t struct_size;
  const sy_shape *shape;
  int32_t world;       /* W; need not be a group that exists */
  int32_t rank;        /* whose plan; 0 <= rank < world */
  int64_t max_tokens;  /* T_max of any rank in one forward; [1, 2^31 - 1] */
  int64_t wave_tokens; /* C, tokens of a rank that travel together; 0: from exchange_budget */
  int64_t chunk_rows;  /* M, received rows that are computed together; 0: from scratch_budget */
  size_t exchange_budget_bytes; /* default 512 MiB */
  size_t scratch_budget_bytes;  /* default 256 MiB */
  sy_strategy strategy;
  sy_combine combine;
  sy_dtype return_dtype; /* of return rows: BF16, or F32 as an option */
  sy_link link;
  sy_numerics numerics;
} sy_plan_desc;
#define SY_PLAN_DESC_INIT                                                                        \
  {                                                                                              \
    .struct_size = sizeof(sy_plan_desc), .world = 1, .exchange_budget_bytes = (size_t)512 << 20, \
    .scratch_budget_bytes = (size_t)256 << 20, .link = {                                         \
      .in_host = {.latency_us = 2.0, .message_us = 0.3, .bandwidth_gbs = 8.0},                   \
      .between_hosts = {.latency_us = 30.0, .message_us = 1.0, .bandwidth_gbs = 1.2},            \
    }                                                                                            \
  }

/* sy_plan_create: works out every size; touches neither the network nor large memory, so that a
 * plan for any rank of any world can be made anywhere.
 *   shapes: none. memory: host. units: desc in tokens, rows, bytes. ownership: the caller destroys
 *   it; desc and shape are copied. order: none. scope: local. threads: any.
 *   errors: ARGUMENT, UNSUPPORTED, OVERFLOW, TOO_SMALL (one token, or one row, exceeds the budget:
 *   names the bytes needed), MEMORY. */
SY_API sy_status sy_plan_create(const sy_plan_desc *desc, sy_plan **plan_out);
SY_API void sy_plan_destroy(sy_plan *plan);

typedef struct sy_plan_info {
  size_t struct_size;
  int64_t wave_tokens;       /* C */
  int64_t chunk_rows;        /* M */
  int64_t max_waves;         /* ceil(T_max / C) */
  int64_t max_chunks;        /* ceil(W * C / M), per wave */
  int32_t local_experts;     /* E_local of the plan's rank */
  int32_t max_local_experts; /* E_max, the largest E_local of any rank */
  int32_t slots_per_row;     /* min(K, E_max); gather: K */
  sy_strategy strategy;      /* never AUTO */
  size_t row_bytes;          /* one dispatched row: payload, scales, slots */
  size_t return_row_bytes;
  size_t exchange_bytes; /* all exchange buffers of one wave */
  size_t scratch_bytes;
  size_t weight_bytes;     /* of this rank's experts of one layer, prepacked */
  uint64_t hash;           /* equal on all ranks that can work together */
  double auto_dispatch_us; /* predicted exchange time of T_max tokens in one wave: exact rows, */
  double auto_gather_us;   /* and gather; the same on all ranks, whatever they own */
  double exchange_us;      /* predicted exchange time of T_max tokens in all waves of this plan */
  double exchange_traffic_bytes; /* expected of this rank then: its tokens' rows out and back, and
                                    headers. Both for routing that likes all experts alike */
} sy_plan_info;
#define SY_PLAN_INFO_INIT \
  { .struct_size = sizeof(sy_plan_info) }

/* sy_plan_query: the plan's figures.
 *   shapes: none. memory: host. units: see the struct. ownership: the caller's struct. order: none.
 *   scope: local. threads: any. errors: ARGUMENT. */
SY_API sy_status sy_plan_query(const sy_plan *plan, sy_plan_info *info_out);

/* sy_plan_scratch_bytes: what sy_forward needs as scratch, aligned to 64 bytes. Monotone in every
 * limit of the description.
 *   shapes: none. memory: host. units: bytes. ownership: none. order: none. scope: local.
 *   threads: any. errors: none (0 for NULL). */
SY_API size_t sy_plan_scratch_bytes(const sy_plan *plan);

typedef struct sy_buffer_info {
  const char *name;    /* as in the code */
  const char *formula; /* rows, in the terms of the documentation */
  const char *memory;  /* "exchange" or "scratch" */
  uint64_t rows;
  uint64_t row_bytes;
  uint64_t bytes; /* rows * row_bytes, before alignment */
} sy_buffer_info;

/* sy_plan_describe: every buffer of the plan with its formula, rows and bytes.
 *   shapes: buffers_out [capacity]; count_out gets their number. memory: host. units: bytes.
 *   ownership: texts are static. order: none. scope: local. threads: any.
 *   errors: TOO_SMALL when capacity is short (count_out alone is set), ARGUMENT. */
SY_API sy_status sy_plan_describe(const sy_plan *plan, sy_buffer_info *buffers_out, size_t capacity,
                                  size_t *count_out);

/* ---- Forward ---- */

/* The tensors of one call. Strides are in bytes, from one token to the next; 0 means packed rows.
 * A top-k slot with id -1 is masked. A token that names an expert twice has its weights added and
 * is routed once, at its first slot. A token without any expert gives zeros. A token with a
 * non-finite hidden value, and an expert, gives NaN; no other token is touched by it. */
typedef struct sy_io {
  size_t struct_size;
  int64_t num_tokens; /* T of this rank, [0, T_max]; may differ between ranks */
  sy_memory memory;   /* where all the tensors lie */
  const void *hidden; /* bf16 [T, hidden] */
  int64_t hidden_stride;
  const int32_t *expert_ids; /* i32 [T, top_k], global experts */
  int64_t expert_ids_stride;
  const float *expert_weights; /* f32 [T, top_k] */
  int64_t expert_weights_stride;
  void *output; /* [T, hidden] of output_dtype; must not overlap hidden */
  int64_t output_stride;
  sy_dtype output_dtype;
  int32_t accumulate; /* 1: output += result, in f32 before rounding */
} sy_io;
#define SY_IO_INIT \
  { .struct_size = sizeof(sy_io) }

/* sy_forward: the whole road, in as many waves as the rank with most tokens needs.
 * Every rank of the group calls it, also with zero tokens. An error that one rank finds in its own
 * arguments fails the same call on all ranks, with the same text, outputs untouched; the next call
 * works. A peer that does not arrive within the timeout gives PEER and names it; then the group is
 * dead. "Outputs untouched" holds for everything checked before the first wave returns.
 *
 * On a GPU with host tensors all of that holds, and the call returns when the outputs are there. With
 * device tensors (the same on all ranks) the call returns once the work is on the stream:
 *   exact          waits once per wave, for how many rows come. Errors as above, but ids.
 *   fixed, gather  never wait, always take ceil(T_max / C) waves, and can be captured in a CUDA graph:
 *                  T is baked in, unused tokens have ids of -1. A rank's error is returned there, and
 *                  told to the others by their next sy_group_wait; outputs are then undefined.
 * An id that is none acts as masked, and sy_group_wait tells.
 *   shapes: see sy_io; T <= T_max of the plan. memory: tensors as io.memory says: host, or on a GPU
 *   group device. units: bytes. ownership: the caller's tensors, until the call (on a GPU with device
 *   tensors: its work) is done. scratch: sy_plan_scratch_bytes of sy_group_memory, aligned to 64, not
 *   used by anyone else meanwhile; NULL: the group's, from sy_group_reserve.
 *   order: on the stream; it is NULL on the CPU backend. scope: collective. threads: serial per group.
 *   errors: ARGUMENT, ROUTING, STATE, TOO_SMALL, MISMATCH (names the ranks), PEER, TRANSPORT, DEVICE. */
SY_API sy_status sy_forward(sy_layer *layer, const sy_plan *plan, const sy_io *io, void *scratch,
                            size_t scratch_bytes, void *stream);

/* sy_dispatch_start .. sy_combine_finish: sy_forward in halves, so that the caller can work between
 * them. In this order, once each; one forward in flight per group. T must fit one wave on every
 * rank (max_waves == 1, or T <= wave_tokens everywhere): a larger T fails the call on all ranks.
 * start posts the messages; finish waits for the peers'. Between start and finish the tensors of io
 * must stay as they are.
 *   shapes, memory, units, ownership, order, scope, threads, errors: as sy_forward; STATE when
 *   called out of order. After an error the sequence is over: begin anew at sy_dispatch_start. */
SY_API sy_status sy_dispatch_start(sy_layer *layer, const sy_plan *plan, const sy_io *io,
                                   void *scratch, size_t scratch_bytes, void *stream);
SY_API sy_status sy_dispatch_finish(sy_group *group);
SY_API sy_status sy_experts(sy_group *group);
SY_API sy_status sy_combine_start(sy_group *group);
SY_API sy_status sy_combine_finish(sy_group *group);

#ifdef __cplusplus
}
#endif

#endif
