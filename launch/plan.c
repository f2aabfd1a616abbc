/* switchyard plan: every buffer, wave and chunk of a shape at any world size. */
#include "launch/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "launch/command.h"
#include "launch/new_file.h"

static uint64_t min_u64(uint64_t a, uint64_t b) { return a < b ? a : b; }

/* exact: one row to each other rank with one of the token's experts; per_slot: one row back for
 * each slot. fixed and gather: one row to every other rank, and as many back as a row
 * has room for. */
static struct plan_traffic traffic_of(const struct plan_request *request,
                                      const struct plan_sheet *sheet) {
  const sy_plan_info *info = &sheet->info;
  const uint64_t others = (uint64_t)sheet->world - 1;
  const uint64_t top_k = (uint64_t)request->shape.top_k;
  const bool exact = info->strategy == SY_STRATEGY_EXACT;
  const uint64_t slots = request->desc.combine == SY_COMBINE_PER_SLOT
                             ? min_u64(top_k, (uint64_t)info->max_local_experts)
                             : 1;
  struct plan_traffic traffic;
  traffic.rows_out = exact ? min_u64(top_k, others) : others;
  traffic.rows_back = traffic.rows_out * slots;
  if (exact) {
    traffic.rows_back = min_u64(traffic.rows_back, top_k);
  }
  traffic.bytes_out = traffic.rows_out * info->row_bytes;
  traffic.bytes_back = traffic.rows_back * info->return_row_bytes;
  return traffic;
}

static int copy_buffers(struct session *session, const sy_plan *plan, struct plan_sheet *sheet) {
  size_t count = 0;
  sy_status status = sy_plan_describe(plan, NULL, 0, &count);
  if (status != SY_ERR_TOO_SMALL) {
    return session_fail_status(session, status, "");
  }
  sheet->buffers = calloc(count, sizeof *sheet->buffers);
  if (sheet->buffers == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  status = sy_plan_describe(plan, sheet->buffers, count, &sheet->num_buffers);
  return status == SY_OK ? CLI_OK : session_fail_status(session, status, "");
}

static int make_sheet(struct session *session, const struct plan_request *request, int32_t world,
                      struct plan_sheet *sheet) {
  sy_plan *plan = NULL;
  sy_plan_desc desc = request->desc;
  desc.shape = &request->shape;
  desc.world = world;
  sy_status status = sy_plan_create(&desc, &plan);
  if (status != SY_OK) {
    char where[32];
    snprintf(where, sizeof where, "world %d: ", (int)world);
    return session_fail_status(session, status, where);
  }
  sheet->world = world;
  sheet->info = (sy_plan_info)SY_PLAN_INFO_INIT;
  status = sy_plan_query(plan, &sheet->info);
  const int code = status == SY_OK ? copy_buffers(session, plan, sheet)
                                   : session_fail_status(session, status, "");
  sy_plan_destroy(plan);
  if (code == CLI_OK) {
    sheet->traffic = traffic_of(request, sheet);
  }
  return code;
}

static int make_sheets(struct session *session, const struct plan_request *request,
                       struct plan_sheet *sheets) {
  for (size_t i = 0; i < request->worlds.count; ++i) {
    const int code = make_sheet(session, request, (int32_t)request->worlds.values[i], &sheets[i]);
    if (code != CLI_OK) {
      return code;
    }
  }
  return CLI_OK;
}

/* What exact and gather would take, each planned for itself. */
static int find_rivals(struct session *session, const struct plan_request *request, int32_t world,
                       struct plan_rival rivals[2]) {
  static const sy_strategy strategies[2] = {SY_STRATEGY_EXACT, SY_STRATEGY_GATHER};
  for (int i = 0; i < 2; ++i) {
    struct plan_request other = *request;
    struct plan_sheet sheet = {.buffers = NULL};
    other.desc.strategy = strategies[i];
    const int code = make_sheet(session, &other, world, &sheet);
    free(sheet.buffers);
    if (code != CLI_OK) {
      return code;
    }
    rivals[i] = (struct plan_rival){.exchange_us = sheet.info.exchange_us,
                                    .token_bytes = sheet.info.exchange_traffic_bytes /
                                                   (double)request->desc.max_tokens};
  }
  return CLI_OK;
}

static int write_svg(struct session *session, const struct plan_request *request,
                     const struct plan_sheet *sheets, const struct plan_rival (*rivals)[2]) {
  struct new_file file;
  if (!new_file_open(&file, request->svg) ||
      !new_file_close(&file, plan_draw(request, sheets, rivals, request->worlds.count, file.out))) {
    return session_fail(session, CLI_FAILED, "--svg '%.200s' cannot be written: %s", request->svg,
                        strerror(errno));
  }
  return CLI_OK;
}

static int draw(struct session *session, const struct plan_request *request,
                const struct plan_sheet *sheets) {
  struct plan_rival(*rivals)[2] = calloc(request->worlds.count, sizeof *rivals);
  if (rivals == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  int code = CLI_OK;
  for (size_t i = 0; code == CLI_OK && i < request->worlds.count; ++i) {
    code = find_rivals(session, request, sheets[i].world, rivals[i]);
  }
  if (code == CLI_OK) {
    code = write_svg(session, request, sheets, (const struct plan_rival(*)[2])rivals);
  }
  free(rivals);
  return code;
}

static int print(struct session *session, const struct plan_request *request,
                 const struct plan_sheet *sheets) {
  const size_t count = request->worlds.count;
  const int code = request->svg != NULL ? draw(session, request, sheets) : CLI_OK;
  if (code != CLI_OK) {
    return code;
  }
  if (request->json) {
    if (!plan_print_json(request, sheets, count)) {
      return session_fail(session, CLI_FAILED, "out of memory");
    }
  } else if (count == 1) {
    plan_print_sheet(request, sheets);
  } else {
    plan_print_worlds(request, sheets, count);
  }
  return CLI_OK;
}

static void free_sheets(struct plan_sheet *sheets, size_t count) {
  for (size_t i = 0; sheets != NULL && i < count; ++i) {
    free(sheets[i].buffers);
  }
  free(sheets);
}

int plan_command(struct session *session, int argc, char **argv) {
  struct plan_request request = {.worlds = {.count = 0}};
  struct plan_sheet *sheets = NULL;
  int code = plan_options_parse(session, argc, argv, &request);
  if (code == CLI_OK) {
    sheets = calloc(request.worlds.count, sizeof *sheets);
    code = sheets == NULL ? session_fail(session, CLI_FAILED, "out of memory")
                          : make_sheets(session, &request, sheets);
  }
  code = session_agree(session, code);
  if (code == CLI_OK && session->rank == 0 && sheets != NULL) {
    code = print(session, &request, sheets);
  }
  free_sheets(sheets, request.worlds.count);
  return code;
}
