/* Cases that fail, hang and skip on purpose: check_harness.sh looks at what becomes of them. */
#include <stdio.h>
#include <unistd.h>

#include "tests/support/harness.h"

TEST(passes) { CHECK(sy_test_world() > 0); }

TEST(fails_on_the_last_rank) {
  const int last = sy_test_world() - 1;
  CHECK_EQ_I64(sy_test_rank() == last ? 41 : 42, 42);
}

TEST(fails_in_every_check) {
  CHECK(sy_test_world() == 0);
  CHECK_EQ_U64(1, 2);
  CHECK_EQ_STR("one", NULL);
  CHECK_EQ_BYTES("abc", "abd", 3);
  CHECK_STR_HAS("rank 3", "rank 4");
  CHECK_NEAR(0.0 / (double)(sy_test_world() - sy_test_world()), 0.0, 1.0);
  CHECK_OK(SY_ERR_PEER);
  printf("the case went on to its end\n");
}

TEST(is_stuck_on_the_last_rank) {
  while (sy_test_rank() == sy_test_world() - 1) {
    sleep(1);
  }
}

TEST(skips) { SKIP("there is nothing to test"); }
