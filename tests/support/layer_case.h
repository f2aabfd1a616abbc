/* One layer with random weights, and the tokens of all its ranks. A token's hidden values, ids and
 * weights depend on the seed and on its global index alone, an expert's weights on the seed and its
 * global index: every split over ranks and every world size has the same tokens and experts.
 *
 *   layer_case_make    the layer's shape and all tokens           layer_case_free
 *   layer_rank_open    this rank's part: its experts, loaded      layer_rank_close
 *   layer_call_open    one call: plan, memory reserved, tensors   layer_call_close
 *
 * Tensors and scratch have exactly their size, and fences around them. */
#ifndef SY_TESTS_SUPPORT_LAYER_CASE_H
#define SY_TESTS_SUPPORT_LAYER_CASE_H

#include "runtime/switchyard.h"
#include "tests/support/fences.h"

enum { LAYER_CASE_MAX_WORLD = 8 };

/* Rank r has the tokens [first[r], first[r + 1]). */
struct token_split {
  int64_t first[LAYER_CASE_MAX_WORLD + 1];
};

struct token_split split_evenly(int64_t num_tokens, int32_t world);
struct token_split split_all_to(int64_t num_tokens, int32_t world, int32_t rank);
/* Drawn with sy_test_random: the same on all ranks. Some ranks get none now and then. */
struct token_split split_randomly(int64_t num_tokens, int32_t world);

struct layer_case {
  sy_shape shape;
  int64_t num_tokens; /* of all ranks together */
  uint16_t *hidden;   /* bf16 [num_tokens, hidden] */
  int32_t *ids;       /* [num_tokens, top_k] */
  float *weights;     /* [num_tokens, top_k] */
  struct fences memory;
};

/* A shape for tests: SwiGLU, no biases, contiguous placement. */
sy_shape small_shape(sy_mode mode, int64_t hidden, int64_t intermediate, int32_t num_experts,
                     int32_t top_k);

/* Every mode, and the FP4 ones in both formats. */
enum { NUM_SHAPE_KINDS = 5 };
sy_shape shape_of_kind(int kind, int64_t hidden, int64_t intermediate, int32_t num_experts,
                       int32_t top_k);

/* Ids are random and distinct; where there are fewer experts than slots the last slots are masked.
 * Tests may write others. Tables of the shape stay the caller's. */
void layer_case_make(struct layer_case *c, const sy_shape *shape, int64_t num_tokens);
void layer_case_free(struct layer_case *c);

/* Random weights of one expert: BF16 for even ones, F32 for odd ones; biases if the
 * shape has them. */
sy_expert_weights layer_case_expert(const struct layer_case *c, int32_t global_expert,
                                    struct fences *memory);

/* This rank's experts of the case's layer. The group stays the caller's. */
struct layer_rank {
  const struct layer_case *c;
  sy_group *group;
  sy_layer *layer;
};

/* Creates the layer and loads all its experts. False, and the failure noted, if that fails. */
bool layer_rank_open(struct layer_rank *r, const struct layer_case *c, sy_group *group);
void layer_rank_close(struct layer_rank *r);

/* How a call is made. Zeros: a plan of one wave with default budgets, strategy AUTO, per_rank, BF16
 * out and back, packed rows, the group's scratch. */
struct call_options {
  sy_strategy strategy;
  sy_combine combine;
  sy_dtype return_dtype;
  sy_dtype output_dtype;
  int64_t max_tokens;           /* 0: the largest share of the split */
  int64_t wave_tokens;          /* 0: from the budget */
  int64_t chunk_rows;           /* 0: from the budget */
  size_t exchange_budget_bytes; /* 0: the default */
  size_t scratch_budget_bytes;  /* 0: the default */
  int64_t gap;                  /* values between the rows of every tensor */
  bool accumulate;
  bool own_scratch;
  bool halves;
};

struct layer_call {
  const struct layer_rank *rank;
  struct call_options options;
  sy_plan *plan;
  sy_io io; /* tests may spoil it */
  int64_t first_token;
  int64_t num_tokens;
  unsigned char *output;
  size_t output_stride; /* in bytes, never 0 */
  void *scratch;        /* NULL: the group's */
  bool scratch_on_device;
  size_t scratch_bytes;
  struct fences memory;
};

/* The plan that a rank of a world makes for these options; NULL, and the failure noted, if it
 * cannot. */
sy_plan *layer_case_plan(const struct layer_case *c, const struct call_options *options,
                         const struct token_split *split, int32_t world, int32_t rank);

/* Collective. Outputs start as layer_case_initial says. */
bool layer_call_open(struct layer_call *call, const struct layer_rank *rank,
                     const struct call_options *options, const struct token_split *split);

/* sy_forward, or its halves up to the first that fails. */
sy_status layer_call_forward(struct layer_call *call);

/* This rank's rows of the output -> rows of outputs [num_tokens, hidden] of output_dtype. */
void layer_call_read(const struct layer_call *call, void *outputs);

/* Outputs are what they were before the first call. */
void layer_call_renew(const struct layer_call *call);

/* Whether every value of the output tensor is what it was then. */
bool layer_call_is_untouched(const struct layer_call *call);

/* Checks that nothing beside the tensors was written to, gaps included. */
void layer_call_close(struct layer_call *call);

/* What an output value is before the call; exact in BF16. */
float layer_case_initial(int64_t token, int64_t i);

/* All of it: open, forward, read, close. A failure is noted; outputs are then left alone. */
sy_status layer_rank_run(const struct layer_rank *rank, const struct call_options *options,
                         const struct token_split *split, void *outputs);

/* A group of one process, and the outputs that it gives for all tokens of the case in one exact
 * wave on one thread; combine and dtypes as in options, whose other fields are not looked at. A
 * placement in the shape is left out: it is for another world. */
sy_group *local_group(int32_t num_threads);
void layer_case_alone(const struct layer_case *c, const struct call_options *options,
                      void *outputs);

/* Room for outputs of the whole case, in the case's memory: NaN, until written. */
void *layer_case_outputs(struct layer_case *c, sy_dtype dtype);
size_t layer_case_row_bytes(const struct layer_case *c, sy_dtype dtype);

/* Compares rows [begin, end) of two outputs bit by bit; says which token and column
 * differ first. */
bool same_bits(const struct layer_case *c, sy_dtype dtype, const void *got, const void *expected,
               int64_t begin, int64_t end, const char *what);

/* Judges the outputs (f32) of tokens [begin, end) from end to end: the largest relative L2 distance
 * of a token from the float64 oracle, which rounds and quantises as the layer does. NaN if a value
 * is. */
double layer_case_distance(const struct layer_case *c, const float *outputs, int64_t begin,
                           int64_t end);

/* A distance that honest rounding keeps within, by mode: return rows are BF16, and codes flip. */
double layer_case_tolerance(sy_mode mode);

#endif
