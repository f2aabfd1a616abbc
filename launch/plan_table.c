#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "launch/plan.h"
#include "launch/text.h"

/* "  Label      words", wrapped. */
static void print_fact(const struct text_style *style, const char *label, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void print_fact(const struct text_style *style, const char *label, const char *format, ...) {
  char words[400];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(words, sizeof words, format, arguments);
  va_end(arguments);
  printf("  %s%-10s%s ", style->dim, label, style->end);
  text_wrap(stdout, 13, words);
}

static void print_layer(const struct text_style *style, const struct plan_request *request) {
  const sy_shape *shape = &request->shape;
  print_fact(style, "Layer",
             "hidden %" PRId64 ", intermediate %" PRId64 ", %d experts, top-%d, %s%s, %s",
             shape->hidden, shape->intermediate, (int)shape->num_experts, (int)shape->top_k,
             option_choice_name(layer_activations, (int)shape->activation),
             shape->has_bias != 0 ? " with biases" : "",
             option_choice_name(layer_modes, (int)shape->mode));
}

static void print_strategy(const struct text_style *style, const struct plan_request *request,
                           const struct plan_sheet *sheet) {
  const sy_plan_info *info = &sheet->info;
  const char *name = option_choice_name(plan_strategies, (int)info->strategy);
  char exact[TEXT_SIZE];
  char gather[TEXT_SIZE];
  text_time(exact, info->auto_dispatch_us);
  text_time(gather, info->auto_gather_us);
  if (sheet->world == 1) {
    print_fact(style, "Strategy", "%s; one rank exchanges nothing", name);
  } else if (request->desc.strategy != SY_STRATEGY_AUTO) {
    print_fact(style, "Strategy", "%s, as asked; predicted exchange: exact %s, gather %s", name,
               exact, gather);
  } else {
    const bool is_gather = info->strategy == SY_STRATEGY_GATHER;
    print_fact(style, "Strategy", "%s, predicted to exchange in %s in one wave, against %s by %s",
               name, is_gather ? gather : exact, is_gather ? exact : gather,
               is_gather ? "exact" : "gather");
  }
}

static void print_links(const struct text_style *style, const struct plan_request *request,
                        int32_t world) {
  const sy_link *link = &request->desc.link;
  const bool one_host = link->ranks_per_host == 0 || link->ranks_per_host >= world;
  char words[120] = "";
  if (!one_host) {
    snprintf(words, sizeof words, "; between hosts of %d ranks %g us, %g GB/s",
             (int)link->ranks_per_host, link->between_hosts.latency_us,
             link->between_hosts.bandwidth_gbs);
  }
  print_fact(style, "Links", "in a host %g us, %g GB/s a rank and direction%s",
             link->in_host.latency_us, link->in_host.bandwidth_gbs, words);
}

static void print_expectation(const struct text_style *style, const struct plan_request *request,
                              const struct plan_sheet *sheet) {
  char bytes[TEXT_SIZE];
  char time[TEXT_SIZE];
  const double token = sheet->info.exchange_traffic_bytes / (double)request->desc.max_tokens;
  print_fact(style, "Expected",
             "%s of a token between ranks, both ways and with headers; %s for the exchange of all "
             "%" PRId64 " tokens of each rank, if all experts are alike likely",
             text_bytes(bytes, (uint64_t)(token + 0.5)), text_time(time, sheet->info.exchange_us),
             request->desc.max_tokens);
}

static void print_facts(const struct text_style *style, const struct plan_request *request,
                        const struct plan_sheet *sheet) {
  const sy_plan_info *info = &sheet->info;
  const struct plan_traffic *traffic = &sheet->traffic;
  char a[TEXT_SIZE];
  char b[TEXT_SIZE];
  print_layer(style, request);
  print_fact(style, "Experts", "%d on this rank, at most %d on any; %s of weights here",
             (int)info->local_experts, (int)info->max_local_experts,
             text_bytes(a, info->weight_bytes));
  print_fact(style, "Waves",
             "at most %" PRId64 " of C = %" PRId64 " tokens, for %" PRId64 " tokens of any rank",
             info->max_waves, info->wave_tokens, request->desc.max_tokens);
  print_fact(style, "Chunks", "at most %" PRId64 " a wave of M = %" PRId64 " received rows",
             info->max_chunks, info->chunk_rows);
  print_links(style, request, sheet->world);
  print_strategy(style, request, sheet);
  print_fact(style, "Row", "%zu bytes out with room for %d expert%s; %zu bytes back as %s, %s",
             info->row_bytes, (int)info->slots_per_row, info->slots_per_row == 1 ? "" : "s",
             info->return_row_bytes,
             option_choice_name(plan_dtypes, (int)request->desc.return_dtype),
             option_choice_name(plan_combines, (int)request->desc.combine));
  print_fact(style, "Token",
             "at most %" PRIu64 " row%s or %s to other ranks, and %" PRIu64 " row%s or %s back",
             traffic->rows_out, traffic->rows_out == 1 ? "" : "s",
             text_bytes(a, traffic->bytes_out), traffic->rows_back,
             traffic->rows_back == 1 ? "" : "s", text_bytes(b, traffic->bytes_back));
  print_expectation(style, request, sheet);
}

/* Columns before the formula, which may need several lines. */
#define FORMULA_COLUMN 58

static void print_buffers(const struct text_style *style, const struct plan_sheet *sheet,
                          const char *title, const char *memory, size_t total) {
  char bytes[TEXT_SIZE];
  uint64_t sum = 0;
  printf("\n%s%-22s%s%s%12s  %9s  %9s  %s%s\n", style->bold, title, style->end, style->dim, "rows",
         "bytes/row", "bytes", "rows are", style->end);
  for (size_t i = 0; i < sheet->num_buffers; ++i) {
    const sy_buffer_info *buffer = &sheet->buffers[i];
    if (strcmp(buffer->memory, memory) != 0 || buffer->bytes == 0) {
      continue;
    }
    sum += buffer->bytes;
    printf("  %-20s%12" PRIu64 "  %9" PRIu64 "  %9s  ", buffer->name, buffer->rows,
           buffer->row_bytes, text_bytes(bytes, buffer->bytes));
    text_wrap(stdout, FORMULA_COLUMN, buffer->formula);
  }
  if (sum != total) {
    printf("  %-20s%12s  %9s  %9s\n", "alignment", "", "", text_bytes(bytes, total - sum));
  }
  printf("  %s%-20s%12s  %9s  %9s%s\n", style->bold, "total", "", "", text_bytes(bytes, total),
         style->end);
}

/* What the formulas are made of. */
static void print_terms(const struct text_style *style, const struct plan_request *request,
                        const struct plan_sheet *sheet) {
  char words[300];
  snprintf(words, sizeof words,
           "W = %d, K = %d, C = %" PRId64 ", M = %" PRId64 ", E_local = %d, E_max = %d, "
           "routed = M * min(K, E_local), back = per_slot ? min(K, E_max) : 1",
           (int)sheet->world, (int)request->shape.top_k, sheet->info.wave_tokens,
           sheet->info.chunk_rows, (int)sheet->info.local_experts,
           (int)sheet->info.max_local_experts);
  printf("\n%s", style->dim);
  text_wrap(stdout, 0, words);
  printf("%s", style->end);
}

static void print_title(const struct text_style *style, const struct plan_request *request) {
  printf("%sPlan for %s%s", style->bold, request->model != NULL ? request->model : "one layer",
         style->end);
}

void plan_print_sheet(const struct plan_request *request, const struct plan_sheet *sheet) {
  const struct text_style style = text_style_of_stdout();
  print_title(&style, request);
  printf(", rank %d of %d\n\n", (int)request->desc.rank, (int)sheet->world);
  print_facts(&style, request, sheet);
  print_buffers(&style, sheet, "Exchange memory", "exchange", sheet->info.exchange_bytes);
  print_buffers(&style, sheet, "Scratch", "scratch", sheet->info.scratch_bytes);
  print_terms(&style, request, sheet);
}

static void print_world(const struct plan_request *request, const struct plan_sheet *sheet) {
  const sy_plan_info *info = &sheet->info;
  char waves[48];
  char chunks[48];
  char texts[5][TEXT_SIZE];
  snprintf(waves, sizeof waves, "%" PRId64 " x %" PRId64, info->max_waves, info->wave_tokens);
  snprintf(chunks, sizeof chunks, "%" PRId64 " x %" PRId64, info->max_chunks, info->chunk_rows);
  const double token = info->exchange_traffic_bytes / (double)request->desc.max_tokens;
  printf("%7d  %7d  %-8s  %9s  %11s  %8s  %8s  %8s  %8s", (int)sheet->world,
         (int)info->local_experts, option_choice_name(plan_strategies, (int)info->strategy), waves,
         chunks, text_bytes(texts[0], info->exchange_bytes),
         text_bytes(texts[1], info->scratch_bytes), text_bytes(texts[2], info->weight_bytes),
         text_bytes(texts[3], (uint64_t)(token + 0.5)));
  printf("  %8s\n", sheet->world == 1 ? "-" : text_time(texts[4], info->exchange_us));
}

void plan_print_worlds(const struct plan_request *request, const struct plan_sheet *sheets,
                       size_t count) {
  const struct text_style style = text_style_of_stdout();
  print_title(&style, request);
  printf(", rank %d of each world\n\n", (int)request->desc.rank);
  print_layer(&style, request);
  print_links(&style, request, (int32_t)request->worlds.values[count - 1]);
  printf("\n%s%7s  %7s  %-8s  %9s  %11s  %8s  %8s  %8s  %8s  %8s%s\n", style.dim, "world",
         "experts", "strategy", "waves", "chunks", "exchange", "scratch", "weights", "token",
         "time", style.end);
  for (size_t i = 0; i < count; ++i) {
    print_world(request, &sheets[i]);
  }
  printf("\n%s", style.dim);
  text_wrap(stdout, 0,
            "experts and weights: of this rank. waves: how many at most x tokens. "
            "chunks: how many at most in a wave x rows. token: expected bytes of one between "
            "ranks, both ways. time: predicted exchange of all tokens.");
  printf("%s", style.end);
}
