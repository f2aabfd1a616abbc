/* Typed, range-checked reading of JSON. `where` begins every error text: the file,
 * and what in it. */
#ifndef SY_RUNTIME_CHECKPOINT_JSON_H
#define SY_RUNTIME_CHECKPOINT_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/switchyard.h"

/* Parses an object. Duplicate keys are errors, and so are brackets other than nesting[depth]:
 * "{{[" is an object of objects of arrays. That bounds the recursion. nesting NULL: any, up to
 * jansson's 2048 levels.
 *
 * Memory, until the object is released: at most 40 times the text with a nesting, which also limits
 * the number of brackets, and 100 times without. */
sy_status sy_json_parse(const char *where, const char *text, size_t bytes, const char *nesting,
                        json_t **root_out);

/* Whether a control character of C0 or C1 begins here, which a terminal would obey. */
bool sy_is_control(const char *utf8);

/* A value as an error text shows it: cut short, without control characters; "missing" for NULL. */
#define SY_JSON_SHOWN_BYTES 48
const char *sy_json_show(const json_t *value, char shown[SY_JSON_SHOWN_BYTES]);

/* An integer in [min, max], a string (borrowed), an array (borrowed): FORMAT when the key is
 * missing, or its value something else. */
sy_status sy_json_int(const char *where, const json_t *object, const char *key, int64_t min,
                      int64_t max, int64_t *value_out);
sy_status sy_json_string(const char *where, const json_t *object, const char *key,
                         const char **value_out);
sy_status sy_json_array(const char *where, const json_t *object, const char *key,
                        const json_t **value_out);

/* The same of an array's element; array_key is its name. */
sy_status sy_json_int_at(const char *where, const json_t *array, const char *array_key, size_t idx,
                         int64_t min, int64_t max, int64_t *value_out);

/* A number, or true and false as 1 and 0. */
sy_status sy_json_number(const char *where, const json_t *object, const char *key,
                         double *value_out);

#endif
