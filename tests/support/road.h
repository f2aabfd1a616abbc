/* The road of a token without the runtime: W ranks in one process, every stage called through a
 * kernels table, messages handed over as pointers. Every buffer has exactly the size that its bound
 * says (kernels/kernels.h), messages even only the rows that are in them, and all are fenced. */
#ifndef SY_TESTS_SUPPORT_ROAD_H
#define SY_TESTS_SUPPORT_ROAD_H

#include "kernels/kernels.h"
#include "tests/support/fences.h"

struct road_shape {
  const struct sy_kernels *kernels;
  int64_t hidden;
  int64_t intermediate;
  int32_t num_experts;
  int32_t top_k;
  int32_t world;
  const int32_t *expert_rank; /* [num_experts], or NULL: contiguous */
  sy_mode mode;
  sy_format format;
  sy_activation activation;
  bool has_bias;
  bool fastest;
  bool per_slot;
  bool gather;
  bool padded_slots;
  sy_dtype return_dtype;
  sy_dtype output_dtype;
  bool accumulate;
  bool random_experts; /* expert_out is made up: enough for the stages around the experts */
  bool dtype_is_set;   /* weights are of `dtype`; else BF16 for even experts, F32 for odd ones */
  sy_dtype dtype;
  int64_t chunk_rows;  /* M; 0: all received rows */
  int32_t num_threads; /* 0: one */
};

/* All tokens of all ranks, dealt to ranks in order. */
struct road_tokens {
  int64_t count;
  uint16_t *hidden; /* bf16 [count, hidden] */
  int32_t *ids;     /* [count, top_k] */
  float *weights;   /* [count, top_k] */
};

struct road_rank {
  struct sy_stage_env env;
  int32_t *global_expert; /* [local_experts] */
  int64_t first_token;
  struct sy_route_args route;
  int32_t rows_sent;
  unsigned char **landing;        /* [W] dispatched message to each rank */
  const unsigned char **received; /* [W] */
  int32_t *received_rows;         /* [W] */
  unsigned char **return_landing; /* [W] */
  int32_t *return_rows;           /* [W] room in each of them */
  const unsigned char **returned; /* [W] */
  unsigned char *weights;
  size_t expert_bytes;
  uint64_t *load_counts;
  void *output; /* of output_dtype, rows output_stride bytes apart */
  int64_t output_stride;
};

/* What a judge sees of one chunk, after reduce. first_row counts all received rows of the rank. */
struct road_chunk {
  int64_t first_row;
  struct sy_routed routed;
  struct sy_experts_args experts;
};

struct road {
  struct road_shape shape;
  struct road_tokens tokens;
  int32_t max_local_experts;
  int32_t *expert_rank;
  int32_t *expert_local;
  sy_expert_weights *weights; /* [num_experts] */
  struct road_rank *ranks;    /* [W] */
  struct fences fences;
};

typedef void (*road_judge)(const struct road *road, int32_t rank, const struct road_chunk *chunk,
                           void *user);

/* Random hidden states (blocks of very different size among them), distinct random ids and weights
 * that add up to about one. A token's data depends on the seed and its index alone. */
struct road_tokens road_tokens_make(struct fences *fences, const struct road_shape *shape,
                                    int64_t count);

/* Random weights of one expert, of the shape's dtype; biases if asked for. They depend on the seed
 * and the expert alone. */
sy_expert_weights road_weights_make(struct fences *fences, const struct road_shape *shape,
                                    int32_t global_expert);

/* kernels->load_expert of weights in memory. */
sy_status road_load_expert(const struct sy_kernels *kernels, const struct sy_stage_env *env,
                           const sy_expert_weights *weights, unsigned char *expert,
                           struct sy_bad_weight *bad);

/* The public shape of the same layer, for the oracle. */
sy_shape road_layer_shape(const struct road_shape *shape);

/* Places and loads the experts and deals the tokens: rank r gets num_tokens[r]; NULL deals evenly,
 * the first ranks one more. The tokens must outlive the road. */
void road_begin(struct road *road, const struct road_shape *shape, const struct road_tokens *tokens,
                const int64_t *num_tokens);

/* The stages up to the received rows; group to return, chunk by chunk, with the judge (or NULL)
 * called for each chunk; combine. */
void road_dispatch(struct road *road);
void road_compute(struct road *road, road_judge judge, void *user);
void road_combine(struct road *road);

/* All three. */
void road_walk(struct road *road, road_judge judge, void *user);

/* Checks the fences and releases everything. */
void road_end(struct road *road);

int32_t road_rank_of_token(const struct road *road, int64_t token);

/* Output value i of a token, and what was there before (with accumulate). */
float road_output(const struct road *road, int64_t token, int64_t i);
float road_initial_output(int64_t token, int64_t i);

/* Value i of a return row. */
float road_return_value(const struct road *road, const unsigned char *return_row, int64_t i);

#endif
