/* The header of a received message. Input: a rule (struct input, as it lies in memory), then the
 * message; bytes that are missing are zeros. */
#include <string.h>

#include "runtime/fault.h"
#include "runtime/header.h"
#include "runtime/status.h"
#include "tests/fuzz/fuzz.h"

struct input {
  uint32_t min_rows, max_rows;
  int32_t sent_rows;
  uint32_t max_tokens;
  uint32_t row_bytes;
  uint16_t slots_per_row;
  uint16_t has_rule;
  uint64_t message_bytes;
  struct sy_wire_header header;
};

/* Within the bounds of a plan. */
static struct sy_header_rule rule_of(const struct input *input) {
  return (struct sy_header_rule){.min_rows = input->min_rows % (1u << 24),
                                 .max_rows = input->max_rows % (1u << 24),
                                 .sent_rows = input->sent_rows < 0 ? -1 : input->sent_rows,
                                 .max_tokens = input->max_tokens,
                                 .slots_per_row = input->slots_per_row % 1025,
                                 .row_bytes = input->row_bytes % (1u << 22)};
}

static void check_rows(const struct sy_wire_header *read, size_t bytes,
                       const struct sy_header_rule *rule) {
  const int64_t rows = read->rows;
  FUZZ_CHECK(read->status == SY_OK && rows >= rule->min_rows && rows <= rule->max_rows);
  FUZZ_CHECK(read->tokens <= rule->max_tokens);
  FUZZ_CHECK(read->detail[0] >= 0 && read->detail[0] <= rows * rule->slots_per_row);
  const int64_t sent = rule->sent_rows < 0 ? rows : rule->sent_rows;
  FUZZ_CHECK(bytes - sizeof *read == (size_t)sent * rule->row_bytes);
}

static void check_fault(const struct sy_wire_header *read) {
  struct sy_fault fault = {.kind = (enum sy_fault_kind)read->fault};
  char text[SY_ERROR_TEXT_BYTES];
  memcpy(fault.detail, read->detail, sizeof fault.detail);
  FUZZ_CHECK(sy_fault_status(&fault) != SY_OK);
  sy_fault_text(&fault, text, sizeof text);
  fuzz_check_sentence(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static const struct sy_wire_header zeros;
  struct input input = {0};
  struct sy_wire_header read;
  memcpy(&input, data, size < sizeof input ? size : sizeof input);
  const struct sy_header_rule rule = rule_of(&input);
  const size_t bytes = (size_t)input.message_bytes;
  const bool has_rule = input.has_rule % 2 != 0;
  if (sy_header_read(&input.header, bytes, has_rule ? &rule : NULL, &read)) {
    FUZZ_CHECK(has_rule && bytes >= sizeof read);
    FUZZ_CHECK(memcmp(&read, &input.header, sizeof read) == 0);
    check_rows(&read, bytes, &rule);
  } else if (read.status != SY_OK) {
    check_fault(&read);
  } else {
    FUZZ_CHECK(memcmp(&read, &zeros, sizeof read) == 0);
  }
  return 0;
}
