/* The tensors of an expert in a checkpoint, found and checked, not read. */
#ifndef SY_RUNTIME_CHECKPOINT_EXPERTS_H
#define SY_RUNTIME_CHECKPOINT_EXPERTS_H

#include "runtime/checkpoint/checkpoint.h"
#include "runtime/checkpoint/storage.h"

/* Row r of a projection is row first_row + r * row_step of its tensors, counted over the experts of
 * those that hold several. */
struct sy_checkpoint_projection {
  const struct sy_checkpoint_tensor *weight;
  const struct sy_checkpoint_tensor *scales, *global, *bias; /* NULL: there are none */
  int64_t rows, columns;
  int64_t first_row, row_step;
};

struct sy_checkpoint_expert {
  int32_t global_expert;
  const struct sy_storage *storage;
  struct sy_checkpoint_projection projections[SY_NUM_PROJECTIONS];
  uint64_t bytes; /* of its rows, in all of these tensors */
};

/* ARGUMENT for an index outside the model, or of a dense layer; FORMAT for a layer with more experts
 * than the config says: it would load, and compute another model. */
sy_status sy_checkpoint_require_moe_layer(const sy_checkpoint *checkpoint, int32_t layer_idx);

/* FORMAT when a tensor is missing, or of another dtype or shape than the config asks for. */
sy_status sy_checkpoint_find_expert(const sy_checkpoint *checkpoint, int32_t layer_idx,
                                    int32_t global_expert, struct sy_checkpoint_expert *expert_out);

#endif
