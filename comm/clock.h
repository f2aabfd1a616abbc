/* The clock of deadlines and of the time spent in each stage. */
#ifndef SY_COMM_CLOCK_H
#define SY_COMM_CLOCK_H

#include <stdint.h>

#include "runtime/switchyard.h"

/* Nanoseconds since some moment in the past; never goes back. */
SY_API int64_t sy_clock_ns(void);

#endif
