/* How a token's top-k slots become rows, the same on every backend. A slot is routed if it is not
 * masked and is the first of its token that names its expert; it then carries the weights of all the
 * slots that name it. An id that is none acts as masked: the CPU backend has refused it before, and a
 * GPU, which is not waited for, does not. */
#ifndef SY_KERNELS_SLOTS_H
#define SY_KERNELS_SLOTS_H

#include "kernels/fp4.h"
#include "kernels/kernels.h"

struct sy_token_slots {
  const int32_t *ids;
  const float *weights;
  int32_t num_experts;
};

SY_FP4_FN struct sy_token_slots sy_token_slots_at(const struct sy_stage_env *env,
                                                  const struct sy_route_args *args, int64_t token) {
  struct sy_token_slots slots;
  slots.num_experts = env->num_experts;
  slots.ids = (const int32_t *)(const void *)((const char *)args->expert_ids +
                                              token * args->expert_ids_stride);
  slots.weights = (const float *)(const void *)((const char *)args->expert_weights +
                                                token * args->expert_weights_stride);
  return slots;
}

SY_FP4_FN int sy_slot_is_masked(const struct sy_token_slots *token, int32_t slot) {
  return token->ids[slot] < 0 || token->ids[slot] >= token->num_experts;
}

SY_FP4_FN int sy_slot_is_routed(const struct sy_token_slots *token, int32_t slot) {
  if (sy_slot_is_masked(token, slot)) {
    return 0;
  }
  for (int32_t j = 0; j < slot; ++j) {
    if (token->ids[j] == token->ids[slot]) {
      return 0;
    }
  }
  return 1;
}

SY_FP4_FN float sy_slot_weight(const struct sy_token_slots *token, int32_t slot, int32_t top_k) {
  float weight = token->weights[slot];
  for (int32_t j = slot + 1; j < top_k; ++j) {
    if (token->ids[j] == token->ids[slot]) {
      weight += token->weights[j];
    }
  }
  return weight;
}

/* The smallest rank above `after` that owns one of the token's experts; world if there is none. */
SY_FP4_FN int32_t sy_next_rank(const struct sy_stage_env *env, const struct sy_token_slots *token,
                               int32_t after) {
  int32_t next = env->world;
  for (int32_t k = 0; k < env->top_k; ++k) {
    if (!sy_slot_is_masked(token, k)) {
      const int32_t rank = env->expert_rank[token->ids[k]];
      next = rank > after && rank < next ? rank : next;
    }
  }
  return next;
}

/* Whether a routed slot goes to rank p; p < 0 stands for all ranks. */
SY_FP4_FN int sy_slot_goes_to(const struct sy_stage_env *env, const struct sy_token_slots *token,
                              int32_t slot, int32_t p) {
  return sy_slot_is_routed(token, slot) && (p < 0 || env->expert_rank[token->ids[slot]] == p);
}

/* Writes the slots of `token` that go to rank p, from send_slots[first] on; returns how many. */
SY_FP4_FN int32_t sy_fill_slots(const struct sy_stage_env *env, const struct sy_route_args *args,
                                const struct sy_token_slots *token, int32_t p, int32_t first) {
  int32_t count = 0;
  for (int32_t k = 0; k < env->top_k; ++k) {
    if (sy_slot_goes_to(env, token, k, p)) {
      const int32_t id = token->ids[k];
      struct sy_wire_slot *slot = &args->send_slots[first + count];
      slot->weight = sy_slot_weight(token, k, env->top_k);
      slot->expert = (uint16_t)(env->gather ? id : env->expert_local[id]);
      slot->slot = (uint16_t)k;
      ++count;
    }
  }
  return count;
}

/* Where each slot of `token` on rank p comes back: first_return is its row's first return row. */
SY_FP4_FN void sy_fill_slot_return(const struct sy_stage_env *env,
                                   const struct sy_token_slots *token, int32_t p,
                                   int32_t first_return, struct sy_row_ref *slot_return) {
  int32_t count = 0;
  for (int32_t k = 0; k < env->top_k; ++k) {
    if (sy_slot_goes_to(env, token, k, p)) {
      slot_return[k].rank = p;
      slot_return[k].row = first_return + count;
      ++count;
    }
  }
}

/* ---- Received slots ----
 * Rows come from other processes: what they name is checked before it becomes an index. */

SY_FP4_FN const struct sy_wire_slot *sy_row_slots(const struct sy_stage_env *env,
                                                  const unsigned char *row) {
  return (const struct sy_wire_slot *)(const void *)(row + env->wire_row.slots);
}

SY_FP4_FN int sy_wire_slot_is_valid(const struct sy_stage_env *env,
                                    const struct sy_wire_slot *slot) {
  return slot->expert < (env->gather ? env->num_experts : env->local_experts) &&
         slot->slot < env->top_k;
}

/* The local expert of a valid slot, -1 when another rank owns it. */
SY_FP4_FN int32_t sy_wire_slot_local(const struct sy_stage_env *env,
                                     const struct sy_wire_slot *slot) {
  if (!env->gather) {
    return slot->expert;
  }
  return env->expert_rank[slot->expert] == env->rank ? env->expert_local[slot->expert] : -1;
}

#endif
