#include <jansson.h>

#include "launch/bench.h"
#include "launch/text.h"

const char *bench_unit_name(enum rate_unit unit) {
  static const char *const names[RATE_UNITS] = {
      [RATE_INT8] = "int8", [RATE_BF16] = "bf16", [RATE_F32] = "f32"};
  return names[unit];
}

/* ---- A table ------------------------------------------------------------------------------- */

static void print_head(const struct text_style *style, const struct bench_report *report) {
  const struct bench_request *request = report->request;
  const sy_shape *shape = &request->shape;
  printf("%sbench %s%s%s%s%s\n", style->bold, request->name, request->model == NULL ? "" : ", ",
         request->model == NULL ? "" : request->model, style->end, "");
  char words[400];
  snprintf(words, sizeof words,
           "hidden %d, intermediate %d, %d experts, top-%d, %s%s, %s%s%s, numerics %s",
           (int)shape->hidden, (int)shape->intermediate, (int)shape->num_experts, (int)shape->top_k,
           option_choice_name(layer_activations, (int)shape->activation),
           shape->has_bias != 0 ? " with biases" : "",
           option_choice_name(layer_modes, (int)shape->mode),
           shape->mode == SY_MODE_BF16 ? "" : " of ",
           shape->mode == SY_MODE_BF16 ? "" : option_choice_name(layer_formats, (int)shape->format),
           option_choice_name(bench_numerics, (int)request->numerics));
  printf("  Layer    ");
  text_wrap(stdout, 11, words);
  printf("  Kernels  ");
  text_wrap(stdout, 11, sy_backend());
  printf("  Limits   %d threads: read %.1f GB/s, copied %.1f GB/s", report->num_threads,
         report->read_gbs, report->copy_gbs);
  for (int unit = 0; unit < RATE_UNITS; ++unit) {
    if (report->rate_gops[unit] > 0.0) {
      printf(", %s %.0f G/s", bench_unit_name((enum rate_unit)unit), report->rate_gops[unit]);
    }
  }
  printf("\n");
  if (request->checkpoint != NULL) {
    printf("  Files    in the page cache: ");
    text_wrap(stdout, 11, request->checkpoint);
  }
  printf("\n");
}

static void print_load(const struct text_style *style, const struct bench_result *r) {
  char source[TEXT_SIZE];
  char p50[TEXT_SIZE];
  char p99[TEXT_SIZE];
  printf("%s  expert of  loads      p50        p99    GB/s  of copied  wrong%s\n", style->dim,
         style->end);
  printf("  %9s  %5lld  %9s  %9s  %6.2f  %8.0f%%  %5lld\n",
         text_bytes(source, (uint64_t)r->weight_bytes), (long long)r->calls,
         text_time(p50, r->p50_us), text_time(p99, r->p99_us), r->gbs, 100.0 * r->share_bytes,
         (long long)r->wrong);
}

static void print_files(const struct text_style *style, const struct bench_result *r) {
  char source[TEXT_SIZE];
  char p50[TEXT_SIZE];
  char p99[TEXT_SIZE];
  printf("%s   bytes read  layers  loads        p50        p99    GB/s  read plainly  of it  of "
         "copied%s\n",
         style->dim, style->end);
  printf("  %11s  %6d  %5lld  %9s  %9s  %6.2f  %7.1f GB/s  %4.0f%%  %8.0f%%\n",
         text_bytes(source, (uint64_t)r->weight_bytes), (int)r->layers, (long long)r->calls,
         text_time(p50, r->p50_us), text_time(p99, r->p99_us), r->gbs, r->limit_file_gbs,
         100.0 * r->share_file, 100.0 * r->share_bytes);
}

void bench_print_table(const struct bench_report *report) {
  const struct text_style style = text_style_of_stdout();
  const bool layer = report->request->kind == BENCH_LAYER;
  print_head(&style, report);
  if (report->request->checkpoint != NULL) {
    print_files(&style, report->results);
    return;
  }
  if (report->request->kind == BENCH_LOAD) {
    print_load(&style, report->results);
    return;
  }
  char head[TEXT_SIZE] = "  around";
  if (!layer) {
    snprintf(head, sizeof head, "  G/s  of %4s", bench_unit_name(report->unit));
  }
  printf("%s     T   rows  experts       p50       p99     floor  of it   GB/s  of read  %s  "
         "wrong%s\n",
         style.dim, head, style.end);
  for (size_t i = 0; i < report->num_results; ++i) {
    const struct bench_result *r = &report->results[i];
    char p50[TEXT_SIZE];
    char p99[TEXT_SIZE];
    char floor_text[TEXT_SIZE];
    char last[TEXT_SIZE];
    if (layer) {
      text_time(last, r->around_us);
    } else {
      snprintf(last, sizeof last, "%5.0f  %6.0f%%", r->gops, 100.0 * r->share_operations);
    }
    printf(" %5lld  %5.0f  %7.1f  %8s  %8s  %8s  %4.0f%%  %5.1f  %6.0f%%  %8s  %5lld\n",
           (long long)r->tokens, r->routed_rows, r->active_experts, text_time(p50, r->p50_us),
           text_time(p99, r->p99_us), text_time(floor_text, r->floor_us), 100.0 * r->share_floor,
           r->gbs, 100.0 * r->share_bytes, last, (long long)r->wrong);
  }
}

/* ---- JSON lines ---------------------------------------------------------------------------- */

static json_t *request_json(const struct bench_report *report) {
  const struct bench_request *request = report->request;
  const sy_shape *shape = &request->shape;
  return json_pack("{s:s, s:s, s:s?, s:I, s:I, s:i, s:i, s:s, s:b, s:s, s:s, s:s, s:i, s:s}",
                   "bench", request->name, "version", sy_version(), "model", request->model,
                   "hidden", (json_int_t)shape->hidden, "intermediate",
                   (json_int_t)shape->intermediate, "experts", (int)shape->num_experts, "top_k",
                   (int)shape->top_k, "activation",
                   option_choice_name(layer_activations, (int)shape->activation), "bias",
                   (int)shape->has_bias, "mode", option_choice_name(layer_modes, (int)shape->mode),
                   "format", option_choice_name(layer_formats, (int)shape->format), "numerics",
                   option_choice_name(bench_numerics, (int)request->numerics), "threads",
                   report->num_threads, "backend", sy_backend());
}

static json_t *limits_json(const struct bench_report *report) {
  return json_pack("{s:f, s:f, s:f, s:f, s:f}", "read_gbs", report->read_gbs, "copy_gbs",
                   report->copy_gbs, "int8_gops", report->rate_gops[RATE_INT8], "bf16_gflops",
                   report->rate_gops[RATE_BF16], "f32_gflops", report->rate_gops[RATE_F32]);
}

static json_t *times_json(const struct bench_result *r) {
  return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:f}", "calls", (json_int_t)r->calls, "p50_us",
                   r->p50_us, "p99_us", r->p99_us, "min_us", r->min_us, "weight_bytes",
                   r->weight_bytes, "bytes", r->bytes, "gbs", r->gbs);
}

static json_t *load_json(const struct bench_result *r) {
  return json_pack("{s:f, s:f, s:I}", "limit_copy_gbs", r->limit_gbs, "share_copy", r->share_bytes,
                   "wrong", (json_int_t)r->wrong);
}

static json_t *files_json(const struct bench_report *report, const struct bench_result *r) {
  return json_pack("{s:s, s:i, s:f, s:f, s:f, s:f}", "checkpoint", report->request->checkpoint,
                   "layers", (int)r->layers, "limit_copy_gbs", r->limit_gbs, "share_copy",
                   r->share_bytes, "limit_file_gbs", r->limit_file_gbs, "share_file",
                   r->share_file);
}

static json_t *call_json(const struct bench_report *report, const struct bench_result *r) {
  return json_pack("{s:I, s:f, s:f, s:f, s:f, s:f, s:s, s:f, s:f, s:f, s:f, s:f, s:f, s:I}",
                   "tokens", (json_int_t)r->tokens, "routed_rows", r->routed_rows, "active_experts",
                   r->active_experts, "operations", r->operations, "gops", r->gops,
                   "limit_read_gbs", r->limit_gbs, "limit_unit", bench_unit_name(report->unit),
                   "limit_gops", r->limit_gops, "floor_us", r->floor_us, "share_read",
                   r->share_bytes, "share_rate", r->share_operations, "share_floor", r->share_floor,
                   "around_us", r->around_us, "wrong", (json_int_t)r->wrong);
}

static json_t *own_json(const struct bench_report *report, const struct bench_result *r) {
  if (report->request->checkpoint != NULL) {
    return files_json(report, r);
  }
  return report->request->kind == BENCH_LOAD ? load_json(r) : call_json(report, r);
}

static bool print_line(const struct bench_report *report, const struct bench_result *r) {
  json_t *line = request_json(report);
  json_t *parts[] = {limits_json(report), times_json(r), own_json(report, r)};
  bool whole = line != NULL;
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; ++i) {
    whole = whole && parts[i] != NULL && json_object_update(line, parts[i]) == 0;
    json_decref(parts[i]);
  }
  if (whole) {
    json_dumpf(line, stdout, JSON_COMPACT); /* main looks at stdout's error state */
    putchar('\n');
  }
  json_decref(line);
  return whole;
}

bool bench_print_json(const struct bench_report *report) {
  for (size_t i = 0; i < report->num_results; ++i) {
    if (!print_line(report, &report->results[i])) {
      return false;
    }
  }
  return true;
}
