#include "report.h"

#include <inttypes.h>
#include <stdlib.h>

enum lm_exit lm_report_gather(struct lm_report *report, struct lm_team *team, sy_group *group) {
  report->world = team->world;
  struct lm_rank_report mine = {.stats = SY_STATS_INIT, .threads = team->threads};
  snprintf(mine.place, sizeof mine.place, "%s", team->bind.sentence);
  const sy_status status = sy_group_stats(group, 0, &mine.stats);
  enum lm_exit code = LM_OK;
  if (status != SY_OK) {
    code = lm_fail_status(team, status, LM_OTHER, "reading the counters");
  }
  if (code == LM_OK && team->rank == 0) {
    report->ranks = calloc((size_t)team->world, sizeof *report->ranks);
    if (report->ranks == NULL) {
      code = lm_fail(team, LM_OTHER, "out of memory for the counters of %d ranks", team->world);
    }
  }
  code = lm_team_agree(team, code);
  return code == LM_OK ? lm_team_gather(team, &mine, sizeof mine, report->ranks) : code;
}

void lm_report_destroy(struct lm_report *report) { free(report->ranks); }

static double active_share(const sy_stats *stats) {
  return stats->local_experts == 0 ? 0.0
                                   : (double)stats->active_experts / (double)stats->local_experts;
}

void lm_report_print(const struct lm_report *report, FILE *file) {
  fprintf(file, "%4s %9s %9s %9s %7s %9s %9s  %s\n", "", "", "received", "routed", "active", "sent",
          "received", "milliseconds in");
  fprintf(file, "%4s %9s %9s %9s %7s %9s %9s %7s %7s %8s %7s %8s %7s %7s %7s\n", "rank", "tokens",
          "rows", "rows", "experts", "MB", "MB", "route", "pack", "dispatch", "group", "experts",
          "reduce", "return", "combine");
  for (int32_t rank = 0; rank < report->world; ++rank) {
    const sy_stats *s = &report->ranks[rank].stats;
    fprintf(file,
            "%4d %9" PRIu64 " %9" PRIu64 " %9" PRIu64 " %5.1f %% %9.3f %9.3f"
            " %7.1f %7.1f %8.1f %7.1f %8.1f %7.1f %7.1f %7.1f\n",
            rank, s->tokens, s->received_rows, s->routed_rows, 100.0 * active_share(s),
            1e-6 * (double)s->bytes_sent, 1e-6 * (double)s->bytes_received,
            1e-6 * (double)s->route_ns, 1e-6 * (double)s->pack_ns, 1e-6 * (double)s->dispatch_ns,
            1e-6 * (double)s->group_ns, 1e-6 * (double)s->experts_ns, 1e-6 * (double)s->reduce_ns,
            1e-6 * (double)s->return_ns, 1e-6 * (double)s->combine_ns);
  }
}

static json_t *rank_json(int32_t rank, const struct lm_rank_report *report) {
  const sy_stats *s = &report->stats;
  const struct {
    const char *key;
    uint64_t value;
  } fields[] = {{"forwards", s->forwards},
                {"waves", s->waves},
                {"tokens", s->tokens},
                {"received_rows", s->received_rows},
                {"routed_rows", s->routed_rows},
                {"active_experts", s->active_experts},
                {"local_experts", s->local_experts},
                {"bytes_sent", s->bytes_sent},
                {"bytes_received", s->bytes_received},
                {"route_ns", s->route_ns},
                {"pack_ns", s->pack_ns},
                {"dispatch_ns", s->dispatch_ns},
                {"group_ns", s->group_ns},
                {"experts_ns", s->experts_ns},
                {"reduce_ns", s->reduce_ns},
                {"return_ns", s->return_ns},
                {"combine_ns", s->combine_ns}};
  json_t *object = json_pack("{s:i, s:i, s:s}", "rank", (int)rank, "threads", (int)report->threads,
                             "place", report->place);
  for (size_t i = 0; i < sizeof fields / sizeof fields[0]; ++i) {
    json_object_set_new(object, fields[i].key, json_integer((json_int_t)fields[i].value));
  }
  json_object_set_new(object, "active_share", json_real(active_share(s)));
  return object;
}

json_t *lm_report_json(const struct lm_report *report, const struct lm_options *options) {
  json_t *ranks = json_array();
  for (int32_t rank = 0; rank < report->world; ++rank) {
    json_array_append_new(ranks, rank_json(rank, &report->ranks[rank]));
  }
  return json_pack("{s:i, s:s, s:s, s:s, s:f, s:o}", "world", (int)report->world, "quant",
                   lm_quant_name(options->quant), "combine", lm_combine_name(options->combine),
                   "return", lm_return_name(options->return_dtype), "seconds", report->seconds,
                   "ranks", ranks);
}

enum lm_exit lm_print_json(struct lm_team *team, json_t *object) {
  const int failed = object == NULL || json_dumpf(object, stdout, JSON_INDENT(2)) != 0;
  json_decref(object);
  if (failed) {
    return lm_fail(team, LM_OTHER, "writing JSON: out of memory, or standard output is closed");
  }
  fputc('\n', stdout);
  return LM_OK;
}
