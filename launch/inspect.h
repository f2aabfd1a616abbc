/* What `switchyard inspect` finds (inspect.c) and prints (inspect_print.c). */
#ifndef LAUNCH_INSPECT_H
#define LAUNCH_INSPECT_H

#include "launch/options.h"
#include "runtime/switchyard_checkpoint.h"

#define INSPECT_TEXT_BYTES 512

struct inspect_layer {
  sy_layer_info info;
  char error[INSPECT_TEXT_BYTES]; /* empty: it loads, or is dense */
};

/* How experts can lie in memory. */
enum { INSPECT_BF16, INSPECT_NVFP4, INSPECT_MXFP4, INSPECT_NUM_KINDS };
extern const char *const inspect_kinds[INSPECT_NUM_KINDS];

/* Rank 0 of a world, which has the most experts; all layers. */
struct inspect_world {
  int32_t world;
  int32_t experts;     /* of one layer */
  uint64_t read_bytes; /* of the files, of layers that load */
  uint64_t weight_bytes[INSPECT_NUM_KINDS];
};

struct inspect_sheet {
  const char *path;
  sy_model_info info;
  struct inspect_layer *layers; /* [info.num_layers] */
  int32_t num_dense, num_broken;
  uint64_t expert_bytes; /* in the files */
  char refusals[INSPECT_NUM_KINDS]
               [INSPECT_TEXT_BYTES]; /* not empty: the sizes do not fit this kind */
  struct inspect_world *worlds;
  size_t num_worlds;
};

void inspect_print_text(const struct inspect_sheet *sheet);

/* False: out of memory, or a text is not UTF-8. */
bool inspect_print_json(const struct inspect_sheet *sheet);

#endif
