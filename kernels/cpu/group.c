/* group: slots of received rows -> routed rows sorted by local expert, stable. */
#include "kernels/cpu/cpu.h"
#include "kernels/slots.h"

static bool slot_is_used(const struct sy_wire_slot *slot) {
  return slot->expert != SY_WIRE_NO_EXPERT;
}

/* Takes the rows of this chunk from the messages, in rank order, and counts them per expert.
 * slot_routed holds each slot's local expert for now. */
static sy_status take_rows(const struct sy_stage_env *env, const struct sy_group_args *args) {
  struct sy_routed *routed = args->routed;
  struct sy_receive_cursor at = *args->cursor;
  const int32_t max_slots = env->top_k < env->local_experts ? env->top_k : env->local_experts;
  int64_t rows = 0;
  int32_t slots = 0;
  while (rows < args->max_rows && at.rank < env->world) {
    if (at.row == args->received_rows[at.rank]) {
      at = (struct sy_receive_cursor){.rank = at.rank + 1};
      continue;
    }
    const unsigned char *row = args->received[at.rank] + (size_t)at.row * env->wire_row.bytes;
    const struct sy_wire_slot *slot = sy_row_slots(env, row);
    const int32_t first = slots;
    for (int32_t j = 0; j < env->slots_per_row && slot_is_used(&slot[j]); ++j) {
      if (!sy_wire_slot_is_valid(env, &slot[j])) {
        return SY_ERR_MISMATCH;
      }
      const int32_t expert = sy_wire_slot_local(env, &slot[j]);
      if (expert < 0) {
        continue;
      }
      if (slots - first == max_slots) {
        return SY_ERR_MISMATCH;
      }
      routed->slot_routed[slots++] = expert;
      ++routed->expert_offset[expert + 1];
    }
    const int64_t return_row = !env->per_slot      ? at.row
                               : env->padded_slots ? (int64_t)at.row * env->return_slots
                                                   : at.return_row;
    if (return_row + (env->per_slot ? slots - first : 1) > args->return_rows[at.rank]) {
      return SY_ERR_MISMATCH;
    }
    routed->received_row[rows] = row;
    routed->return_row[rows] = args->landing[at.rank] + (size_t)return_row * env->return_row_bytes;
    routed->row_slot_offset[rows++] = first;
    at.return_row += slots - first;
    ++at.row;
  }
  routed->row_slot_offset[rows] = slots;
  routed->num_received = rows;
  routed->num_routed = slots;
  *args->cursor = at;
  return SY_OK;
}

/* expert_offset: counts (shifted by one) -> begins; the active list; load counts. */
static void list_experts(const struct sy_stage_env *env, const struct sy_group_args *args) {
  struct sy_routed *routed = args->routed;
  routed->num_active = 0;
  for (int32_t e = 0; e < env->local_experts; ++e) {
    const int32_t count = routed->expert_offset[e + 1];
    if (count > 0) {
      routed->active_expert[routed->num_active++] = e;
      args->load_counts[e] += (uint64_t)count;
    }
    routed->expert_offset[e + 1] += routed->expert_offset[e];
  }
}

/* Slots in row order take the next place of their expert, so that the sort is stable. */
static void place_rows(const struct sy_stage_env *env, const struct sy_routed *routed) {
  int32_t *next = routed->expert_offset; /* shifted back below */
  for (int64_t row = 0; row < routed->num_received; ++row) {
    const struct sy_wire_slot *slot = sy_row_slots(env, routed->received_row[row]);
    for (int32_t i = routed->row_slot_offset[row]; i < routed->row_slot_offset[row + 1]; ++i) {
      const int32_t expert = routed->slot_routed[i];
      while (sy_wire_slot_local(env, slot) != expert) {
        ++slot;
      }
      const int32_t place = next[expert]++;
      routed->slot_routed[i] = place;
      routed->routed_source[place] = (int32_t)row;
      routed->routed_weight[place] = slot->weight;
      ++slot;
    }
  }
  for (int32_t e = env->local_experts; e > 0; --e) {
    next[e] = next[e - 1];
  }
  next[0] = 0;
}

sy_status sy_cpu_group(const struct sy_stage_env *env, const struct sy_group_args *args) {
  for (int32_t e = 0; e <= env->local_experts; ++e) {
    args->routed->expert_offset[e] = 0;
  }
  const sy_status status = take_rows(env, args);
  if (status != SY_OK) {
    return status;
  }
  list_experts(env, args);
  place_rows(env, args->routed);
  return SY_OK;
}
