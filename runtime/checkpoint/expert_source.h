/* A checkpoint's expert as a source of panels (kernels/source.h): read from its files a few rows at a
 * time, by several threads at once, into no more than a panel of memory each. */
#ifndef SY_RUNTIME_CHECKPOINT_EXPERT_SOURCE_H
#define SY_RUNTIME_CHECKPOINT_EXPERT_SOURCE_H

#include "kernels/source.h"
#include "runtime/checkpoint/experts.h"
#include "runtime/status.h"

struct sy_expert_source {
  struct sy_source base;
  const struct sy_checkpoint_expert *expert;
  float *biases; /* of all projections, or NULL */
  /* A failed read's sentence: it was said on some thread of the load. Empty: none has failed. */
  char *error;
  char error_text[SY_ERROR_TEXT_BYTES];
};

/* Reads global scales and biases. close releases what open made; also after a failure. The expert
 * must outlive the source. */
sy_status sy_expert_source_open(const struct sy_checkpoint_expert *expert,
                                struct sy_expert_source *source_out);
void sy_expert_source_close(struct sy_expert_source *source);

#endif
