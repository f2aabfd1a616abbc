/* How fast this machine's arithmetic units can be: chains of one instruction, far apart enough that
 * each waits for nobody. One file per instruction set; the best that the CPU has counts. */
#ifndef LAUNCH_RATES_H
#define LAUNCH_RATES_H

#include <stdbool.h>
#include <stdint.h>

/* What multiplies and adds: 8-bit integers, BF16 pairs, or f32. */
enum rate_unit { RATE_INT8, RATE_BF16, RATE_F32, RATE_UNITS };

struct rates {
  bool (*is_available)(void);
  /* Does some 1e8 operations (a multiply-add counts as two) and returns how many; NULL: there is no
   * such unit. */
  uint64_t (*run[RATE_UNITS])(void);
};

extern const struct rates rates_generic;
extern const struct rates rates_avx2;
extern const struct rates rates_avx512;

#endif
