/* The header of a received message: one that keeps the rule is read as it is, one that breaks it in
 * any single way as zeros. */
#include "runtime/fault.h"
#include "runtime/header.h"
#include "tests/support/harness.h"

/* exact: as many rows travel as the header says. */
static const struct sy_header_rule rule = {
    .max_rows = 6, .sent_rows = -1, .max_tokens = 10, .slots_per_row = 2, .row_bytes = 48};

struct message {
  struct sy_wire_header header;
  size_t bytes;
};

static struct message right_message(void) {
  struct message m = {.header = {.magic = SY_WIRE_MAGIC,
                                 .version = SY_WIRE_VERSION,
                                 .call = SY_WIRE_CALL_FORWARD,
                                 .plan_hash = 0x0123456789abcdef,
                                 .tokens = 10,
                                 .rows = 6,
                                 .detail = {12, 0, 0}}};
  m.bytes = sy_message_bytes(6, rule.row_bytes);
  return m;
}

static void check_read(const struct message *m, const struct sy_header_rule *r) {
  struct sy_wire_header read;
  if (CHECK(sy_header_read(&m->header, m->bytes, r, &read))) {
    CHECK_EQ_BYTES(&read, &m->header, sizeof read);
  }
}

static void check_refused(const struct message *m, const struct sy_header_rule *r) {
  static const struct sy_wire_header zeros = {0};
  struct sy_wire_header read;
  CHECK(!sy_header_read(&m->header, m->bytes, r, &read));
  CHECK_EQ_BYTES(&read, &zeros, sizeof read);
}

TEST(a_header_within_its_bounds_is_read) {
  struct message m = right_message();
  check_read(&m, &rule);
  m.header.rows = 0;
  m.header.detail[0] = 0;
  m.bytes = sy_message_bytes(0, rule.row_bytes);
  check_read(&m, &rule);
}

TEST(a_header_beyond_a_bound_is_refused) {
  struct message wrong[9];
  for (int i = 0; i < 9; ++i) {
    wrong[i] = right_message();
  }
  wrong[0].header.rows = 7;
  wrong[0].bytes = sy_message_bytes(7, rule.row_bytes);
  wrong[1].header.rows = UINT32_MAX;
  wrong[2].header.rows = 5; /* and six travel */
  wrong[3].header.tokens = 11;
  wrong[4].header.detail[0] = 13;
  wrong[5].header.detail[0] = -1;
  wrong[6].bytes -= 1;
  wrong[7].bytes += 48;
  wrong[8].bytes = sizeof(struct sy_wire_header) - 1;
  for (int i = 0; i < 9; ++i) {
    check_refused(&wrong[i], &rule);
  }
}

TEST(no_message_is_no_header) {
  struct sy_wire_header read;
  CHECK(!sy_header_read(NULL, 0, &rule, &read));
  CHECK_EQ_U64(read.magic, 0);
}

TEST(a_fixed_message_has_all_its_rows) {
  struct sy_header_rule fixed = rule;
  fixed.sent_rows = 6;
  struct message m = right_message();
  m.header.rows = 2;
  m.header.detail[0] = 3;
  check_read(&m, &fixed);
  m.bytes = sy_message_bytes(2, rule.row_bytes);
  check_refused(&m, &fixed);
}

TEST(a_return_has_the_rows_that_are_awaited) {
  struct sy_header_rule back = {
      .min_rows = 6, .max_rows = 6, .sent_rows = -1, .max_tokens = 10, .row_bytes = 48};
  struct message m = right_message();
  m.header.detail[0] = 0;
  check_read(&m, &back);
  back.min_rows = back.max_rows = 7;
  check_refused(&m, &back);
}

/* A fault needs no plan on either side, and no rows; a status without a fault tells nothing. */
TEST(a_fault_is_understood_without_rows) {
  struct message m = right_message();
  m.header.status = SY_ERR_ROUTING;
  m.header.fault = SY_FAULT_EXPERT_ID;
  m.bytes = sizeof m.header;
  const struct sy_header_rule *const rules[] = {&rule, NULL};
  for (int i = 0; i < 2; ++i) {
    struct sy_wire_header read;
    CHECK(!sy_header_read(&m.header, m.bytes, rules[i], &read));
    CHECK_EQ_BYTES(&read, &m.header, sizeof read);
  }
  m.header.fault = SY_FAULT_NONE;
  check_refused(&m, &rule);
  m = right_message();
  check_refused(&m, NULL);
}
