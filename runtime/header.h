/* What the header of a received message must say before a row behind it is touched. Bytes from a
 * peer are not trusted: they may be of another program, version or plan. */
#ifndef SY_RUNTIME_HEADER_H
#define SY_RUNTIME_HEADER_H

#include <stdbool.h>

#include "kernels/wire.h"

/* Bounds: rows and tokens fit 32 bits, (max_rows + 1) * row_bytes fits size_t. */
struct sy_header_rule {
  int64_t min_rows, max_rows;
  int64_t sent_rows; /* so many travel, used or not; -1: those that the header says */
  int64_t max_tokens;
  int64_t slots_per_row; /* the most used slots of a row */
  size_t row_bytes;
};

/* Header and rows; 0 <= rows <= max_rows of a rule. */
size_t sy_message_bytes(int64_t rows, size_t row_bytes);

/* Reads the header of a message of so many bytes; message NULL: there is none. A header with a
 * status tells of its sender's fault and has no rows; any other obeys the rule. What does neither
 * is read as zeros, and differs from every header. rule NULL: only a fault is understood. Returns
 * whether rows follow. */
bool sy_header_read(const void *message, size_t bytes, const struct sy_header_rule *rule,
                    struct sy_wire_header *header_out);

#endif
