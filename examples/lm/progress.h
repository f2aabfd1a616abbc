/* A bar while bytes are loaded, for rank 0's share of them: drawn in place where standard error is
 * a terminal, plain lines otherwise. */
#ifndef LM_PROGRESS_H
#define LM_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct lm_progress {
  bool shown; /* on rank 0 alone */
  bool terminal;
  uint64_t done;  /* bytes of what is finished */
  uint64_t total; /* bytes in all */
  double begun, drawn;
};

void lm_progress_begin(struct lm_progress *progress, bool shown, uint64_t total);

/* More bytes, of something that is now finished. */
void lm_progress_add(struct lm_progress *progress, uint64_t bytes);

/* An sy_progress_fn; user is the struct lm_progress. */
void lm_progress_callback(void *user, const char *what, uint64_t done_bytes, uint64_t total_bytes);

/* Says how much was loaded, and how fast. */
void lm_progress_end(struct lm_progress *progress);

#endif
