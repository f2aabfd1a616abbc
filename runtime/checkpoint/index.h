/* The index of a sharded checkpoint: which shard holds which tensor. */
#ifndef SY_RUNTIME_CHECKPOINT_INDEX_H
#define SY_RUNTIME_CHECKPOINT_INDEX_H

#include "runtime/checkpoint/checkpoint.h"

/* Opens the shards that the index names, each once, and fills files and tensors; the shards lie in
 * the checkpoint's folder and nowhere else. On failure the caller closes what has been opened. */
sy_status sy_index_open(sy_checkpoint *checkpoint, const char *index_path);

#endif
