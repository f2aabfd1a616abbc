/* route: top-k ids and weights -> rows for each rank. Two passes over the tokens: count, then fill. */
#include "kernels/cpu/cpu.h"
#include "kernels/slots.h"

sy_status sy_cpu_check_ids(const struct sy_stage_env *env, const struct sy_route_args *args,
                           struct sy_bad_id *bad) {
  for (int64_t t = 0; t < args->num_tokens; ++t) {
    const struct sy_token_slots token = sy_token_slots_at(env, args, t);
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
    const struct sy_token_slots token = sy_token_slots_at(env, args, t);
    for (int32_t p = sy_next_rank(env, &token, -1); p < env->world;
         p = sy_next_rank(env, &token, p)) {
      ++rows[p];
    }
    for (int32_t k = 0; k < env->top_k; ++k) {
      if (sy_slot_is_routed(&token, k)) {
        ++slots[env->expert_rank[token.ids[k]]];
      }
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
    const struct sy_token_slots token = sy_token_slots_at(env, args, t);
    args->token_offset[t] = refs;
    args->send_slot_offset[t] = slots;
    slots += sy_fill_slots(env, args, &token, -1, slots);
    for (int32_t p = sy_next_rank(env, &token, -1); p < env->world;
         p = sy_next_rank(env, &token, p)) {
      args->token_row[refs++] = (struct sy_row_ref){p, (int32_t)t};
      if (env->per_slot) {
        sy_fill_slot_return(env, &token, p, (int32_t)t * env->return_slots,
                            args->slot_return + t * env->top_k);
      }
    }
  }
  args->token_offset[args->num_tokens] = refs;
  args->send_slot_offset[args->num_tokens] = slots;
}

/* Turns the counts of each rank into where its rows and slots begin. */
static void place_ranks(const struct sy_stage_env *env, const struct sy_route_args *args,
                        int32_t *row_cursor, int32_t *slot_cursor) {
  int32_t rows = 0;
  int32_t slots = 0;
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
}

static void route_dispatch(const struct sy_stage_env *env, const struct sy_route_args *args) {
  int32_t *row_cursor = args->cursor;
  int32_t *slot_cursor = args->cursor + env->world;
  int32_t refs = 0;
  count_rows(env, args, row_cursor, slot_cursor);
  place_ranks(env, args, row_cursor, slot_cursor);
  for (int64_t t = 0; t < args->num_tokens; ++t) {
    const struct sy_token_slots token = sy_token_slots_at(env, args, t);
    args->token_offset[t] = refs;
    for (int32_t p = sy_next_rank(env, &token, -1); p < env->world;
         p = sy_next_rank(env, &token, p)) {
      const int32_t row = row_cursor[p]++;
      const int32_t first_slot = slot_cursor[p];
      args->token_row[refs++] = (struct sy_row_ref){p, row};
      args->send_slot_offset[args->send_offset[p] + row] = first_slot;
      slot_cursor[p] += sy_fill_slots(env, args, &token, p, first_slot);
      if (env->per_slot) {
        const int32_t rank_begin = args->send_slot_offset[args->send_offset[p]];
        const int32_t first_return =
            env->padded_slots ? row * env->return_slots : first_slot - rank_begin;
        sy_fill_slot_return(env, &token, p, first_return, args->slot_return + t * env->top_k);
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
