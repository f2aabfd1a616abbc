/* Error texts: each failure is described once, where it is found, by one sentence. */
#ifndef SY_RUNTIME_STATUS_H
#define SY_RUNTIME_STATUS_H

#include "runtime/switchyard.h"

#define SY_ERROR_TEXT_BYTES 512

/* Runs a call that returns sy_status and hands its failure on. */
#define SY_TRY(call)                         \
  do {                                       \
    const sy_status sy_try_status_ = (call); \
    if (sy_try_status_ != SY_OK) {           \
      return sy_try_status_;                 \
    }                                        \
  } while (0)

/* Records the sentence for sy_last_error(NULL) of this thread; returns status. */
SY_API sy_status sy_fail(sy_status status, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Records the sentence for sy_last_error(group) (of this thread if group is NULL);
 * returns status. */
SY_API sy_status sy_group_fail(sy_group *group, sy_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Clang's analyser sees no bodies here; it must know that a failure is not SY_OK. */
#ifdef __clang_analyzer__
#define sy_fail(status, ...) ((void)sy_fail(status, __VA_ARGS__), (status))
#define sy_group_fail(group, status, ...) \
  ((void)sy_group_fail(group, status, __VA_ARGS__), (status))
#endif

#endif
