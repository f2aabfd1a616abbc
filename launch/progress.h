/* A bar while bytes are loaded or converted, for rank 0's share of them: drawn in place where standard
 * error is a terminal, plain lines otherwise. */
#ifndef LAUNCH_PROGRESS_H
#define LAUNCH_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

struct progress {
  const char *what; /* "loading" */
  bool shown;       /* on rank 0 alone */
  bool terminal;
  uint64_t done;  /* bytes of what is finished */
  uint64_t total; /* bytes in all */
  double begun, drawn;
};

void progress_begin(struct progress *progress, const char *what, bool shown, uint64_t total);

/* More bytes, of something that is now finished. */
void progress_add(struct progress *progress, uint64_t bytes);

/* An sy_progress_fn; user is the struct progress. */
void progress_callback(void *user, const char *what, uint64_t done_bytes, uint64_t total_bytes);

/* Says how much it was, and how fast. */
void progress_end(struct progress *progress);

#endif
