#include <inttypes.h>
#include <jansson.h>
#include <string.h>

#include "launch/doctor.h"
#include "launch/options.h"
#include "launch/plan.h"
#include "launch/text.h"

/* Matrices of more ranks are left to JSON. */
#define MAX_MATRIX 9

static const char *const verdict_names[] = {"ok", "warning", "BROKEN"};
static const char *const level_names[] = {"in a host", "between hosts", "all"};
static const char *const level_keys[] = {"in_host", "between_hosts", "all"};

static const struct probe_link *pair_of(const struct doctor_sheet *sheet, int32_t a, int32_t b) {
  return &sheet->pairs[(size_t)a * (size_t)sheet->world + (size_t)b];
}

/* ---- Text ---- */

static void print_findings(const struct text_style *style, const struct doctor_sheet *sheet) {
  for (int32_t i = 0; i < sheet->num_findings; ++i) {
    const struct doctor_finding *finding = &sheet->findings[i];
    printf("  %s%-8s%s %s%-11s%s ", finding->verdict == DOCTOR_BROKEN ? style->bold : "",
           verdict_names[finding->verdict], style->end, style->dim, finding->topic, style->end);
    text_wrap(stdout, 23, finding->text);
  }
}

static void print_levels(const struct text_style *style, const struct doctor_sheet *sheet) {
  printf("\n%sLinks%s\n", style->bold, style->end);
  printf("%s  %-14s  %5s  %21s  %21s  %21s%s\n", style->dim, "", "", "latency, us",
         "bandwidth, GB/s", "all at once, GB/s", style->end);
  printf("%s  %-14s  %5s  %10s %10s  %10s %10s  %10s %10s%s\n", style->dim, "", "pairs", "median",
         "worst", "median", "worst", "median", "slowest", style->end);
  for (int level = 0; level < DOCTOR_LEVELS; ++level) {
    const struct doctor_level *sums = &sheet->levels[level];
    const bool is_repetition =
        level == DOCTOR_ALL && (sheet->levels[DOCTOR_IN_HOST].num_pairs == 0 ||
                                sheet->levels[DOCTOR_BETWEEN].num_pairs == 0);
    if (sums->num_pairs > 0 && !is_repetition) {
      printf("  %-14s  %5d  %10.4g %10.4g  %10.4g %10.4g  %10.4g %10.4g\n", level_names[level],
             sums->num_pairs, sums->latency_us, sums->worst_latency_us, sums->bandwidth_gbs,
             sums->worst_bandwidth_gbs, sums->exchange_gbs, sums->slowest_gbs);
    }
  }
}

/* Bandwidths, with ! behind slow pairs. */
static void print_matrix(const struct text_style *style, const struct doctor_sheet *sheet) {
  printf("\n%sBandwidth of each pair, GB/s%s%s  (! far below what the median rank reaches)%s\n",
         style->bold, style->end, style->dim, style->end);
  printf("%s  rank  host            ", style->dim);
  for (int32_t b = 0; b < sheet->world; ++b) {
    printf("%7d ", b);
  }
  printf("%s\n", style->end);
  for (int32_t a = 0; a < sheet->world; ++a) {
    printf("  %4d  %-15.15s ", a, sheet->facts[a].host);
    for (int32_t b = 0; b < sheet->world; ++b) {
      if (a == b) {
        printf("%7s ", "-");
      } else {
        printf("%7.3g%s", pair_of(sheet, a, b)->bandwidth_gbs,
               doctor_pair_is_slow(sheet, a, b) ? "!" : " ");
      }
    }
    printf("\n");
  }
}

/* Which strategy auto takes with the measured link. */
static void strategy_sentence(const struct doctor_sheet *sheet, char *text, size_t bytes) {
  const sy_plan_info *plan = &sheet->plan;
  const bool is_gather = plan->strategy == SY_STRATEGY_GATHER;
  char taken[TEXT_SIZE];
  char other[TEXT_SIZE];
  if (plan->max_waves == 0) {
    snprintf(text, bytes, "unknown: there is no plan");
  } else if (sheet->world == 1) {
    snprintf(text, bytes, "exact; one rank exchanges nothing");
  } else {
    snprintf(text, bytes,
             "%s (%s) for %s and %" PRId64 " tokens a rank: by these links the exchange takes %s, "
             "against %s by %s",
             option_choice_name(plan_strategies, (int)plan->strategy),
             is_gather ? "every row to every rank" : "dispatch: rows only where they are needed",
             sheet->model, sheet->max_tokens,
             text_time(taken, is_gather ? plan->auto_gather_us : plan->auto_dispatch_us),
             text_time(other, is_gather ? plan->auto_dispatch_us : plan->auto_gather_us),
             is_gather ? "exact" : "gather");
  }
}

void doctor_print_text(const struct doctor_sheet *sheet) {
  const struct text_style style = text_style_of_stdout();
  char words[600];
  printf("%sDoctor%s  %d rank%s on %d host%s\n\n", style.bold, style.end, (int)sheet->world,
         sheet->world == 1 ? "" : "s", (int)sheet->num_hosts, sheet->num_hosts == 1 ? "" : "s");
  print_findings(&style, sheet);
  if (sheet->world > 1) {
    print_levels(&style, sheet);
  }
  if (sheet->world > 1 && sheet->world <= MAX_MATRIX) {
    print_matrix(&style, sheet);
  }
  printf("\n%sauto takes%s ", style.bold, style.end);
  strategy_sentence(sheet, words, sizeof words);
  text_wrap(stdout, 11, words);
}

/* ---- JSON ---- */

static json_t *level_json(const struct doctor_level *sums) {
  return json_pack("{s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "pairs", (int)sums->num_pairs,
                   "latency_us", sums->latency_us, "worst_latency_us", sums->worst_latency_us,
                   "bandwidth_gbs", sums->bandwidth_gbs, "worst_bandwidth_gbs",
                   sums->worst_bandwidth_gbs, "best_gbs", sums->best_gbs, "all_at_once_gbs",
                   sums->exchange_gbs, "slowest_all_at_once_gbs", sums->slowest_gbs, "message_us",
                   sums->message_us);
}

static json_t *rank_json(const struct doctor_sheet *sheet, int32_t rank) {
  const struct doctor_facts *f = &sheet->facts[rank];
  char fingerprint[24];
  char hash[24];
  snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, f->fingerprint);
  snprintf(hash, sizeof hash, "%016" PRIx64, f->plan_hash);
  return json_pack(
      "{s:i, s:s, s:s, s:s, s:s, s:i, s:i, s:s, s:s, s:I, s:I, s:f, s:f, s:i, s:s, s:i, s:i}",
      "rank", (int)rank, "host", f->host, "library", f->library, "mpi", f->mpi, "place", f->place,
      "local_ranks", (int)f->local_size, "usable_cores", (int)f->usable_cores,
      "checkpoint_fingerprint", fingerprint, "plan_hash", hash, "memory_available_bytes",
      (json_int_t)f->available_bytes, "memory_needed_bytes", (json_int_t)f->needed_bytes,
      "clock_ahead_s", sheet->ahead_s[rank], "all_to_all_gbs", sheet->exchange_gbs[rank], "gpus",
      (int)f->devices.num_gpus, "gpu", f->devices.gpu_name, "cuda_driver", (int)f->devices.driver,
      "nccl", (int)f->devices.nccl);
}

static json_t *pairs_json(const struct doctor_sheet *sheet) {
  json_t *list = json_array();
  for (int32_t a = 0; a < sheet->world; ++a) {
    for (int32_t b = a + 1; b < sheet->world; ++b) {
      const struct probe_link *pair = pair_of(sheet, a, b);
      json_array_append_new(list, json_pack("{s:[i, i], s:b, s:f, s:f, s:b}", "ranks", (int)a,
                                            (int)b, "same_host",
                                            sheet->host_of[a] == sheet->host_of[b], "latency_us",
                                            pair->latency_us, "bandwidth_gbs", pair->bandwidth_gbs,
                                            "slow", (int)doctor_pair_is_slow(sheet, a, b)));
    }
  }
  return list;
}

static json_t *levels_json(const struct doctor_sheet *sheet) {
  json_t *object = json_object();
  for (int level = 0; level < DOCTOR_LEVELS; ++level) {
    if (sheet->levels[level].num_pairs > 0) {
      json_object_set_new(object, level_keys[level], level_json(&sheet->levels[level]));
    }
  }
  return object;
}

static json_t *strategy_json(const struct doctor_sheet *sheet) {
  char words[600];
  strategy_sentence(sheet, words, sizeof words);
  return json_pack("{s:s, s:f, s:f, s:s}", "auto",
                   sheet->plan.max_waves == 0
                       ? "unknown"
                       : option_choice_name(plan_strategies, (int)sheet->plan.strategy),
                   "predicted_exact_us", sheet->plan.auto_dispatch_us, "predicted_gather_us",
                   sheet->plan.auto_gather_us, "why", words);
}

bool doctor_print_json(const struct doctor_sheet *sheet) {
  json_t *ranks = json_array();
  json_t *findings = json_array();
  bool is_broken = false;
  for (int32_t r = 0; r < sheet->world; ++r) {
    json_array_append_new(ranks, rank_json(sheet, r));
  }
  for (int32_t i = 0; i < sheet->num_findings; ++i) {
    const struct doctor_finding *f = &sheet->findings[i];
    is_broken = is_broken || f->verdict == DOCTOR_BROKEN;
    json_array_append_new(findings,
                          json_pack("{s:s, s:s, s:s}", "verdict", verdict_names[f->verdict],
                                    "topic", f->topic, "text", f->text));
  }
  json_t *root = json_pack("{s:i, s:i, s:b, s:o, s:o, s:o, s:o, s:o}", "world", (int)sheet->world,
                           "hosts", (int)sheet->num_hosts, "would_run", (int)!is_broken, "findings",
                           findings, "links", levels_json(sheet), "strategy", strategy_json(sheet),
                           "ranks", ranks, "pairs", pairs_json(sheet));
  if (root == NULL) {
    return false;
  }
  json_dumpf(root, stdout, JSON_INDENT(2)); /* main looks at stdout's error state */
  putchar('\n');
  json_decref(root);
  return true;
}
