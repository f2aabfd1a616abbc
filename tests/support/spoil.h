/* Everything that one rank can get wrong in a call of its own: how, and what must be said of it. */
#ifndef SY_TESTS_SUPPORT_SPOIL_H
#define SY_TESTS_SUPPORT_SPOIL_H

#include "tests/support/layer_case.h"

/* What spoilt calls are made of. Tokens (at least 2 on the rank) and slots are fixed by it. */
enum { SPOIL_EXPERTS = 8, SPOIL_TOP_K = 3, SPOIL_HIDDEN = 32 };
sy_shape spoil_shape(void);
/* The caller's scratch: only that can be too small. */
struct call_options spoil_options(void);

struct spoil {
  const char *name;
  sy_status status;
  const char *said[3]; /* parts of the sentence; NULL: no more */
  void (*apply)(struct layer_call *call);
};

const struct spoil *spoils(size_t *count_out);

/* Applies one to the call; undo puts everything back. */
struct spoilt {
  struct layer_call before;
};
struct spoilt spoil_apply(const struct spoil *spoil, struct layer_call *call);
void spoil_undo(const struct spoilt *spoilt, struct layer_call *call);

#endif
