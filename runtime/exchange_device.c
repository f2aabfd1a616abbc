#include "runtime/exchange_device.h"

#include "comm/clock.h"
#include "runtime/gpu.h"
#include "runtime/header.h"

static const size_t header_bytes = sizeof(struct sy_wire_header);

static const char *stage_name(enum sy_direction direction) {
  return direction == SY_DISPATCH ? "dispatch" : "return";
}

static bool has_fault(const struct sy_step *step) { return step->fault.kind != SY_FAULT_NONE; }

bool sy_device_headers_first(const struct sy_step *step) {
  return step->plan == NULL || step->io.memory != SY_MEMORY_DEVICE || step->plan->dims.exact;
}

/* ---- Sizes ---- */

static struct sy_message_bytes of_rows(int64_t send, int64_t receive, size_t row_bytes) {
  return (struct sy_message_bytes){.send = header_bytes + (size_t)send * row_bytes,
                                   .receive_max = header_bytes + (size_t)receive * row_bytes};
}

/* Return rows that a header's rows ask for. */
static int64_t rows_back(const struct sy_step *step, const struct sy_wire_header *header) {
  return step->env.per_slot ? header->detail[0] : header->rows;
}

static int64_t capacity_back(const struct sy_step *step) {
  return step->plan->dims.wave_tokens * (step->env.per_slot ? step->env.return_slots : 1);
}

static void set_messages(sy_group *group, enum sy_direction direction) {
  const struct sy_step *step = &group->step;
  const struct sy_dims *d = &step->plan->dims;
  for (int32_t p = 0; p < group->world; ++p) {
    const struct sy_wire_header *sent = &group->gpu->sent_headers[p];
    const struct sy_wire_header *heard = &group->headers[p];
    struct sy_message_bytes *m = &group->messages[p];
    if (direction == SY_DISPATCH) {
      *m = d->exact ? of_rows(sent->rows, heard->rows, d->row_bytes)
                    : of_rows(d->wave_tokens, d->wave_tokens, d->row_bytes);
    } else {
      const int64_t owed = d->exact ? rows_back(step, heard) : capacity_back(step);
      const int64_t awaited = d->exact ? rows_back(step, sent) : capacity_back(step);
      *m = of_rows(owed, awaited, d->return_row_bytes);
      group->return_rows[p] = (int32_t)owed;
    }
  }
}

/* ---- Out ---- */

static sy_status write_headers(sy_group *group, enum sy_direction direction, bool broadcast,
                               struct sy_wire_header *mirror) {
  const struct sy_step *step = &group->step;
  const struct sy_scratch *s = &step->scratch;
  const bool dispatch = direction == SY_DISPATCH;
  struct sy_write_headers_args args = {
      .header = sy_exchange_header(group),
      .send_offset = dispatch && !has_fault(step) ? s->send_offset : NULL,
      .send_slot_offset = s->send_slot_offset,
      .gather = step->env.gather,
      .first_row = dispatch ? group->gpu->send_landing : group->gpu->return_landing,
      .mirror = mirror};
  const int32_t begin = broadcast ? group->rank : 0; /* one message for all */
  const int32_t end = broadcast ? group->rank + 1 : group->world;
  for (args.first = begin; args.first < end; args.first += SY_PEERS_PER_LAUNCH) {
    const int32_t left = end - args.first;
    args.count = left < SY_PEERS_PER_LAUNCH ? left : SY_PEERS_PER_LAUNCH;
    for (int32_t i = 0; i < args.count; ++i) {
      const int32_t p = args.first + i;
      args.message[i] = group->transport->ops->landing(group->transport, direction, p);
      args.rows[i] = dispatch ? 0 : (uint32_t)group->return_rows[p];
    }
    SY_TRY(sy_gpu_check(group, group->device->write_headers(&step->env, &args),
                        stage_name(direction)));
  }
  return SY_OK;
}

static sy_status open_messages(sy_group *group, enum sy_direction direction, bool broadcast) {
  struct sy_transport *t = group->transport;
  t->stream = group->step.env.stream;
  const sy_status status = t->ops->open(t, direction, broadcast, group->messages);
  SY_TRY(sy_gpu_check(group, status, stage_name(direction)));
  for (int32_t p = 0; p < group->world; ++p) {
    group->stats.bytes_sent += p != group->rank ? group->messages[p].send : 0;
    group->stats.bytes_received += p != group->rank ? group->messages[p].receive_max : 0;
  }
  return SY_OK;
}

sy_status sy_device_open(sy_group *group, enum sy_direction direction) {
  const bool broadcast = direction == SY_DISPATCH && group->step.env.gather;
  set_messages(group, direction);
  SY_TRY(open_messages(group, direction, broadcast));
  return write_headers(group, direction, broadcast, NULL);
}

sy_status sy_device_send(sy_group *group, enum sy_direction direction) {
  return sy_gpu_check(group, group->transport->ops->start(group->transport, direction),
                      stage_name(direction));
}

/* ---- In ---- */

/* What a header from a peer must say; with host's eyes (mirror) every header is let pass, to be
 * judged there. */
static struct sy_read_headers_args read_args(const sy_group *group, enum sy_direction direction) {
  const struct sy_step *step = &group->step;
  struct sy_gpu *gpu = group->gpu;
  struct sy_read_headers_args args = {.expected = sy_exchange_header(group),
                                      .first_row =
                                          direction == SY_DISPATCH ? gpu->received : gpu->returned,
                                      .fault = gpu->fault};
  if (step->plan == NULL) {
    return args;
  }
  args.expected.tokens = (uint32_t)step->plan->desc.max_tokens;
  args.expected.rows =
      (uint32_t)(direction == SY_DISPATCH ? step->plan->dims.wave_tokens : INT32_MAX);
  if (direction == SY_DISPATCH) {
    args.rows = gpu->received_rows;
    args.routed_out = gpu->routed;
    args.routed = sy_step_routed(step);
    args.cursor_out = gpu->cursor;
  }
  return args;
}

static sy_status read_headers(sy_group *group, enum sy_direction direction,
                              struct sy_read_headers_args *args) {
  size_t bytes;
  for (args->first = 0; args->first < group->world; args->first += SY_PEERS_PER_LAUNCH) {
    const int32_t left = group->world - args->first;
    args->count = left < SY_PEERS_PER_LAUNCH ? left : SY_PEERS_PER_LAUNCH;
    for (int32_t i = 0; i < args->count; ++i) {
      args->message[i] =
          group->transport->ops->received(group->transport, direction, args->first + i, &bytes);
    }
    SY_TRY(sy_gpu_check(group, group->device->read_headers(&group->step.env, args),
                        stage_name(direction)));
  }
  return SY_OK;
}

static sy_status close_messages(sy_group *group, enum sy_direction direction) {
  const int64_t deadline_ns = sy_clock_ns() + (int64_t)group->desc.timeout_ms * 1000000;
  return sy_gpu_check(group, group->transport->ops->wait(group->transport, direction, deadline_ns),
                      stage_name(direction));
}

sy_status sy_device_receive(sy_group *group, enum sy_direction direction) {
  SY_TRY(close_messages(group, direction));
  struct sy_read_headers_args args = read_args(group, direction);
  return read_headers(group, direction, &args);
}

/* The rows come in a message of their own. */
static struct sy_header_rule rule_for_dispatch(const struct sy_step *step) {
  const struct sy_dims *d = &step->plan->dims;
  return (struct sy_header_rule){.max_rows = d->wave_tokens,
                                 .sent_rows = 0,
                                 .max_tokens = step->plan->desc.max_tokens,
                                 .slots_per_row = step->env.slots_per_row,
                                 .row_bytes = d->row_bytes};
}

sy_status sy_device_exchange_headers(sy_group *group) {
  const struct sy_step *step = &group->step;
  struct sy_gpu *gpu = group->gpu;
  for (int32_t p = 0; p < group->world; ++p) {
    group->messages[p] = of_rows(0, 0, 0);
  }
  SY_TRY(open_messages(group, SY_DISPATCH, false));
  SY_TRY(write_headers(group, SY_DISPATCH, false, gpu->sent_headers));
  SY_TRY(sy_device_send(group, SY_DISPATCH));
  SY_TRY(close_messages(group, SY_DISPATCH));
  struct sy_read_headers_args args = {.first_row = gpu->received, .mirror = gpu->received_headers};
  SY_TRY(read_headers(group, SY_DISPATCH, &args));
  SY_TRY(sy_gpu_await(group, step->env.stream, group->desc.timeout_ms, stage_name(SY_DISPATCH)));
  const bool understood = step->plan != NULL && !has_fault(step);
  const struct sy_header_rule rule =
      understood ? rule_for_dispatch(step) : (struct sy_header_rule){0};
  for (int32_t p = 0; p < group->world; ++p) {
    sy_header_read(&gpu->received_headers[p], header_bytes, understood ? &rule : NULL,
                   &group->headers[p]);
  }
  return sy_exchange_judge(group, SY_DISPATCH);
}
