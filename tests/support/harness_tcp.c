/* The world that tests/gpu/local_ranks.sh started: ranks that come together at an address. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "comm/clock.h"
#include "comm/side.h"
#include "runtime/status.h"
#include "tests/support/world.h"

static struct sy_side *side;

static int64_t deadline(void) { return sy_clock_ns() + INT64_C(120000000000); }

/* One that does not come, or leaves, ends the program: nothing can be said of the case any more. */
static void gather(const void *mine, size_t bytes, void *all) {
  if (side->ops->allgather(side, mine, bytes, all, deadline()) != SY_OK) {
    fprintf(stderr, "rank %d: the ranks have lost each other\n", (int)side->rank);
    _Exit(1);
  }
}

int sy_test_world_begin(int *rank_out, int *world_out) {
  const char *rank = getenv("SY_TEST_RANK");
  const char *world = getenv("SY_TEST_WORLD");
  const char *address = getenv("SY_TEST_ADDRESS");
  if (rank == NULL || world == NULL || address == NULL) {
    fprintf(stderr, "start this by tests/gpu/local_ranks.sh\n");
    return 0;
  }
  *rank_out = atoi(rank);
  *world_out = atoi(world);
  if (sy_side_create_tcp(address, *rank_out, *world_out, deadline(), &side) != SY_OK) {
    fprintf(stderr, "rank %s: %s\n", rank, sy_last_error(NULL));
    return 0;
  }
  return 1;
}

int sy_test_world_sum(int value) {
  int *all = malloc((size_t)side->world * sizeof *all);
  int sum = 0;
  gather(&value, sizeof value, all);
  for (int32_t r = 0; r < side->world; ++r) {
    sum += all[r];
  }
  free(all);
  return sum;
}

/* Parts differ in size: each travels as if it were the largest. */
void sy_test_world_share(void *all, const size_t *begins) {
  size_t most = 1;
  for (int32_t r = 0; r < side->world; ++r) {
    const size_t bytes = begins[r + 1] - begins[r];
    most = bytes > most ? bytes : most;
  }
  unsigned char *mine = calloc(1, most);
  unsigned char *padded = malloc((size_t)side->world * most);
  const int32_t rank = side->rank;
  memcpy(mine, (unsigned char *)all + begins[rank], begins[rank + 1] - begins[rank]);
  gather(mine, most, padded);
  for (int32_t r = 0; r < side->world; ++r) {
    memcpy((unsigned char *)all + begins[r], padded + (size_t)r * most, begins[r + 1] - begins[r]);
  }
  free(mine);
  free(padded);
}

int sy_test_world_end(void) {
  sy_test_world_sum(0); /* nobody leaves before all are done */
  side->ops->destroy(side);
  return 0;
}
