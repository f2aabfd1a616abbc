#include <string.h>

#include "launch/probe.h"

bool probe_open(struct probe *probe, int rank, int world, double timeout_s) {
  *probe = (struct probe){.rank = rank, .world = world, .timeout_s = timeout_s};
  return true;
}

void probe_close(struct probe *probe) { (void)probe; }

bool probe_allgather(struct probe *probe, const char *what, const void *mine, void *all,
                     size_t bytes) {
  (void)probe;
  (void)what;
  memcpy(all, mine, bytes);
  return true;
}

bool probe_clocks(struct probe *probe, double *ahead_s_out) {
  (void)probe;
  ahead_s_out[0] = 0.0;
  return true;
}

/* A world of one rank has no peers. */
bool probe_pair(struct probe *probe, int peer, struct probe_link *link_out) {
  (void)probe;
  (void)peer;
  (void)link_out;
  return true;
}

bool probe_exchange(struct probe *probe, const unsigned char *with, size_t block,
                    double *seconds_out) {
  (void)probe;
  (void)with;
  (void)block;
  *seconds_out = 0.0;
  return true;
}
