#include "runtime/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/internal.h"

#define SY_TEXT_(x) #x
#define SY_TEXT(x) SY_TEXT_(x)

static _Thread_local char thread_error[SY_ERROR_TEXT_BYTES];

const char *sy_version(void) {
  return SY_TEXT(SY_VERSION_MAJOR) "." SY_TEXT(SY_VERSION_MINOR) "." SY_TEXT(SY_VERSION_PATCH);
}

const char *sy_status_name(sy_status status) {
  switch (status) {
#define SY_STATUS_NAME(name, value, text) \
  case name:                              \
    return #name;
    SY_STATUS_MAP(SY_STATUS_NAME)
#undef SY_STATUS_NAME
  }
  return "unknown status";
}

const char *sy_status_text(sy_status status) {
  switch (status) {
#define SY_STATUS_TEXT(name, value, text) \
  case name:                              \
    return text;
    SY_STATUS_MAP(SY_STATUS_TEXT)
#undef SY_STATUS_TEXT
  }
  return "unknown status";
}

const char *sy_last_error(const sy_group *group) {
  return group == NULL ? thread_error : group->error;
}

#undef sy_fail /* the analyser's */
sy_status sy_fail(sy_status status, const char *format, ...) {
  va_list args;
  va_start(args, format);
  vsnprintf(thread_error, sizeof thread_error, format, args);
  va_end(args);
  return status;
}

#undef sy_group_fail
sy_status sy_group_fail(sy_group *group, sy_status status, const char *format, ...) {
  char text[SY_ERROR_TEXT_BYTES]; /* an argument may be one of the texts below */
  va_list args;
  va_start(args, format);
  vsnprintf(text, sizeof text, format, args);
  va_end(args);
  memcpy(thread_error, text, sizeof text);
  if (group != NULL) {
    memcpy(group->error, text, sizeof text);
  }
  return status;
}
