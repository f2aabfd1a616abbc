/* route: top-k ids and weights -> rows for each rank. Two passes over the tokens: count, then fill.
 */
#include "kernels/cpu/cpu.h"

struct token_ids {
  const int32_t *ids;
  const float *weights;
};

static struct token_ids token_at(const struct sy_route_args *args, int64_t token) {
  const char *ids = (const char *)args->expert_ids + token * args->expert_ids_stride;
  const char *weights = (const char *)args->expert_weights + token * args->expert_weights_stride;
  return (struct token_ids){(const int32_t *)(const void *)ids,
                            (const float *)(const void *)weights};
}

/* A slot is routed if it is not masked and is the first of its token that names its expert. */
static bool is_routed(const struct token_ids *token, int32_t slot) {
  if (token->ids[slot] < 0) {
    return false;
  }
  for (int32_t j = 0; j < slot; ++j) {
    if (token->ids[j] == token->ids[slot]) {
      return false;
    }
  }
  return true;
}

/* The weight of a routed slot: its own plus those of later slots that name the same expert. */
static float merged_weight(const struct token_ids *token, int32_t slot, int32_t top_k) {
  float weight = token->weights[slot];
  for (int32_t j = slot + 1; j < top_k; ++j) {
    if (token->ids[j] == token->ids[slot]) {
      weight += token->weights[j];
    }
  }
  return weight;
}

/* The smallest rank above `after` that owns one of the token's experts; world if there is none. */
static int32_t next_rank(const struct sy_stage_env *env, const struct token_ids *token,
                         int32_t after) {
  int32_t next = env->world;
  for (int32_t k = 0; k < env->top_k; ++k) {
    if (token->ids[k] >= 0) {
      const int32_t rank = env->expert_rank[token->ids[k]];
      next = rank > after && rank < next ? rank : next;
    }
  }
  return next;
}

sy_status sy_cpu_check_ids(const struct sy_stage_env *env, const struct sy_route_args *args,
                           struct sy_bad_id *bad) {
  for (int64_t t = 0; t < args->num_tokens; ++t) {
    const struct token_ids token = token_at(args, t);
    for (int32_t k = 0; k < env->top_k; ++k) {
      if (token.ids[k] < -1 || token.ids[k] >= env->num_experts) {
        *bad = (struct sy_bad_id){t, k, token.ids[k]};
        return SY_ERR_ROUTING;
      }
    }
  }
  return SY_OK;
}

static void count_rows(const struct sy_stage_env *env, const struct sy_route_args *args,
                       int32_t *rows, int32_t *slots) {
  for (int32_t p = 0; p < env->world; ++p) {
    rows[p] = 0;
    slots[p] = 0;
  }
  for (int64_t t = 0; t < args->num_tokens; ++t) {
    const struct token_ids token = token_at(args, t);
    for (int32_t p = next_rank(env, &token, -1); p < env->world; p = next_rank(env, &token, p)) {
      ++rows[p];
    }
    for (int32_t k = 0; k < env->top_k; ++k) {
      if (is_routed(&token, k)) {
        ++slots[env->expert_rank[token.ids[k]]];
      }
    }
  }
}

/* Writes the slots of `token` that rank p owns (all ranks' if p < 0), from send_slots[first] on;
 * returns how many. expert = local expert, or the global one when rows go to every rank. */
static int32_t fill_slots(const struct sy_stage_env *env, const struct sy_route_args *args,
                          const struct token_ids *token, int32_t p, int32_t first) {
  int32_t count = 0;
  for (int32_t k = 0; k < env->top_k; ++k) {
    if (!is_routed(token, k) || (p >= 0 && env->expert_rank[token->ids[k]] != p)) {
      continue;
    }
    const int32_t expert = env->gather ? token->ids[k] : env->expert_local[token->ids[k]];
    args->send_slots[first + count] =
        (struct sy_wire_slot){.weight = merged_weight(token, k, env->top_k),
                              .expert = (uint16_t)expert,
                              .slot = (uint16_t)k};
    ++count;
  }
  return count;
}

/* Where each slot of `token` on rank p comes back: first_return is its row's first return row. */
static void fill_slot_return(const struct sy_stage_env *env, const struct token_ids *token,
                             int32_t p, int32_t first_return, struct sy_row_ref *slot_return) {
  int32_t count = 0;
  for (int32_t k = 0; k < env->top_k; ++k) {
    if (is_routed(token, k) && env->expert_rank[token->ids[k]] == p) {
      slot_return[k] = (struct sy_row_ref){p, first_return + count};
      ++count;
    }
  }
}

static void clear_slot_return(const struct sy_stage_env *env, const struct sy_route_args *args) {
  for (int64_t i = 0; env->per_slot && i < args->num_tokens * env->top_k; ++i) {
    args->slot_return[i] = (struct sy_row_ref){-1, -1};
  }
}

/* gather: row == token, slots of all ranks. */
static void route_gather(const struct sy_stage_env *env, const struct sy_route_args *args) {
  int32_t refs = 0;
  int32_t slots = 0;
  args->send_offset[0] = 0;
  for (int32_t p = 0; p < env->world; ++p) {
    args->send_offset[p + 1] = (int32_t)args->num_tokens;
  }
  for (int64_t t = 0; t < args->num_tokens; ++t) {
    const struct token_ids token = token_at(args, t);
    args->token_offset[t] = refs;
    args->send_slot_offset[t] = slots;
    slots += fill_slots(env, args, &token, -1, slots);
    for (int32_t p = next_rank(env, &token, -1); p < env->world; p = next_rank(env, &token, p)) {
      args->token_row[refs++] = (struct sy_row_ref){p, (int32_t)t};
      if (env->per_slot) {
        fill_slot_return(env, &token, p, (int32_t)t * env->return_slots,
                         args->slot_return + t * env->top_k);
      }
    }
  }
  args->token_offset[args->num_tokens] = refs;
  args->send_slot_offset[args->num_tokens] = slots;
}

static void route_dispatch(const struct sy_stage_env *env, const struct sy_route_args *args) {
  int32_t *row_cursor = args->cursor;
  int32_t *slot_cursor = args->cursor + env->world;
  int32_t refs = 0;
  int32_t rows = 0;
  int32_t slots = 0;
  count_rows(env, args, row_cursor, slot_cursor);
  for (int32_t p = 0; p < env->world; ++p) {
    const int32_t num_slots = slot_cursor[p];
    args->send_offset[p] = rows;
    args->return_rows[p] = env->per_slot ? num_slots : row_cursor[p];
    rows += row_cursor[p];
    row_cursor[p] = 0;
    slot_cursor[p] = slots;
    slots += num_slots;
  }
  args->send_offset[env->world] = rows;
  args->send_slot_offset[rows] = slots;

  for (int64_t t = 0; t < args->num_tokens; ++t) {
    const struct token_ids token = token_at(args, t);
    args->token_offset[t] = refs;
    for (int32_t p = next_rank(env, &token, -1); p < env->world; p = next_rank(env, &token, p)) {
      const int32_t row = row_cursor[p]++;
      const int32_t first_slot = slot_cursor[p];
      args->token_row[refs++] = (struct sy_row_ref){p, row};
      args->send_slot_offset[args->send_offset[p] + row] = first_slot;
      slot_cursor[p] += fill_slots(env, args, &token, p, first_slot);
      if (env->per_slot) {
        const int32_t slots_before_rank = args->send_slot_offset[args->send_offset[p]];
        fill_slot_return(env, &token, p,
                         env->padded_slots ? row * env->return_slots
                                           : first_slot - slots_before_rank,
                         args->slot_return + t * env->top_k);
      }
    }
  }
  args->token_offset[args->num_tokens] = refs;
}

sy_status sy_cpu_route(const struct sy_stage_env *env, const struct sy_route_args *args) {
  clear_slot_return(env, args);
  if (env->gather) {
    route_gather(env, args);
  } else {
    route_dispatch(env, args);
  }
  return SY_OK;
}
