#include "runtime/checkpoint/json.h"

#include <stdio.h>
#include <string.h>

#include "runtime/status.h"

/* Leaves room for quotes and dots in SY_JSON_SHOWN_BYTES. */
#define MAX_SHOWN_STRING 40

/* An object or array costs some 250 bytes however short it is. An honest tensor has three, in at
 * least 52 bytes. */
#define BYTES_PER_BRACKET 16
#define FREE_BRACKETS 8

/* Refuses brackets that do not follow `nesting`, and too many of them; strings are skipped, all else
 * is the parser's. */
static sy_status check_nesting(const char *where, const char *text, size_t bytes,
                               const char *nesting) {
  const size_t max_depth = strlen(nesting);
  size_t depth = 0;
  size_t brackets = 0;
  int in_string = 0;
  for (size_t i = 0; i < bytes; ++i) {
    const char c = text[i];
    if (in_string) {
      i += c == '\\';
      in_string = c != '"';
    } else if (c == '"') {
      in_string = 1;
    } else if (c == '{' || c == '[') {
      if (depth == max_depth) {
        return sy_fail(SY_ERR_FORMAT, "%s: '%c' at byte %zu nests deeper than %zu levels", where, c,
                       i, max_depth);
      }
      if (c != nesting[depth]) {
        return sy_fail(SY_ERR_FORMAT, "%s: '%c' at byte %zu; expected '%c' at level %zu", where, c,
                       i, nesting[depth], depth + 1);
      }
      ++depth;
      ++brackets;
    } else if ((c == '}' || c == ']') && depth > 0) {
      --depth;
    }
  }
  if (brackets > FREE_BRACKETS + bytes / BYTES_PER_BRACKET) {
    return sy_fail(SY_ERR_FORMAT, "%s: %zu brackets open in %zu bytes; allowed: one in %d", where,
                   brackets, bytes, BYTES_PER_BRACKET);
  }
  return SY_OK;
}

/* An error text may be shown by a terminal, which must not obey what a file says. */
static void keep_printable(char *text) {
  for (; *text != '\0'; ++text) {
    if (*text < ' ' || *text > '~') {
      *text = '?';
    }
  }
}

bool sy_is_control(const char *utf8) {
  const unsigned char c = (unsigned char)utf8[0];
  return c < 0x20 || c == 0x7F || (c == 0xC2 && (unsigned char)utf8[1] < 0xA0);
}

sy_status sy_json_parse(const char *where, const char *text, size_t bytes, const char *nesting,
                        json_t **root_out) {
  if (nesting != NULL) {
    SY_TRY(check_nesting(where, text, bytes, nesting));
  }
  json_error_t error;
  json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
  if (root == NULL && json_error_code(&error) == json_error_out_of_memory) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory for its JSON", where);
  }
  if (root == NULL) {
    keep_printable(error.text);
    return sy_fail(SY_ERR_FORMAT, "%s: invalid JSON at byte %d: %s", where, error.position,
                   error.text);
  }
  if (!json_is_object(root)) {
    json_decref(root);
    return sy_fail(SY_ERR_FORMAT, "%s: the JSON is an array; expected an object", where);
  }
  *root_out = root;
  return SY_OK;
}

const char *sy_json_show(const json_t *value, char shown[SY_JSON_SHOWN_BYTES]) {
  if (value == NULL) {
    return "missing";
  }
  switch (json_typeof(value)) {
  case JSON_OBJECT:
    return "an object";
  case JSON_ARRAY:
    return "an array";
  case JSON_TRUE:
    return "true";
  case JSON_FALSE:
    return "false";
  case JSON_STRING:
    snprintf(shown, SY_JSON_SHOWN_BYTES, "\"%.*s\"%s", MAX_SHOWN_STRING, json_string_value(value),
             json_string_length(value) > MAX_SHOWN_STRING ? "..." : "");
    keep_printable(shown);
    return shown;
  case JSON_INTEGER:
    snprintf(shown, SY_JSON_SHOWN_BYTES, "%lld", (long long)json_integer_value(value));
    return shown;
  case JSON_REAL:
    snprintf(shown, SY_JSON_SHOWN_BYTES, "%g", json_real_value(value));
    return shown;
  case JSON_NULL:
    break;
  }
  return "null";
}

static sy_status check_int(const char *where, const char *name, const json_t *value, int64_t min,
                           int64_t max, int64_t *value_out) {
  char shown[SY_JSON_SHOWN_BYTES];
  if (!json_is_integer(value) || json_integer_value(value) < min ||
      json_integer_value(value) > max) {
    return sy_fail(SY_ERR_FORMAT, "%s: '%s' is %s; expected an integer in [%lld, %lld]", where,
                   name, sy_json_show(value, shown), (long long)min, (long long)max);
  }
  *value_out = json_integer_value(value);
  return SY_OK;
}

sy_status sy_json_int(const char *where, const json_t *object, const char *key, int64_t min,
                      int64_t max, int64_t *value_out) {
  return check_int(where, key, json_object_get(object, key), min, max, value_out);
}

sy_status sy_json_int_at(const char *where, const json_t *array, const char *array_key, size_t idx,
                         int64_t min, int64_t max, int64_t *value_out) {
  return check_int(where, array_key, json_array_get(array, idx), min, max, value_out);
}

sy_status sy_json_string(const char *where, const json_t *object, const char *key,
                         const char **value_out) {
  const json_t *value = json_object_get(object, key);
  char shown[SY_JSON_SHOWN_BYTES];
  if (!json_is_string(value)) {
    return sy_fail(SY_ERR_FORMAT, "%s: '%s' is %s; expected a string", where, key,
                   sy_json_show(value, shown));
  }
  *value_out = json_string_value(value);
  return SY_OK;
}

sy_status sy_json_array(const char *where, const json_t *object, const char *key,
                        const json_t **value_out) {
  const json_t *value = json_object_get(object, key);
  char shown[SY_JSON_SHOWN_BYTES];
  if (!json_is_array(value)) {
    return sy_fail(SY_ERR_FORMAT, "%s: '%s' is %s; expected an array", where, key,
                   sy_json_show(value, shown));
  }
  *value_out = value;
  return SY_OK;
}

sy_status sy_json_number(const char *where, const json_t *object, const char *key,
                         double *value_out) {
  const json_t *value = json_object_get(object, key);
  char shown[SY_JSON_SHOWN_BYTES];
  if (!json_is_number(value) && !json_is_boolean(value)) {
    return sy_fail(SY_ERR_FORMAT, "%s: '%s' is %s; expected a number, true or false", where, key,
                   sy_json_show(value, shown));
  }
  *value_out = json_is_boolean(value) ? (double)json_is_true(value) : json_number_value(value);
  return SY_OK;
}
