#include <inttypes.h>
#include <jansson.h>

#include "launch/plan.h"

/* JSON integers end at 2^63 - 1; a size beyond is a number all the same. */
static json_t *size(uint64_t value) {
  return value <= INT64_MAX ? json_integer((json_int_t)value) : json_real((double)value);
}

static json_t *shape_json(const sy_shape *shape) {
  return json_pack(
      "{s:I, s:I, s:i, s:i, s:s, s:s, s:s, s:b}", "hidden", (json_int_t)shape->hidden,
      "intermediate", (json_int_t)shape->intermediate, "experts", (int)shape->num_experts, "top_k",
      (int)shape->top_k, "mode", option_choice_name(layer_modes, (int)shape->mode), "format",
      option_choice_name(layer_formats, (int)shape->format), "activation",
      option_choice_name(layer_activations, (int)shape->activation), "bias", (int)shape->has_bias);
}

static json_t *level_json(const sy_link_level *level) {
  return json_pack("{s:f, s:f, s:f}", "latency_us", level->latency_us, "message_us",
                   level->message_us, "bandwidth_gbs", level->bandwidth_gbs);
}

static json_t *link_json(const sy_link *link) {
  return json_pack("{s:i, s:o, s:o}", "ranks_per_host", (int)link->ranks_per_host, "in_host",
                   level_json(&link->in_host), "between_hosts", level_json(&link->between_hosts));
}

static json_t *request_json(const sy_plan_desc *desc) {
  return json_pack(
      "{s:I, s:I, s:I, s:o, s:o, s:s, s:s, s:s, s:o}", "max_tokens", (json_int_t)desc->max_tokens,
      "wave_tokens", (json_int_t)desc->wave_tokens, "chunk_rows", (json_int_t)desc->chunk_rows,
      "exchange_budget_bytes", size(desc->exchange_budget_bytes), "scratch_budget_bytes",
      size(desc->scratch_budget_bytes), "strategy",
      option_choice_name(plan_strategies, (int)desc->strategy), "combine",
      option_choice_name(plan_combines, (int)desc->combine), "return_dtype",
      option_choice_name(plan_dtypes, (int)desc->return_dtype), "link", link_json(&desc->link));
}

static json_t *token_json(const struct plan_traffic *traffic) {
  return json_pack("{s:o, s:o, s:o, s:o}", "rows_out", size(traffic->rows_out), "bytes_out",
                   size(traffic->bytes_out), "rows_back", size(traffic->rows_back), "bytes_back",
                   size(traffic->bytes_back));
}

static json_t *buffers_json(const struct plan_sheet *sheet) {
  json_t *list = json_array();
  for (size_t i = 0; i < sheet->num_buffers; ++i) {
    const sy_buffer_info *buffer = &sheet->buffers[i];
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:o, s:o, s:o}", "name", buffer->name,
                                          "memory", buffer->memory, "formula", buffer->formula,
                                          "rows", size(buffer->rows), "row_bytes",
                                          size(buffer->row_bytes), "bytes", size(buffer->bytes)));
  }
  return list;
}

static json_t *sheet_json(const struct plan_request *request, const struct plan_sheet *sheet) {
  const sy_plan_info *info = &sheet->info;
  char hash[24];
  snprintf(hash, sizeof hash, "%016" PRIx64, info->hash);
  json_t *plan = json_pack("{s:i, s:i, s:s, s:f, s:f, s:f, s:f}", "world", (int)sheet->world,
                           "rank", (int)request->desc.rank, "strategy",
                           option_choice_name(plan_strategies, (int)info->strategy),
                           "predicted_exact_us", info->auto_dispatch_us, "predicted_gather_us",
                           info->auto_gather_us, "predicted_exchange_us", info->exchange_us,
                           "expected_traffic_bytes", info->exchange_traffic_bytes);
  json_t *sizes = json_pack(
      "{s:I, s:I, s:I, s:I, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:o, s:o, s:s, s:o}", "wave_tokens",
      (json_int_t)info->wave_tokens, "chunk_rows", (json_int_t)info->chunk_rows, "max_waves",
      (json_int_t)info->max_waves, "max_chunks", (json_int_t)info->max_chunks, "local_experts",
      (int)info->local_experts, "max_local_experts", (int)info->max_local_experts, "slots_per_row",
      (int)info->slots_per_row, "row_bytes", size(info->row_bytes), "return_row_bytes",
      size(info->return_row_bytes), "exchange_bytes", size(info->exchange_bytes), "scratch_bytes",
      size(info->scratch_bytes), "weight_bytes", size(info->weight_bytes), "token_at_most",
      token_json(&sheet->traffic), "hash", hash, "buffers", buffers_json(sheet));
  if (plan == NULL || sizes == NULL || json_object_update(plan, sizes) != 0) {
    json_decref(plan);
    plan = NULL;
  }
  json_decref(sizes);
  return plan;
}

bool plan_print_json(const struct plan_request *request, const struct plan_sheet *sheets,
                     size_t count) {
  json_t *plans = json_array();
  for (size_t i = 0; i < count; ++i) {
    if (json_array_append_new(plans, sheet_json(request, &sheets[i])) != 0) {
      json_decref(plans);
      return false;
    }
  }
  json_t *root = json_pack("{s:s, s:s?, s:o, s:o, s:o}", "version", sy_version(), "model",
                           request->model, "shape", shape_json(&request->shape), "request",
                           request_json(&request->desc), "plans", plans);
  if (root == NULL) {
    return false;
  }
  json_dumpf(root, stdout, JSON_INDENT(2)); /* main looks at stdout's error state */
  putchar('\n');
  json_decref(root);
  return true;
}
