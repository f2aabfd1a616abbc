/* Over MPI nothing of ours is allocated after set-up. */
#include "tests/support/alloc_free.h"
#include "tests/support/harness.h"
#include "tests/support/spoil.h"
#include "tests/support/team.h"

TEST(forward_allocates_nothing) {
  for (int mode = 0; mode < 3; ++mode) {
    sy_shape shape = spoil_shape();
    shape.mode = (sy_mode)mode;
    struct team team;
    if (team_open(&team, &shape, 3 * sy_test_world() + 1)) {
      const struct token_split split = split_evenly(team.c.num_tokens, sy_test_world());
      check_forward_is_alloc_free(&team.rank, &split);
    }
    team_close(&team);
  }
}
