/* The structs behind the handles, for the files of runtime/ only. */
#ifndef SY_RUNTIME_INTERNAL_H
#define SY_RUNTIME_INTERNAL_H

#include <stdbool.h>

#include "comm/transport.h"
#include "kernels/device.h"
#include "kernels/kernels.h"
#include "runtime/fault.h"
#include "runtime/layout.h"
#include "runtime/status.h"
#include "runtime/switchyard.h"

/* A description whose struct_size is at least that of this version can be read as one. */
#define SY_DESC_OK(desc) ((desc) != NULL && (desc)->struct_size >= sizeof *(desc))

/* A shape that has been checked, with its placement resolved for a world. Owns the tables. */
struct sy_model {
  sy_shape shape; /* expert_rank and expert_local point to the tables below */
  int32_t world;
  int32_t *expert_rank;  /* [num_experts] */
  int32_t *expert_local; /* [num_experts] */
  int32_t *rank_experts; /* [world] E_local of each rank */
  int32_t max_local_experts;
  uint64_t hash; /* of all of it */
};

/* Checks the shape and resolves its placement; release frees the tables (of a zeroed
 * struct too). */
sy_status sy_model_resolve(const sy_shape *shape, int32_t world, struct sy_model *model_out);
void sy_model_release(struct sy_model *model);

/* ARGUMENT, with a sentence, unless low <= value <= high. */
sy_status sy_check_range(const char *name, int64_t value, int64_t low, int64_t high);

/* FNV-1a, 64 bits. */
#define SY_HASH_SEED UINT64_C(14695981039346656037)
uint64_t sy_hash(uint64_t hash, const void *data, size_t bytes);

struct sy_plan {
  struct sy_model model;
  sy_plan_desc desc; /* strategy is resolved; shape points to model.shape */
  struct sy_dims dims;
  sy_plan_info info;
  struct sy_arena_bytes arenas;
};

struct sy_layer {
  sy_group *group;
  struct sy_model model;
  struct sy_stage_env env; /* what depends on the layer alone; a forward adds what a plan fixes */
  int32_t *global_expert;  /* [local_experts] */
  unsigned char *loaded;   /* [local_experts] */
  size_t expert_bytes;
  /* In the backend's memory: */
  uint64_t *load_counts;  /* [local_experts] */
  unsigned char *active;  /* [local_experts] had a routed row in this wave */
  unsigned char *weights; /* [local_experts] of expert_bytes */
  int32_t *placement;     /* GPU: expert_rank, then expert_local, [2 * num_experts]; or NULL */
};

/* Where the forward in flight stands; the public halves move it on by one. */
enum sy_phase { SY_IDLE, SY_DISPATCHING, SY_DISPATCHED, SY_COMPUTED, SY_RETURNING, SY_NUM_PHASES };

/* The forward in flight. io has its strides filled in. */
struct sy_step {
  enum sy_phase phase;
  enum sy_wire_call call;
  sy_layer *layer;
  const sy_plan *plan;
  sy_io io;
  struct sy_stage_env env;
  void *scratch_base;
  struct sy_scratch scratch;
  struct sy_fault fault; /* this rank's own error, told to all ranks in its headers */
  int64_t wave;
  int64_t num_waves;
  int64_t wave_begin;  /* first token of this wave */
  int64_t wave_tokens; /* tokens of this rank in this wave */
};

/* What the runtime needs of a backend. */
struct sy_backend {
  const struct sy_kernels *kernels;
  const struct sy_device *device; /* NULL: the kernels work in host memory */
};

/* The road in halves: from[phase] takes a step that stands there on to the next phase. */
struct sy_road {
  sy_status (*from[SY_NUM_PHASES])(sy_group *group);
};

struct sy_group {
  struct sy_transport *transport;
  const struct sy_kernels *kernels;
  const struct sy_device *device; /* NULL: host memory */
  struct sy_gpu *gpu;             /* what the group has there (gpu.h), or NULL */
  const struct sy_road *road;
  sy_group_desc desc;
  int32_t rank;
  int32_t world;
  int32_t num_layers;
  bool dead;
  uint64_t num_steps;
  struct sy_arena_bytes arenas; /* reserved */
  void *scratch;                /* reserved, or NULL */
  size_t scratch_bytes;
  sy_stats stats;
  struct sy_step step;
  char error[SY_ERROR_TEXT_BYTES];

  /* One entry per rank, for the wave in flight. */
  struct sy_message_bytes *messages;
  unsigned char **send_landing;   /* first row of the message to each rank */
  unsigned char **return_landing; /* first return row to each rank */
  const unsigned char **received; /* first row of the message from each rank */
  int32_t *received_rows;
  int32_t *return_rows;           /* return rows that go to each rank */
  const unsigned char **returned; /* first return row from each rank */
  struct sy_wire_header *headers; /* from each rank */
};

extern const struct sy_road sy_road_host;
extern const struct sy_road sy_road_device;

/* The wave's first token, and how many this rank has in it. */
void sy_step_begin_wave(struct sy_step *step);

/* As many waves as the rank with most tokens needs, from headers[] of the first; fixed: as many as the
 * plan allows tokens for. */
int64_t sy_step_count_waves(const sy_group *group);

/* The tensor's row where this wave begins; a rank without tokens may have no tensor. */
const void *sy_step_wave_row(const struct sy_step *step, const void *tensor, int64_t stride);

/* The args of route and pack, but for the tensors and the landing. */
struct sy_route_args sy_step_route_args(const struct sy_step *step);
struct sy_pack_args sy_step_pack_args(const struct sy_step *step);

/* The scratch's part of a chunk's routed rows. */
struct sy_routed sy_step_routed(const struct sy_step *step);

/* Everything that can be wrong with a call and is known before anything is sent, into step->fault.
 * Fills in step->io, env and scratch of a call that is right. Fails where this rank cannot take part
 * even to tell its peers. */
sy_status sy_check_call(sy_group *group, const sy_io *io, void *scratch, size_t scratch_bytes,
                        void *stream);

/* The step is over, whatever has happened: scratch is the caller's again, the next call begins anew. */
void sy_step_end(sy_group *group);

/* One exchange of the step in flight (exchange.c). open: sizes known, messages[] filled. send:
 * writes the headers and starts. receive: waits, checks every header, and fills received[] or
 * returned[]. */
sy_status sy_exchange_open(sy_group *group, enum sy_direction direction);
sy_status sy_exchange_send(sy_group *group, enum sy_direction direction);
sy_status sy_exchange_receive(sy_group *group, enum sy_direction direction);

/* The header of this rank's message, but for its rows. */
struct sy_wire_header sy_exchange_header(const sy_group *group);

/* headers[] are here: the fault of the lowest rank that has one, or a disagreement. */
sy_status sy_exchange_judge(sy_group *group, enum sy_direction direction);

SY_API sy_status sy_group_check_desc(const sy_group_desc *desc);

/* All that one rank can get wrong in creating a group of hosts: its arguments, and its environment. */
SY_API sy_status sy_group_check_host(const sy_group_desc *desc, sy_group *const *group_out);

/* A group over a transport, which it owns from success on. backend NULL: the CPU's best, or what
 * SWITCHYARD_CPU_LEVEL names. */
SY_API sy_status sy_group_create_transport(const sy_group_desc *desc,
                                           const struct sy_backend *backend,
                                           struct sy_transport *transport, sy_group **group_out);

/* ARGUMENT for NULL; PEER, with the text of the loss left in place, when the group is dead. */
sy_status sy_group_check_alive(sy_group *group);

/* Writes "rank 2, 5" for the ranks that is_named picks, cut to bytes; returns how many. */
size_t sy_group_name_ranks(const sy_group *group, bool (*is_named)(const sy_group *, int32_t),
                           char *text, size_t bytes);

/* The group is dead; status is PEER, TRANSPORT or DEVICE. Names the ranks not heard from. */
sy_status sy_group_lost(sy_group *group, sy_status status, const char *what);

/* Quantises and prepacks a local expert, 0 <= local_expert < E_local. Errors are the thread's; *bad_out
 * is set when they are about a value of the weights. */
struct sy_source;
sy_status sy_layer_load_source(sy_layer *layer, int32_t local_expert,
                               const struct sy_source *source, struct sy_bad_weight *bad_out);

/* UNSUPPORTED unless the layer takes weights that are FP4 of this format already. */
sy_status sy_layer_check_format(const sy_layer *layer, sy_format format);

/* For runtime/checkpoint: the layer's shape, and the group's progress callback. */
const sy_shape *sy_layer_shape(const sy_layer *layer);
void sy_layer_report_progress(sy_layer *layer, const char *what, uint64_t done_bytes,
                              uint64_t total_bytes);

#endif
