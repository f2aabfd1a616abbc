/* The device seam: what the runtime needs of a GPU besides the stages. One table, filled by the CUDA
 * library (kernels/cuda/device.c); without a GPU there is none, and nothing of ours includes a
 * header of CUDA's but the files of kernels/cuda and comm/nccl.c.
 *
 * Memory belongs to the thread's current GPU (`use`). Streams are CUDA's, as void *. Functions that
 * return a status fail with DEVICE, and error_text says what CUDA said. */
#ifndef SY_KERNELS_DEVICE_H
#define SY_KERNELS_DEVICE_H

#include "kernels/kernels.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The first thing that went wrong on the device and that the host has not been told yet. Lies in
 * pinned memory, where the device writes and the host reads. */
struct sy_device_fault {
  int32_t rank; /* that found it, or told of it in a header; < 0: nothing went wrong */
  int16_t status;
  uint16_t fault;
  int64_t detail[3];
  uint64_t step;
};

/* Counted on the device, since creation. */
struct sy_device_counts {
  uint64_t received_rows;
  uint64_t routed_rows;
  uint64_t active_experts;
};

/* Pointers and sizes that the host knows travel as arguments of a kernel: so nothing of the host's
 * has to stay as it is until the stream comes by, and a CUDA graph keeps them. */
#define SY_PEERS_PER_LAUNCH 32

/* Writes the headers of the messages to ranks [first, first + count), and where their rows begin. */
struct sy_write_headers_args {
  int32_t first;
  int32_t count; /* <= SY_PEERS_PER_LAUNCH */
  unsigned char *message[SY_PEERS_PER_LAUNCH];
  uint32_t rows[SY_PEERS_PER_LAUNCH]; /* unless send_offset is given */
  struct sy_wire_header header;       /* what is the same for all ranks */
  const int32_t *send_offset;         /* NULL, or as in sy_route_args: rows and slots sent */
  const int32_t *send_slot_offset;
  bool gather;
  unsigned char **first_row;     /* [W] */
  struct sy_wire_header *mirror; /* NULL, or the host's copy, [W] in pinned memory */
};

/* Reads the headers of the messages from ranks [first, first + count). A message that is not what
 * `expected` says has no rows; the first such is noted as fault. */
struct sy_read_headers_args {
  int32_t first;
  int32_t count;
  const unsigned char *message[SY_PEERS_PER_LAUNCH];
  struct sy_wire_header expected;  /* magic to wave; tokens and rows are the most there can be */
  const unsigned char **first_row; /* [W] */
  int32_t *rows;                   /* [W], or NULL: nobody counts */
  struct sy_wire_header *mirror;   /* NULL, or the host's copy, [W] in pinned memory */
  struct sy_device_fault *fault;   /* NULL: the host judges */
  /* For the first chunk, unless routed_out is NULL: */
  struct sy_routed *routed_out;
  struct sy_routed routed;
  struct sy_receive_cursor *cursor_out; /* set to the first row */
};

/* Looks at the ids of a wave: a bad one acts as masked, and the first is noted as fault. */
struct sy_note_ids_args {
  struct sy_route_args route;
  int64_t first_token; /* of the wave, in the call */
  uint16_t fault;      /* what a bad id is called (runtime/fault.h) */
  uint64_t step;
  struct sy_device_fault *noted;
};

/* Adds a chunk to the counters. */
struct sy_count_chunk_args {
  const struct sy_routed *routed;
  unsigned char *active; /* [E_local] had a routed row in this wave; first: becomes zero before */
  bool first;
  struct sy_device_counts *counts;
};

struct sy_device {
  const char *name;

  /* Makes a GPU the current one of the calling thread. */
  sy_status (*use)(int32_t ordinal);

  /* Device memory, and pinned host memory that the device reads and writes. NULL when it has run
   * out; 0 bytes give a block too. */
  void *(*alloc)(size_t bytes);
  void (*free)(void *block);
  void *(*alloc_pinned)(size_t bytes);
  void (*free_pinned)(void *block);

  /* Whether kernels can read and write there. */
  bool (*reaches)(const void *p);

  /* To and from any host memory; return when it is done. */
  sy_status (*upload)(void *to, const void *from, size_t bytes);
  sy_status (*download)(void *to, const void *from, size_t bytes);

  /* Ordered on the stream; host memory is pinned. */
  sy_status (*copy)(void *to, const void *from, size_t bytes, void *stream);
  sy_status (*clear)(void *to, size_t bytes, void *stream);

  /* A stream that is ordered with CUDA's default stream. */
  sy_status (*stream_create)(void **stream_out);
  void (*stream_destroy)(void *stream);
  bool (*is_capturing)(void *stream);
  /* Whether all work of the stream is done. Does not block. */
  sy_status (*query)(void *stream, bool *done_out);

  /* What CUDA said about this thread's last failure. */
  const char *(*error_text)(void);

  /* Kernels, ordered on env->stream. */
  sy_status (*note_ids)(const struct sy_stage_env *env, const struct sy_note_ids_args *args);
  sy_status (*write_headers)(const struct sy_stage_env *env,
                             const struct sy_write_headers_args *args);
  sy_status (*read_headers)(const struct sy_stage_env *env,
                            const struct sy_read_headers_args *args);
  sy_status (*count_chunk)(const struct sy_stage_env *env, const struct sy_count_chunk_args *args);
};

#ifdef __cplusplus
}
#endif

#endif
