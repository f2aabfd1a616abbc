#include "launch/link_file.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "launch/new_file.h"

struct reader {
  const char *path;
  char *error;
};

static bool fail(const struct reader *reader, const char *level, const char *key,
                 const char *what) {
  snprintf(reader->error, LAUNCH_ERROR_BYTES, "link file '%.150s': %s%s\"%s\" %s", reader->path,
           level, level[0] != '\0' ? " " : "", key, what);
  return false;
}

static bool read_number(const struct reader *reader, const json_t *object, const char *level,
                        const char *key, double min, double *value_out) {
  const json_t *value = json_object_get(object, key);
  char what[96];
  if (value == NULL) {
    return fail(reader, level, key, "is missing");
  }
  if (!json_is_number(value)) {
    return fail(reader, level, key, "is not a number");
  }
  const double number = json_number_value(value);
  if (!(number >= min && number <= LINK_MAX)) {
    snprintf(what, sizeof what, "is %g; allowed: %g..%g", number, min, LINK_MAX);
    return fail(reader, level, key, what);
  }
  *value_out = number;
  return true;
}

static bool read_level(const struct reader *reader, const json_t *root, const char *level,
                       sy_link_level *level_out) {
  const json_t *object = json_object_get(root, level);
  if (object == NULL) {
    return true;
  }
  if (!json_is_object(object)) {
    return fail(reader, "", level, "is not an object");
  }
  return read_number(reader, object, level, "latency_us", LINK_MIN, &level_out->latency_us) &&
         read_number(reader, object, level, "message_us", 0.0, &level_out->message_us) &&
         read_number(reader, object, level, "bandwidth_gbs", LINK_MIN, &level_out->bandwidth_gbs);
}

static bool read_root(const struct reader *reader, const json_t *root, sy_link *link) {
  const json_t *version = json_object_get(root, "switchyard_link");
  if (!json_is_integer(version) || json_integer_value(version) != 1) {
    return fail(reader, "", "switchyard_link", "is not 1: this is not a file of link figures");
  }
  const json_t *per_host = json_object_get(root, "ranks_per_host");
  if (!json_is_integer(per_host) || json_integer_value(per_host) < 0 ||
      json_integer_value(per_host) > 65536) {
    return fail(reader, "", "ranks_per_host", "is not a whole number in 0..65536");
  }
  link->ranks_per_host = (int32_t)json_integer_value(per_host);
  return read_level(reader, root, "in_host", &link->in_host) &&
         read_level(reader, root, "between_hosts", &link->between_hosts);
}

bool link_file_read(const char *path, sy_link *link, char error[LAUNCH_ERROR_BYTES]) {
  const struct reader reader = {path, error};
  json_error_t where;
  FILE *file = fopen(path, "re");
  if (file == NULL) {
    snprintf(error, LAUNCH_ERROR_BYTES, "link file '%.150s' cannot be read: %s", path,
             strerror(errno));
    return false;
  }
  json_t *root = json_loadf(file, JSON_REJECT_DUPLICATES, &where);
  fclose(file);
  if (root == NULL) {
    snprintf(error, LAUNCH_ERROR_BYTES, "link file '%.150s' is not JSON: line %d: %.150s", path,
             where.line, where.text);
    return false;
  }
  sy_link found = *link;
  const bool is_right = read_root(&reader, root, &found);
  json_decref(root);
  if (is_right) {
    *link = found;
  }
  return is_right;
}

static void add_level(json_t *root, const char *name, const sy_link_level *level) {
  json_object_set_new(root, name,
                      json_pack("{s:f, s:f, s:f}", "latency_us", level->latency_us, "message_us",
                                level->message_us, "bandwidth_gbs", level->bandwidth_gbs));
}

bool link_file_write(const char *path, const sy_link *link, const struct link_source *source,
                     char error[LAUNCH_ERROR_BYTES]) {
  char when[32];
  const time_t now = time(NULL);
  struct tm utc;
  strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
  json_t *root = json_pack("{s:i, s:i, s:s, s:i, s:i}", "switchyard_link", 1, "ranks_per_host",
                           (int)link->ranks_per_host, "measured_at", when, "measured_ranks",
                           (int)source->world, "measured_hosts", (int)source->num_hosts);
  if (source->has_in_host) {
    add_level(root, "in_host", &link->in_host);
  }
  if (source->has_between_hosts) {
    add_level(root, "between_hosts", &link->between_hosts);
  }
  struct new_file file;
  const bool written =
      root != NULL && new_file_open(&file, path) &&
      new_file_close(&file,
                     json_dumpf(root, file.out, JSON_INDENT(2) | JSON_REAL_PRECISION(6)) == 0);
  if (!written) {
    snprintf(error, LAUNCH_ERROR_BYTES, "link file '%.150s' cannot be written: %s", path,
             strerror(errno));
  }
  json_decref(root);
  return written;
}
