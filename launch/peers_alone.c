#include "launch/peers.h"

#include <stdlib.h>
#include <string.h>

bool peers_open(int *rank_out, int *world_out) {
  *rank_out = 0;
  *world_out = 1;
  return true;
}

bool peers_allgather(const void *mine, void *all, size_t bytes) {
  memcpy(all, mine, bytes);
  return true;
}

void peers_close(void) {}

void peers_abort(int exit_code) { exit(exit_code); }

const char *peers_library(void) { return NULL; }
