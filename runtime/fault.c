#include "runtime/fault.h"

#include <inttypes.h>
#include <stdio.h>

static const sy_status statuses[] = {
#define SY_FAULT_STATUS(kind, status, text) status,
    SY_FAULT_MAP(SY_FAULT_STATUS)
#undef SY_FAULT_STATUS
};

static const char *const sentences[] = {
#define SY_FAULT_SENTENCE(kind, status, text) text,
    SY_FAULT_MAP(SY_FAULT_SENTENCE)
#undef SY_FAULT_SENTENCE
};

static const char *const io_fields[] = {"hidden", "expert_ids", "expert_weights", "output"};

static int is_known(const struct sy_fault *fault) {
  return (unsigned)fault->kind < (unsigned)SY_NUM_FAULTS;
}

sy_status sy_fault_status(const struct sy_fault *fault) {
  return is_known(fault) ? statuses[fault->kind] : SY_ERR_MISMATCH;
}

static const char *io_field_name(int64_t field) {
  const int64_t count = (int64_t)(sizeof io_fields / sizeof io_fields[0]);
  return field >= 0 && field < count ? io_fields[field] : "?";
}

void sy_fault_text(const struct sy_fault *fault, char *text, size_t bytes) {
  if (!is_known(fault)) {
    snprintf(text, bytes, "an error of kind %u, which this version does not know",
             (unsigned)fault->kind);
    return;
  }
  size_t used = 0;
  text[0] = '\0';
  for (const char *c = sentences[fault->kind]; *c != '\0' && used + 1 < bytes; ++c) {
    int written;
    if (c[0] == '%' && c[1] >= '0' && c[1] <= '2') {
      written = snprintf(text + used, bytes - used, "%" PRId64, fault->detail[*++c - '0']);
    } else if (c[0] == '%' && c[1] == 'f') {
      ++c;
      written = snprintf(text + used, bytes - used, "%s", io_field_name(fault->detail[0]));
    } else {
      written = snprintf(text + used, bytes - used, "%c", *c);
    }
    used += (size_t)(written > 0 ? written : 0);
  }
}
