#include "launch/values.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* An integer at *text, which moves behind it. */
static enum value_result read_integer(const char **text, int64_t *value_out) {
  const char *digits = *text + (**text == '-');
  if (!isdigit((unsigned char)*digits)) {
    return VALUE_MALFORMED;
  }
  char *end = NULL;
  errno = 0;
  const long long value = strtoll(*text, &end, 10);
  const bool too_large = errno == ERANGE;
  *text = end;
  *value_out = value;
  return too_large ? VALUE_OUTSIDE : VALUE_OK;
}

enum value_result value_integer(const char *text, int64_t *value_out) {
  int64_t value = 0;
  const enum value_result result = read_integer(&text, &value);
  if (*text != '\0') {
    return VALUE_MALFORMED;
  }
  if (result == VALUE_OK) {
    *value_out = value;
  }
  return result;
}

enum value_result value_bytes(const char *text, int64_t *value_out) {
  static const struct {
    const char *name;
    int64_t bytes;
  } units[] = {{"", 1}, {"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}};
  int64_t count = 0;
  const enum value_result result = read_integer(&text, &count);
  if (result == VALUE_MALFORMED) {
    return result;
  }
  for (size_t i = 0; i < sizeof units / sizeof units[0]; ++i) {
    if (strcmp(text, units[i].name) != 0) {
      continue;
    }
    if (result != VALUE_OK || count > INT64_MAX / units[i].bytes ||
        count < INT64_MIN / units[i].bytes) {
      return VALUE_OUTSIDE;
    }
    *value_out = count * units[i].bytes;
    return VALUE_OK;
  }
  return VALUE_MALFORMED;
}

enum value_result value_number(const char *text, double *value_out) {
  if (text[0] == '\0' || text[strspn(text, "0123456789.eE+-")] != '\0') {
    return VALUE_MALFORMED; /* strtod would take spaces, hexadecimal, nan and inf */
  }
  char *end = NULL;
  const double value = strtod(text, &end);
  if (*end != '\0') {
    return VALUE_MALFORMED;
  }
  if (!isfinite(value)) {
    return VALUE_OUTSIDE;
  }
  *value_out = value;
  return VALUE_OK;
}

static enum value_result append(struct value_list *list, int64_t value) {
  if (list->count == VALUE_LIST_CAPACITY) {
    return VALUE_OUTSIDE;
  }
  list->values[list->count++] = value;
  return VALUE_OK;
}

/* One number or range at *text, which moves behind it. */
static enum value_result read_item(const char **text, int64_t min, int64_t max,
                                   struct value_list *list) {
  int64_t first = 0;
  enum value_result result = read_integer(text, &first);
  int64_t last = first;
  if (result != VALUE_MALFORMED && strncmp(*text, "..", 2) == 0) {
    *text += 2;
    const enum value_result end = read_integer(text, &last);
    result = end == VALUE_OK ? result : end;
  }
  if (result != VALUE_OK) {
    return result;
  }
  if (first < min || last > max || first > last) {
    return VALUE_OUTSIDE;
  }
  for (int64_t value = first; value < last && result == VALUE_OK; value *= 2) {
    result = append(list, value);
  }
  return result == VALUE_OK ? append(list, last) : result;
}

enum value_result value_list_parse(const char *text, int64_t min, int64_t max,
                                   struct value_list *list_out) {
  struct value_list list = {.count = 0};
  for (;;) {
    const enum value_result result = read_item(&text, min, max, &list);
    if (result != VALUE_OK) {
      return result;
    }
    if (*text == '\0') {
      *list_out = list;
      return VALUE_OK;
    }
    if (*text++ != ',') {
      return VALUE_MALFORMED;
    }
  }
}
