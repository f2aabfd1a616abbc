/* switchyard bench: the CPU backend against the limits of the machine it runs on. */
#include "launch/bench.h"

#include <stdlib.h>
#include <string.h>

#include "launch/command.h"
#include "launch/host.h"

/* A call is repeated within a round for about so long, and at most so often. */
#define ROUND_US 8000.0
#define ROUND_CALLS 8

#define ASSUMED_CACHE_BYTES ((size_t)64 << 20) /* where hwloc does not know */

/* One call beside its own limits. */
struct sample {
  double us, around_us;
  double limit_gbs, limit_file_gbs, floor_us;
  double share_bytes, share_file, share_operations, share_floor;
};

/* All samples of one number of tokens. */
struct series {
  struct sample *samples;
  size_t count;
  double routed_rows, active_experts; /* summed */
};

struct bench {
  struct session *session;
  const struct bench_request *request;
  struct bench_case *bench_case; /* or: */
  struct bench_files *files;
  struct limits limits;
  struct bench_report report;
  struct bench_result results[VALUE_LIST_CAPACITY];
  struct series series[VALUE_LIST_CAPACITY];
};

/* ---- Statistics ---------------------------------------------------------------------------- */

static int compare(const void *a, const void *b) {
  const double x = *(const double *)a;
  const double y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Nearest rank; sorts. */
static double percentile(double *values, size_t count, double share) {
  qsort(values, count, sizeof *values, compare);
  const size_t rank = (size_t)(share * (double)count + 0.999999);
  return values[rank == 0 ? 0 : rank > count ? count - 1 : rank - 1];
}

/* Of one field of the samples. scratch: [count]. */
static double percentile_of(const struct series *series, size_t offset, double share,
                            double *scratch) {
  for (size_t i = 0; i < series->count; ++i) {
    memcpy(&scratch[i], (const char *)&series->samples[i] + offset, sizeof *scratch);
  }
  return percentile(scratch, series->count, share);
}

static void summarise(const struct series *series, double *scratch, struct bench_result *result) {
  const double calls = (double)series->count;
#define MEDIAN(field) percentile_of(series, offsetof(struct sample, field), 0.5, scratch)
  result->calls = (int64_t)series->count;
  result->routed_rows = series->routed_rows / calls;
  result->active_experts = series->active_experts / calls;
  result->p50_us = MEDIAN(us);
  result->p99_us = percentile_of(series, offsetof(struct sample, us), 0.99, scratch);
  result->min_us = percentile_of(series, offsetof(struct sample, us), 0.0, scratch);
  result->around_us = MEDIAN(around_us);
  result->limit_gbs = MEDIAN(limit_gbs);
  result->limit_file_gbs = MEDIAN(limit_file_gbs);
  result->floor_us = MEDIAN(floor_us);
  result->share_bytes = MEDIAN(share_bytes);
  result->share_file = MEDIAN(share_file);
  result->share_operations = MEDIAN(share_operations);
  result->share_floor = MEDIAN(share_floor);
#undef MEDIAN
}

/* ---- Measuring ----------------------------------------------------------------------------- */

static double max_of(double a, double b) { return a > b ? a : b; }

static struct sample make_sample(double us, double around_us, double bytes, double operations,
                                 double gbs, double gops) {
  const double bytes_us = bytes / gbs * 1e-3;
  const double operations_us = gops > 0.0 ? operations / gops * 1e-3 : 0.0;
  const double floor_us = max_of(bytes_us, operations_us);
  return (struct sample){.us = us,
                         .around_us = around_us,
                         .limit_gbs = gbs,
                         .floor_us = floor_us,
                         .share_bytes = bytes_us / us,
                         .share_operations = operations_us / us,
                         .share_floor = floor_us / us};
}

static double operations_per_row(const sy_shape *shape) {
  const double matrices = shape->activation == SY_ACTIVATION_RELU2 ? 2.0 : 3.0;
  return 2.0 * matrices * (double)shape->hidden * (double)shape->intermediate;
}

/* Weights, dispatched rows read, and the experts' f32 rows written. */
static double bytes_of(const struct bench *bench, int64_t tokens, double active, double routed) {
  const struct bench_case *c = bench->bench_case;
  return active * (double)bench_case_expert_bytes(c) +
         (double)tokens * (double)bench_case_row_bytes(c) +
         routed * (double)bench->request->shape.hidden * 4.0;
}

static int sample_call(struct bench *bench, int64_t tokens, struct series *series) {
  struct bench_call call;
  const double gbs = limits_read_gbs(&bench->limits);
  const int code = bench_case_call(bench->session, bench->bench_case, tokens, &call);
  if (code != CLI_OK) {
    return code;
  }
  const bool whole = bench->request->kind == BENCH_LAYER;
  series->samples[series->count++] =
      make_sample(whole ? call.forward_us : call.experts_us, call.forward_us - call.experts_us,
                  bytes_of(bench, tokens, call.active_experts, call.routed_rows),
                  call.routed_rows * operations_per_row(&bench->request->shape), gbs,
                  bench->report.rate_gops[bench->report.unit]);
  series->routed_rows += call.routed_rows;
  series->active_experts += call.active_experts;
  return CLI_OK;
}

static int sample_load(struct bench *bench, int64_t round, struct series *series) {
  struct bench_case *c = bench->bench_case;
  const int32_t expert = (int32_t)(round % bench->request->shape.num_experts);
  const sy_expert_weights weights = bench_case_weights(c, expert);
  limits_read_gbs(&bench->limits); /* the source was just written: out of the caches with it */
  const double gbs = limits_copy_gbs(&bench->limits);
  const double begin = bench_now_us();
  const int code = bench_case_load(bench->session, c, expert, &weights);
  const double us = bench_now_us() - begin;
  series->samples[series->count++] =
      make_sample(us, 0.0, (double)bench_case_source_bytes(c), 0.0, gbs, 0.0);
  series->active_experts += 1.0;
  return code;
}

/* All of a checkpoint. Before reading and loading the caches are emptied of it. */
static int sample_files(struct bench *bench, struct series *series) {
  double file_gbs = 0.0;
  limits_read_gbs(&bench->limits);
  int code = bench_files_read(bench->session, bench->files, &file_gbs);
  if (code != CLI_OK) {
    return code;
  }
  const double gbs = limits_copy_gbs(&bench->limits);
  const double bytes = bench_files_bytes(bench->files);
  const double begin = bench_now_us();
  code = bench_files_load(bench->session, bench->files);
  const double us = bench_now_us() - begin;
  struct sample sample = make_sample(us, 0.0, bytes, 0.0, gbs, 0.0);
  sample.limit_file_gbs = file_gbs;
  sample.share_file = bytes / us * 1e-3 / file_gbs;
  series->samples[series->count++] = sample;
  return code;
}

static double read_again(const void *limits) { return limits_read_gbs((struct limits *)limits); }
static double copy_again(const void *limits) { return limits_copy_gbs((struct limits *)limits); }

/* A limit is the best of a few measurements: neighbours can only lower it. */
static double best_of(double (*measure)(const void *), const void *argument) {
  double best = 0.0;
  for (int i = 0; i < 12; ++i) {
    best = max_of(best, measure(argument));
  }
  return best;
}

struct unit_of {
  const struct limits *limits;
  enum rate_unit unit;
};

static double rate_again(const void *argument) {
  const struct unit_of *of = argument;
  return limits_rate_gops(of->limits, of->unit);
}

static void measure_limits(struct bench *bench) {
  bench->report.read_gbs = best_of(read_again, &bench->limits);
  bench->report.copy_gbs = best_of(copy_again, &bench->limits);
  for (int unit = 0; unit < RATE_UNITS; ++unit) {
    const struct unit_of of = {&bench->limits, (enum rate_unit)unit};
    bench->report.rate_gops[unit] = best_of(rate_again, &of);
  }
}

static int measure_tokens(struct bench *bench, size_t index, int64_t calls) {
  const int64_t tokens = bench->request->tokens.values[index];
  struct series *series = &bench->series[index];
  for (int64_t i = 0; i < calls; ++i) {
    const int code = sample_call(bench, tokens, series);
    if (code != CLI_OK) {
      return code;
    }
  }
  return CLI_OK;
}

/* How often a call of so many tokens fits a round, found out by one that does not count. */
static int count_calls(struct bench *bench, size_t index, int64_t *calls_out) {
  struct bench_call call;
  const int code = bench_case_call(bench->session, bench->bench_case,
                                   bench->request->tokens.values[index], &call);
  const double fit = code == CLI_OK ? ROUND_US / call.forward_us : 0.0;
  *calls_out = fit < 1.0 ? 1 : fit > ROUND_CALLS ? ROUND_CALLS : (int64_t)fit;
  return code;
}

static int measure_round(struct bench *bench, int64_t round, size_t index, int64_t calls) {
  if (bench->files != NULL) {
    return sample_files(bench, &bench->series[index]);
  }
  return bench->request->kind == BENCH_LOAD ? sample_load(bench, round, &bench->series[index])
                                            : measure_tokens(bench, index, calls);
}

static int measure(struct bench *bench) {
  const struct bench_request *request = bench->request;
  int64_t calls[VALUE_LIST_CAPACITY];
  int code = CLI_OK;
  for (size_t i = 0; code == CLI_OK && i < request->tokens.count; ++i) {
    calls[i] = 1;
    if (request->kind != BENCH_LOAD) {
      code = count_calls(bench, i, &calls[i]);
    }
    bench->series[i].samples =
        calloc((size_t)(calls[i] * request->rounds), sizeof *bench->series[i].samples);
    if (bench->series[i].samples == NULL) {
      return session_fail(bench->session, CLI_FAILED, "out of memory");
    }
  }
  for (int64_t round = 0; code == CLI_OK && round < request->rounds; ++round) {
    for (size_t i = 0; code == CLI_OK && i < request->tokens.count; ++i) {
      code = measure_round(bench, round, i, calls[i]);
    }
  }
  return code;
}

/* ---- Reporting ----------------------------------------------------------------------------- */

static void fill_quantities_of_files(const struct bench_files *files, struct bench_result *r) {
  r->layers = bench_files_layers(files);
  r->weight_bytes = bench_files_bytes(files);
  r->bytes = r->weight_bytes + bench_files_prepacked_bytes(files);
  r->gbs = r->weight_bytes / r->p50_us * 1e-3;
}

static void fill_quantities(const struct bench *bench, struct bench_result *r) {
  const struct bench_case *c = bench->bench_case;
  const bool is_load = bench->request->kind == BENCH_LOAD;
  r->weight_bytes = is_load ? (double)bench_case_source_bytes(c)
                            : r->active_experts * (double)bench_case_expert_bytes(c);
  r->bytes = is_load ? r->weight_bytes + (double)bench_case_expert_bytes(c)
                     : bytes_of(bench, r->tokens, r->active_experts, r->routed_rows);
  r->operations = r->routed_rows * operations_per_row(&bench->request->shape);
  r->gbs = (is_load ? r->weight_bytes : r->bytes) / r->p50_us * 1e-3;
  r->gops = r->operations / r->p50_us * 1e-3;
  r->limit_gops = is_load ? 0.0 : bench->report.rate_gops[bench->report.unit];
}

static int conclude(struct bench *bench) {
  const struct bench_request *request = bench->request;
  for (size_t i = 0; i < request->tokens.count; ++i) {
    struct bench_result *result = &bench->results[i];
    double *scratch = calloc(bench->series[i].count, sizeof *scratch);
    if (scratch == NULL) {
      return session_fail(bench->session, CLI_FAILED, "out of memory");
    }
    result->tokens = request->tokens.values[i];
    summarise(&bench->series[i], scratch, result);
    free(scratch);
    if (bench->files != NULL) {
      fill_quantities_of_files(bench->files, result);
      continue;
    }
    fill_quantities(bench, result);
    const int64_t judged = request->kind == BENCH_LOAD ? 2 : result->tokens;
    const int code =
        bench_case_count_wrong(bench->session, bench->bench_case, judged, &result->wrong);
    if (code != CLI_OK) {
      return code;
    }
  }
  bench->report.results = bench->results;
  bench->report.num_results = request->tokens.count;
  return CLI_OK;
}

static int print(struct bench *bench) {
  const struct bench_request *request = bench->request;
  if (!request->json) {
    bench_print_table(&bench->report);
  } else if (!bench_print_json(&bench->report)) {
    return session_fail(bench->session, CLI_FAILED, "out of memory, or --checkpoint is not UTF-8");
  }
  if (request->plot != NULL && !bench_plot(&bench->report, request->plot)) {
    return session_fail(bench->session, CLI_FAILED, "--plot '%s' cannot be written", request->plot);
  }
  for (size_t i = 0; i < bench->report.num_results; ++i) {
    if (bench->results[i].wrong != 0) {
      return session_fail(bench->session, CLI_FAILED,
                          "%lld values differ from the scalar specification",
                          (long long)bench->results[i].wrong);
    }
  }
  return CLI_OK;
}

static enum rate_unit unit_of_request(const struct bench_request *request) {
  if (request->shape.mode == SY_MODE_W4A4) {
    return RATE_INT8;
  }
  return request->numerics == SY_NUMERICS_FASTEST ? RATE_BF16 : RATE_F32;
}

static int run(struct session *session, struct bench_request *request, struct bench *bench) {
  struct host_facts host;
  bench->session = session;
  bench->request = request;
  int code = request->checkpoint != NULL ? bench_files_open(session, request, &bench->files)
                                         : bench_case_open(session, request, &bench->bench_case);
  if (code != CLI_OK) {
    return code;
  }
  const int threads = bench->files != NULL ? bench_files_threads(bench->files)
                                           : bench_case_threads(bench->bench_case);
  const bool known = host_discover(&host) && host.cache_bytes[HOST_CACHE_LEVELS - 1] > 0;
  const size_t cache = known ? (size_t)host.cache_bytes[HOST_CACHE_LEVELS - 1] *
                                   (size_t)host.caches[HOST_CACHE_LEVELS - 1]
                             : ASSUMED_CACHE_BYTES;
  bench->report = (struct bench_report){
      .request = request, .num_threads = threads, .unit = unit_of_request(request)};
  if (!limits_open(&bench->limits, threads, cache)) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  measure_limits(bench);
  code = measure(bench);
  return code == CLI_OK ? conclude(bench) : code;
}

static void close_bench(struct bench *bench) {
  for (size_t i = 0; i < VALUE_LIST_CAPACITY; ++i) {
    free(bench->series[i].samples);
  }
  limits_close(&bench->limits);
  bench_case_close(bench->bench_case);
  bench_files_close(bench->files);
  free(bench);
}

static const struct option_choice kinds[] = {
    {"experts", BENCH_EXPERTS}, {"layer", BENCH_LAYER}, {"load", BENCH_LOAD}, {NULL, 0}};

static int find_kind(struct session *session, int argc, char **argv, enum bench_kind *kind_out) {
  char names[64];
  option_list_choices(kinds, names, sizeof names);
  for (const struct option_choice *k = kinds; argc > 1 && k->name != NULL; ++k) {
    if (strcmp(argv[1], k->name) == 0) {
      *kind_out = (enum bench_kind)k->value;
      snprintf(session->command, sizeof session->command, "switchyard bench %s", k->name);
      return CLI_OK;
    }
  }
  if (argc > 1 && strcmp(argv[1], "--help") == 0) {
    if (session->rank == 0) {
      printf("Usage: switchyard bench KIND [OPTION]...\n\n"
             "Kinds: %s; 'switchyard bench KIND --help' explains one\n",
             names);
    }
    return CLI_DONE;
  }
  return argc > 1
             ? session_fail(session, CLI_USAGE, "'%.100s' is no kind of bench; allowed: %s",
                            argv[1], names)
             : session_fail(session, CLI_USAGE, "a kind of bench is missing; allowed: %s", names);
}

static int measure_and_print(struct session *session, struct bench_request *request) {
  struct bench *bench = calloc(1, sizeof *bench);
  if (bench == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  int code = run(session, request, bench);
  if (code == CLI_OK) {
    code = print(bench);
  }
  close_bench(bench);
  return code;
}

int bench_command(struct session *session, int argc, char **argv) {
  enum bench_kind kind = BENCH_EXPERTS;
  struct bench_request request = {.json = false};
  int code = find_kind(session, argc, argv, &kind);
  if (code == CLI_OK) {
    code = bench_options_parse(session, kind, argc - 1, argv + 1, &request);
  }
  if (code == CLI_OK && session->world > 1) {
    code = session_fail(session, CLI_USAGE, "one process is measured, but there are %d ranks",
                        session->world);
  }
  code = session_agree(session, code);
  return code == CLI_OK ? measure_and_print(session, &request) : code;
}
