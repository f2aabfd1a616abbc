/* Measurements between ranks: figures that make sense, and waits that end. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "launch/probe.h"
#include "tests/support/harness.h"

enum { MAX_WORLD = 8 };

static void check_done(const struct probe *probe, bool done) {
  if (!CHECK(done)) {
    printf("    %s\n", probe->error);
  }
}

static void meet(struct probe *probe) {
  int ranks[MAX_WORLD] = {0};
  check_done(probe, probe_allgather(probe, "meeting", &probe->rank, ranks, sizeof ranks[0]));
  for (int r = 0; r < probe->world; ++r) {
    CHECK_EQ_I64(ranks[r], r);
  }
}

TEST(figures_make_sense) {
  struct probe probe;
  double ahead_s[MAX_WORLD] = {0.0};
  double seconds = 0.0;
  unsigned char with[MAX_WORLD];
  memset(with, 1, sizeof with);
  check_done(&probe, probe_open(&probe, sy_test_rank(), sy_test_world(), 60.0));
  meet(&probe);
  check_done(&probe, probe_clocks(&probe, ahead_s));
  for (int r = 0; r < probe.world; ++r) {
    CHECK(ahead_s[r] > -5.0 && ahead_s[r] < 5.0); /* one host has one clock */
  }
  for (int upper = 1; upper < probe.world; ++upper) {
    struct probe_link link = {0.0, 0.0};
    if (probe.rank == 0) {
      check_done(&probe, probe_pair(&probe, upper, &link));
      CHECK(link.latency_us > 0.0 && link.latency_us < 1e7);
      CHECK(link.bandwidth_gbs > 1e-6 && link.bandwidth_gbs < 1e4);
    } else if (probe.rank == upper) {
      check_done(&probe, probe_pair(&probe, 0, &link));
    }
    meet(&probe);
  }
  for (size_t block = 1; block <= PROBE_BUFFER_BYTES / (size_t)probe.world; block *= 64) {
    check_done(&probe, probe_exchange(&probe, with, block, &seconds));
    CHECK(seconds >= 0.0);
  }
  with[0] = with[probe.world - 1] = 0; /* these two keep out, and are kept out */
  if (probe.rank == 0 || probe.rank == probe.world - 1) {
    memset(with, 0, sizeof with);
  }
  check_done(&probe, probe_exchange(&probe, with, 1000, &seconds));
  meet(&probe);
  probe_close(&probe);
}

/* The last rank comes too late for rank 0, which names it. */
TEST(a_rank_that_stays_away_is_named) {
  struct probe probe;
  const int last = sy_test_world() - 1;
  int ranks[MAX_WORLD] = {0};
  CHECK(probe_open(&probe, sy_test_rank(), sy_test_world(), 1.0));
  if (probe.rank != last) {
    char expected[100];
    snprintf(expected, sizeof expected, "waiting: not heard within 1 s from rank %d",
             probe.rank == 0 ? last : 0); /* the others hear nothing from rank 0 */
    CHECK(!probe_allgather(&probe, "waiting", &probe.rank, ranks, sizeof ranks[0]));
    CHECK_EQ_STR(probe.error, expected);
  }
  MPI_Barrier(MPI_COMM_WORLD); /* after the deadlines of all the others */
  probe_close(&probe);
}
