#include "launch/run/report.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Begins with a character that text does not have (record separator), and ends with the line. */
static const char head[] = "\036switchyard-rank ";
enum { HEAD_LENGTH = sizeof head - 1 };

size_t report_write(const struct report *report, char line[REPORT_LINE_BYTES]) {
  return (size_t)snprintf(line, REPORT_LINE_BYTES, "%s%d %d %d %s\n", head, (int)report->kind,
                          report->rank, report->value, report->host);
}

/* The number at *text, a space behind it; moves *text past both. */
static bool read_number(const char **text, long min, long max, int *value_out) {
  char *end;
  const long value = strtol(*text, &end, 10);
  if (end == *text || *end != ' ' || value < min || value > max) {
    return false;
  }
  *text = end + 1;
  *value_out = (int)value;
  return true;
}

/* line: without its end, NUL-terminated, at least the head long. */
static bool report_read(const char *line, struct report *report) {
  int kind;
  struct report found;
  const char *rest = line + HEAD_LENGTH;
  if (!read_number(&rest, 0, NUM_REPORT_KINDS - 1, &kind) ||
      !read_number(&rest, 0, INT_MAX, &found.rank) ||
      !read_number(&rest, INT_MIN, INT_MAX, &found.value) || rest[0] == '\0' ||
      strlen(rest) >= sizeof found.host || strchr(rest, ' ') != NULL) {
    return false;
  }
  memcpy(found.host, rest, strlen(rest) + 1);
  found.kind = (enum report_kind)kind;
  *report = found;
  return true;
}

static void give_back(struct report_filter *filter, const struct report_sinks *sinks) {
  if (filter->num_held > 0) {
    sinks->pass(sinks->user, filter->held, filter->num_held);
    filter->num_held = 0;
  }
}

/* The held bytes and this one: still the beginning of a report? */
static bool may_go_on(const struct report_filter *filter, char byte) {
  return filter->num_held < HEAD_LENGTH ? byte == head[filter->num_held]
                                        : filter->num_held < REPORT_LINE_BYTES - 1;
}

static void conclude(struct report_filter *filter, const struct report_sinks *sinks) {
  struct report report;
  filter->held[filter->num_held] = '\0';
  if (report_read(filter->held, &report)) {
    filter->num_held = 0;
    sinks->take(sinks->user, &report);
  } else {
    filter->held[filter->num_held++] = '\n';
    give_back(filter, sinks);
  }
}

void report_filter_feed(struct report_filter *filter, const char *bytes, size_t count,
                        const struct report_sinks *sinks) {
  size_t passed = 0; /* of bytes: passed on or held */
  for (size_t i = 0; i < count; ++i) {
    if (filter->num_held > 0 && !may_go_on(filter, bytes[i])) {
      give_back(filter, sinks);
      passed = i;
    }
    if (filter->num_held == 0 && bytes[i] != head[0]) {
      continue;
    }
    if (filter->num_held == 0 && i > passed) {
      sinks->pass(sinks->user, bytes + passed, i - passed);
    }
    passed = i + 1;
    if (bytes[i] == '\n') {
      conclude(filter, sinks);
    } else {
      filter->held[filter->num_held++] = bytes[i];
    }
  }
  if (count > passed) {
    sinks->pass(sinks->user, bytes + passed, count - passed);
  }
}

void report_filter_end(struct report_filter *filter, const struct report_sinks *sinks) {
  give_back(filter, sinks);
}
