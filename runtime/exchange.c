/* One exchange of the step in flight, in either direction: message sizes, headers out, headers in.
 *
 * Every rank sends every rank one message per wave and direction, also with no rows and also when
 * it has found an error: so all ranks see the same faults, and return from the same call alike. */
#include <stdio.h>
#include <string.h>

#include "comm/clock.h"
#include "runtime/header.h"
#include "runtime/internal.h"

static const size_t header_bytes = sizeof(struct sy_wire_header);

static const char *stage_name(enum sy_direction direction) {
  return direction == SY_DISPATCH ? "dispatch" : "return";
}

static bool has_fault(const struct sy_step *step) { return step->fault.kind != SY_FAULT_NONE; }

/* ---- Sizes ---- */

/* Rows of this wave that go to rank p. */
static int64_t dispatch_rows(const struct sy_step *step, int32_t p) {
  return step->env.gather ? step->wave_tokens
                          : step->scratch.send_offset[p + 1] - step->scratch.send_offset[p];
}

/* Used slots in the rows that go to rank p. */
static int64_t dispatch_slots(const struct sy_step *step, int32_t p) {
  const struct sy_scratch *s = &step->scratch;
  const int64_t first = step->env.gather ? 0 : s->send_offset[p];
  return s->send_slot_offset[first + dispatch_rows(step, p)] - s->send_slot_offset[first];
}

/* Return rows per dispatched row where each has room for its own. */
static int64_t back_rows(const struct sy_step *step) {
  return step->env.per_slot ? step->env.return_slots : 1;
}

/* Return rows that this rank awaits from rank p. */
static int64_t awaited_rows(const struct sy_step *step, int32_t p) {
  const struct sy_dims *d = &step->plan->dims;
  if (d->exact) {
    return step->scratch.return_rows[p];
  }
  return (d->fixed ? d->wave_tokens : step->wave_tokens) * back_rows(step);
}

/* Return rows that rank p awaits from this one. */
static int64_t owed_rows(const sy_group *group, int32_t p) {
  const struct sy_step *step = &group->step;
  const struct sy_dims *d = &step->plan->dims;
  if (d->exact && d->per_slot) {
    return group->headers[p].detail[0];
  }
  return (d->fixed ? d->wave_tokens : group->received_rows[p]) * back_rows(step);
}

/* Room for a dispatched message of any plan that is reserved: peers may bring another than this
 * rank, or this rank none that is right, and what MPI does with a message longer than its receive is
 * not in our hands (Open MPI 4.1 may write past its end). Plans of one group have equal bounds for
 * all peers, and arenas are equal on all ranks. Return messages have agreed sizes. */
static size_t dispatch_room(const sy_group *group) {
  const size_t bytes = group->arenas.in[SY_DISPATCH] / (size_t)group->world;
  return bytes / SY_MESSAGE_ALIGN * SY_MESSAGE_ALIGN;
}

static void set_messages(sy_group *group, enum sy_direction direction) {
  const struct sy_step *step = &group->step;
  for (int32_t p = 0; p < group->world; ++p) {
    struct sy_message_bytes *m = &group->messages[p];
    if (direction == SY_DISPATCH && has_fault(step)) {
      *m = (struct sy_message_bytes){.send = header_bytes, .receive_max = dispatch_room(group)};
    } else if (direction == SY_DISPATCH) {
      const struct sy_dims *d = &step->plan->dims;
      m->send = sy_message_bytes(d->fixed ? d->wave_tokens : dispatch_rows(step, p), d->row_bytes);
      m->receive_max = dispatch_room(group);
    } else {
      group->return_rows[p] = (int32_t)owed_rows(group, p);
      m->send = sy_message_bytes(group->return_rows[p], step->env.return_row_bytes);
      m->receive_max = sy_message_bytes(awaited_rows(step, p), step->env.return_row_bytes);
    }
  }
}

sy_status sy_exchange_open(sy_group *group, enum sy_direction direction) {
  const struct sy_step *step = &group->step;
  const bool broadcast = direction == SY_DISPATCH && !has_fault(step) && step->env.gather;
  set_messages(group, direction);
  const struct sy_transport_ops *ops = group->transport->ops;
  const sy_status status = ops->open(group->transport, direction, broadcast, group->messages);
  if (status != SY_OK) {
    return sy_group_lost(group, status, stage_name(direction));
  }
  unsigned char **landing = direction == SY_DISPATCH ? group->send_landing : group->return_landing;
  for (int32_t p = 0; p < group->world; ++p) {
    landing[p] = (unsigned char *)ops->landing(group->transport, direction, p) + header_bytes;
  }
  return SY_OK;
}

/* ---- Headers out ---- */

struct sy_wire_header sy_exchange_header(const sy_group *group) {
  const struct sy_step *step = &group->step;
  struct sy_wire_header header = {.magic = SY_WIRE_MAGIC,
                                  .version = SY_WIRE_VERSION,
                                  .call = (uint16_t)step->call,
                                  .plan_hash = step->plan != NULL ? step->plan->info.hash : 0,
                                  .step = group->num_steps,
                                  .wave = (uint32_t)step->wave};
  if (has_fault(step)) {
    header.status = (int16_t)sy_fault_status(&step->fault);
    header.fault = (uint16_t)step->fault.kind;
    memcpy(header.detail, step->fault.detail, sizeof header.detail);
  } else {
    header.tokens = (uint32_t)step->io.num_tokens;
  }
  return header;
}

static struct sy_wire_header make_header(const sy_group *group, enum sy_direction direction,
                                         int32_t p) {
  const struct sy_step *step = &group->step;
  struct sy_wire_header header = sy_exchange_header(group);
  if (has_fault(step)) {
    return header;
  }
  if (direction == SY_DISPATCH) {
    header.rows = (uint32_t)dispatch_rows(step, p);
    header.detail[0] = dispatch_slots(step, p);
  } else {
    header.rows = (uint32_t)group->return_rows[p];
  }
  return header;
}

sy_status sy_exchange_send(sy_group *group, enum sy_direction direction) {
  unsigned char **landing = direction == SY_DISPATCH ? group->send_landing : group->return_landing;
  for (int32_t p = 0; p < group->world; ++p) {
    const struct sy_wire_header header = make_header(group, direction, p);
    memcpy(landing[p] - header_bytes, &header, header_bytes);
    group->stats.bytes_sent += p != group->rank ? group->messages[p].send : 0;
  }
  const sy_status status = group->transport->ops->start(group->transport, direction);
  return status == SY_OK ? SY_OK : sy_group_lost(group, status, stage_name(direction));
}

/* ---- Headers in ---- */

static bool differs(const sy_group *group, int32_t p) {
  const struct sy_wire_header *theirs = &group->headers[p];
  const struct sy_wire_header *mine = &group->headers[group->rank];
  return theirs->magic != mine->magic || theirs->version != mine->version ||
         theirs->call != mine->call || theirs->plan_hash != mine->plan_hash ||
         theirs->step != mine->step || theirs->wave != mine->wave;
}

static struct sy_header_rule rule_for(const sy_group *group, enum sy_direction direction,
                                      int32_t p) {
  const struct sy_step *step = &group->step;
  const struct sy_dims *d = &step->plan->dims;
  struct sy_header_rule rule = {.sent_rows = -1, .max_tokens = step->plan->desc.max_tokens};
  if (direction == SY_DISPATCH) {
    rule.max_rows = d->wave_tokens;
    rule.sent_rows = d->fixed ? d->wave_tokens : -1;
    rule.slots_per_row = step->env.slots_per_row;
    rule.row_bytes = d->row_bytes;
  } else {
    rule.min_rows = rule.max_rows = awaited_rows(step, p);
    rule.row_bytes = step->env.return_row_bytes;
  }
  return rule;
}

static void read_header(sy_group *group, enum sy_direction direction, int32_t p) {
  size_t bytes = 0;
  const unsigned char *message =
      group->transport->ops->received(group->transport, direction, p, &bytes);
  if (p != group->rank && message != NULL) {
    group->stats.bytes_received += bytes;
  }
  const bool has_plan = group->step.plan != NULL;
  const struct sy_header_rule rule =
      has_plan ? rule_for(group, direction, p) : (struct sy_header_rule){0};
  struct sy_wire_header *header = &group->headers[p];
  if (!sy_header_read(message, bytes, has_plan ? &rule : NULL, header)) {
    return;
  }
  if (direction == SY_DISPATCH) {
    group->received[p] = message + header_bytes;
    group->received_rows[p] = (int32_t)header->rows;
  } else {
    group->returned[p] = message + header_bytes;
  }
}

/* The fault of the lowest rank that has one: the same on all ranks. */
static sy_status report_fault(sy_group *group) {
  for (int32_t p = 0; p < group->world; ++p) {
    const struct sy_wire_header *header = &group->headers[p];
    if (header->magic == SY_WIRE_MAGIC && header->status != SY_OK) {
      struct sy_fault fault = {.kind = (enum sy_fault_kind)header->fault};
      char text[SY_ERROR_TEXT_BYTES];
      memcpy(fault.detail, header->detail, sizeof fault.detail);
      sy_fault_text(&fault, text, sizeof text);
      return sy_group_fail(group, sy_fault_status(&fault), "rank %d: %s", (int)p, text);
    }
  }
  return SY_OK;
}

sy_status sy_exchange_judge(sy_group *group, enum sy_direction direction) {
  SY_TRY(report_fault(group));
  char ranks[256];
  if (sy_group_name_ranks(group, differs, ranks, sizeof ranks) > 0) {
    return sy_group_fail(group, SY_ERR_MISMATCH,
                         "%s of step %llu: rank %d and %s disagree about the call, the plan or the "
                         "sizes of messages",
                         stage_name(direction), (unsigned long long)group->num_steps,
                         (int)group->rank, ranks);
  }
  return SY_OK;
}

sy_status sy_exchange_receive(sy_group *group, enum sy_direction direction) {
  const int64_t deadline_ns = sy_clock_ns() + (int64_t)group->desc.timeout_ms * 1000000;
  const sy_status status = group->transport->ops->wait(group->transport, direction, deadline_ns);
  if (status != SY_OK) {
    return sy_group_lost(group, status, stage_name(direction));
  }
  for (int32_t p = 0; p < group->world; ++p) {
    read_header(group, direction, p);
  }
  return sy_exchange_judge(group, direction);
}
