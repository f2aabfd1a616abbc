/* The harness itself: what the other tests lean on. */
#include "tests/support/harness.h"

TEST(checks_that_hold_say_so) {
  CHECK(CHECK_EQ_I64(-3, 2 - 5));
  CHECK(CHECK_EQ_U64(UINT64_MAX, 0u - (uint64_t)1));
  CHECK(CHECK_EQ_STR("rank", "rank"));
  CHECK(CHECK_STR_HAS("rank 3 is missing", "rank 3"));
  CHECK(CHECK_EQ_BYTES("abc", "abd", 2));
  CHECK(CHECK_NEAR(1.0, 1.25, 0.25));
}

TEST(a_unit_test_is_a_world_of_one) {
  CHECK_EQ_I64(sy_test_rank(), 0);
  CHECK_EQ_I64(sy_test_world(), 1);
}

TEST(random_numbers_stay_in_their_range) {
  bool seen[5] = {false};
  for (int i = 0; i < 1000; ++i) {
    const int64_t x = sy_test_random_between(-2, 2);
    if (!CHECK(x >= -2 && x <= 2)) {
      return;
    }
    seen[x + 2] = true;
    const double u = sy_test_random_unit();
    CHECK(u >= 0.0 && u < 1.0);
  }
  for (int i = 0; i < 5; ++i) {
    CHECK(seen[i]);
  }
}
