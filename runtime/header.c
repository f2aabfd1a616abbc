#include "runtime/header.h"

#include <string.h>

#include "runtime/fault.h"

size_t sy_message_bytes(int64_t rows, size_t row_bytes) {
  return sizeof(struct sy_wire_header) + (size_t)rows * row_bytes;
}

static bool obeys(const struct sy_wire_header *header, size_t bytes,
                  const struct sy_header_rule *rule) {
  const int64_t rows = header->rows;
  if (rows < rule->min_rows || rows > rule->max_rows || header->tokens > rule->max_tokens) {
    return false;
  }
  const int64_t sent_rows = rule->sent_rows < 0 ? rows : rule->sent_rows;
  return header->detail[0] >= 0 && header->detail[0] <= rows * rule->slots_per_row &&
         bytes == sy_message_bytes(sent_rows, rule->row_bytes);
}

bool sy_header_read(const void *message, size_t bytes, const struct sy_header_rule *rule,
                    struct sy_wire_header *header_out) {
  struct sy_wire_header header;
  memset(header_out, 0, sizeof *header_out);
  if (message == NULL || bytes < sizeof header) {
    return false;
  }
  memcpy(&header, message, sizeof header);
  const bool is_fault = header.status != SY_OK && header.fault != SY_FAULT_NONE;
  const bool has_rows = header.status == SY_OK && rule != NULL && obeys(&header, bytes, rule);
  if (is_fault || has_rows) {
    *header_out = header;
  }
  return has_rows;
}
