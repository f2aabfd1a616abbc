/* Random test data. Streams are keyed: what one part of a test draws (expert 3's weights, token 7)
 * does not shift what another draws, whatever the order, the world size or the number of tokens. */
#ifndef SY_TESTS_SUPPORT_RANDOM_H
#define SY_TESTS_SUPPORT_RANDOM_H

#include <math.h>
#include <stdint.h>

struct random_stream {
  uint64_t state;
};

static inline uint64_t random_bits(struct random_stream *r) {
  uint64_t z = r->state += 0x9E3779B97F4A7C15u; /* SplitMix64 (Steele, Lea, Flood 2014) */
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

/* what: a word that keeps the kinds of data apart; index: which one of its kind. */
static inline struct random_stream random_stream_make(uint64_t seed, const char *what,
                                                      int64_t index) {
  struct random_stream r = {seed};
  for (const char *c = what; *c != '\0'; ++c) {
    r.state = random_bits(&r) ^ (uint64_t)(unsigned char)*c;
  }
  r.state = random_bits(&r) ^ (uint64_t)index;
  return r;
}

/* In [low, high], both included. */
static inline int64_t random_between(struct random_stream *r, int64_t low, int64_t high) {
  return low + (int64_t)(random_bits(r) % (uint64_t)(high - low + 1));
}

/* In [0, 1). */
static inline double random_unit(struct random_stream *r) {
  return (double)(random_bits(r) >> 11) * 0x1.0p-53;
}

/* Bell-shaped, mean 0, variance 1, within +-3.5; without libm, so the same everywhere. */
static inline double random_normal(struct random_stream *r) {
  double sum = -2.0;
  for (int i = 0; i < 4; ++i) {
    sum += random_unit(r);
  }
  return sum * 1.7320508075688772;
}

/* +-[1, 2) * 2^e with e even over [low_exponent, high_exponent]: a wide dynamic range. */
static inline float random_wide(struct random_stream *r, int low_exponent, int high_exponent) {
  const double magnitude = 1.0 + random_unit(r);
  const int exponent = (int)random_between(r, low_exponent, high_exponent);
  return (float)ldexp(random_between(r, 0, 1) != 0 ? -magnitude : magnitude, exponent);
}

#endif
