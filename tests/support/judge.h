/* Judges the experts stage of a road, chunk by chunk, each step from what really entered it: FC1
 * from the received rows, the stored intermediate from the kernel's own FC1, FC2 from the kernel's
 * own intermediate. */
#ifndef SY_TESTS_SUPPORT_JUDGE_H
#define SY_TESTS_SUPPORT_JUDGE_H

#include "tests/support/oracle.h"
#include "tests/support/road.h"

struct judge {
  struct oracle_layer layer;
  int64_t routed_rows; /* judged */
};

/* The oracle's layer of a road's experts. */
void judge_begin(struct judge *judge, const struct road *road);
void judge_end(struct judge *judge);

/* A road_judge; user is the struct judge. */
void judge_experts(const struct road *road, int32_t rank, const struct road_chunk *chunk,
                   void *user);

/* The distance of all outputs from the oracle's, relative L2 over tokens that are finite. */
double judge_outputs(const struct judge *judge, const struct road *road);

#endif
