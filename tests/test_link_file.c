/* Files of link figures: what was written is read back; what is absurd is named. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "launch/link_file.h"
#include "tests/support/harness.h"

static const sy_link defaults = {.in_host = {2.0, 0.3, 8.0}, .between_hosts = {30.0, 1.0, 1.2}};

/* A new file with this text; the caller unlinks it. */
static bool write_file(char path[64], const char *text) {
  snprintf(path, 64, "/tmp/switchyard_link_XXXXXX");
  const int file = mkstemp(path);
  const size_t length = strlen(text);
  const bool written = CHECK(file >= 0 && write(file, text, length) == (ssize_t)length);
  close(file);
  return written;
}

static void check_level(const sy_link_level *a, const sy_link_level *b) {
  CHECK_NEAR(a->latency_us, b->latency_us, 1e-5 * b->latency_us);
  CHECK_NEAR(a->message_us, b->message_us, 1e-5 * b->message_us);
  CHECK_NEAR(a->bandwidth_gbs, b->bandwidth_gbs, 1e-5 * b->bandwidth_gbs);
}

TEST(what_was_written_is_read) {
  const sy_link written = {
      .in_host = {1.25, 0.0, 23.456789}, .between_hosts = {41.5, 2.5, 0.0125}, .ranks_per_host = 4};
  char path[64];
  char error[LAUNCH_ERROR_BYTES] = "";
  if (!write_file(path, "")) {
    return;
  }
  for (int levels = 0; levels < 4; ++levels) {
    const struct link_source source = {8, 2, (levels & 1) != 0, (levels & 2) != 0};
    sy_link read = defaults;
    CHECK(link_file_write(path, &written, &source, error));
    CHECK(link_file_read(path, &read, error));
    CHECK_EQ_I64(read.ranks_per_host, 4);
    check_level(&read.in_host, (levels & 1) != 0 ? &written.in_host : &defaults.in_host);
    check_level(&read.between_hosts,
                (levels & 2) != 0 ? &written.between_hosts : &defaults.between_hosts);
  }
  CHECK_EQ_STR(error, "");
  unlink(path);
}

#define LEVEL(latency, message, bandwidth) \
  "{\"latency_us\": " latency ", \"message_us\": " message ", \"bandwidth_gbs\": " bandwidth "}"
#define FILE_OF(rest) "{\"switchyard_link\": 1, \"ranks_per_host\": 2" rest "}"

TEST(absurd_files_are_refused) {
  static const struct {
    const char *text, *part;
  } cases[] = {
      {"", "is not JSON: line 1"},
      {"{\"switchyard_link\": 1", "is not JSON"},
      {"[1]", "\"switchyard_link\" is not 1"},
      {"{\"plans\": []}", "\"switchyard_link\" is not 1: this is not a file of link figures"},
      {"{\"switchyard_link\": 2}", "\"switchyard_link\" is not 1"},
      {"{\"switchyard_link\": 1}", "\"ranks_per_host\" is not a whole number in 0..65536"},
      {"{\"switchyard_link\": 1, \"ranks_per_host\": -1}", "\"ranks_per_host\" is not"},
      {FILE_OF(", \"in_host\": 3"), "\"in_host\" is not an object"},
      {FILE_OF(", \"in_host\": {}"), "in_host \"latency_us\" is missing"},
      {FILE_OF(", \"in_host\": " LEVEL("\"2\"", "1", "1")),
       "in_host \"latency_us\" is not a number"},
      {FILE_OF(", \"in_host\": " LEVEL("0", "1", "1")),
       "in_host \"latency_us\" is 0; allowed: 0.001..1e+06"},
      {FILE_OF(", \"in_host\": " LEVEL("2", "-1", "1")),
       "in_host \"message_us\" is -1; allowed: 0.."},
      {FILE_OF(", \"in_host\": " LEVEL("2", "1", "1e9")), "\"bandwidth_gbs\" is 1e+09; allowed:"},
      {FILE_OF(", \"between_hosts\": " LEVEL("2", "1", "1e999")), "is not JSON"},
      {FILE_OF(", \"between_hosts\": " LEVEL("2", "1", "-5")),
       "between_hosts \"bandwidth_gbs\" is -5; allowed:"},
      {FILE_OF(", \"ranks_per_host\": 3"), "is not JSON"}, /* a key twice */
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; ++i) {
    char path[64];
    char error[LAUNCH_ERROR_BYTES] = "";
    sy_link link = defaults;
    if (!write_file(path, cases[i].text)) {
      return;
    }
    CHECK(!link_file_read(path, &link, error));
    CHECK_STR_HAS(error, cases[i].part);
    CHECK_STR_HAS(error, path);
    CHECK_EQ_BYTES(&link, &defaults, sizeof link);
    unlink(path);
  }
  sy_link link = defaults;
  char error[LAUNCH_ERROR_BYTES] = "";
  CHECK(!link_file_read("/no/such.json", &link, error));
  CHECK_EQ_STR(error, "link file '/no/such.json' cannot be read: No such file or directory");
  CHECK(!link_file_write("/no/such.json", &link, &(struct link_source){1, 1, true, true}, error));
  CHECK_STR_HAS(error, "link file '/no/such.json' cannot be written");
}
