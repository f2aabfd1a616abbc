/* Text to typed values. Strict: the whole text, decimal, nothing implied. */
#ifndef LAUNCH_VALUES_H
#define LAUNCH_VALUES_H

#include <stddef.h>
#include <stdint.h>

enum value_result {
  VALUE_OK,
  VALUE_MALFORMED,
  VALUE_OUTSIDE, /* well formed, but too large for the type */
};

enum value_result value_integer(const char *text, int64_t *value_out);

/* Bytes: an integer with nothing, KiB, MiB or GiB behind it. */
enum value_result value_bytes(const char *text, int64_t *value_out);

/* A finite decimal number. */
enum value_result value_number(const char *text, double *value_out);

/* Integers: "4", "1..8" (1, 2, 4, 8: doubling, and the end), or a list of these with commas. */
#define VALUE_LIST_CAPACITY 1024
struct value_list {
  size_t count;
  int64_t values[VALUE_LIST_CAPACITY];
};

/* Every value must lie in [min, max], where min >= 1, so that doubling advances, and
 * 2 * max fits. */
enum value_result value_list_parse(const char *text, int64_t min, int64_t max,
                                   struct value_list *list_out);

#endif
