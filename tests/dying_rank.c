/* A rank dies in the middle of its work. Not a test by itself: check_dying_rank.sh starts it. Each
 * rank leaves its process id in the folder that SY_TEST_DIR names, and rank 1 its last word. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tests/support/harness.h"
#include "tests/support/layer_case.h"
#include "tests/support/team.h"

static void leave_process_id(const char *name) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s.%d", getenv("SY_TEST_DIR"), name, sy_test_rank());
  FILE *file = fopen(path, "w");
  if (CHECK(file != NULL)) {
    fprintf(file, "%ld\n", (long)getpid());
    fclose(file);
  }
}

TEST(rank_1_dies) {
  const sy_shape shape = small_shape(SY_MODE_W4A4, 64, 64, 8, 2);
  struct team team;
  leave_process_id("pid");
  if (team_open(&team, &shape, 16)) {
    const struct call_options options = {.strategy = SY_STRATEGY_EXACT};
    const struct token_split split = split_evenly(16, sy_test_world());
    void *outputs = layer_case_outputs(&team.c, SY_DTYPE_BF16);
    for (int i = 0; i < 5; ++i) {
      layer_rank_run(&team.rank, &options, &split, outputs);
    }
    if (sy_test_rank() == 1) {
      leave_process_id("dying");
      raise(SIGKILL);
    }
    layer_rank_run(&team.rank, &options, &split, outputs);
  }
  team_close(&team);
}
