/* What `switchyard plan` is asked (plan_options.c), works out (plan.c), prints (plan_table.c,
 * plan_json.c) and draws (plan_svg.c). */
#ifndef LAUNCH_PLAN_H
#define LAUNCH_PLAN_H

#include <stdbool.h>
#include <stdio.h>

#include "launch/layer_options.h"

struct plan_request {
  const char *model; /* NULL: given by its numbers */
  sy_shape shape;
  sy_plan_desc desc; /* all but shape and world */
  struct value_list worlds;
  bool json;
  const char *svg; /* NULL: no picture */
};

extern const struct option_choice plan_strategies[];
extern const struct option_choice plan_combines[];
extern const struct option_choice plan_dtypes[];

int plan_options_parse(struct session *session, int argc, char **argv,
                       struct plan_request *request_out);

/* The most that one token moves between ranks; experts on its own rank cost nothing here. */
struct plan_traffic {
  uint64_t rows_out, rows_back;
  uint64_t bytes_out, bytes_back;
};

/* One world size. */
struct plan_sheet {
  int32_t world;
  sy_plan_info info;
  struct plan_traffic traffic;
  sy_buffer_info *buffers;
  size_t num_buffers;
};

void plan_print_sheet(const struct plan_request *request, const struct plan_sheet *sheet);
void plan_print_worlds(const struct plan_request *request, const struct plan_sheet *sheets,
                       size_t count);

/* A sheet with another strategy than the one that the plan has taken, for comparison. */
struct plan_rival {
  double exchange_us;
  double token_bytes; /* expected, of one token, out and back */
};

/* Curves over the worlds: `rivals` holds exact and gather for each. False: the file's error state
 * tells. */
bool plan_draw(const struct plan_request *request, const struct plan_sheet *sheets,
               const struct plan_rival (*rivals)[2], size_t count, FILE *out);

/* False: out of memory. */
bool plan_print_json(const struct plan_request *request, const struct plan_sheet *sheets,
                     size_t count);

#endif
