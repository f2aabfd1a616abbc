/* route: top-k ids and weights -> rows for each rank. A block per rank counts its rows and slots, one
 * block turns counts into begins, and a block per rank fills its rows, tokens ascending. */
#include "kernels/cuda/scan.cuh"
#include "kernels/slots.h"

/* What one token sends to rank p (p < 0: to all ranks as one row). */
SY_DEVICE struct sy_pair count_token(const struct sy_stage_env &env,
                                     const struct sy_token_slots &token, int32_t p) {
  struct sy_pair count = {p < 0 ? 1 : 0, 0};
  for (int32_t k = 0; k < env.top_k; ++k) {
    if (sy_slot_goes_to(&env, &token, k, p)) {
      count.rows = 1;
      ++count.slots;
    }
  }
  return count;
}

/* How many of the token's ranks are below p. */
SY_DEVICE int32_t ranks_below(const struct sy_stage_env &env, const struct sy_token_slots &token,
                              int32_t p) {
  int32_t count = 0;
  for (int32_t q = sy_next_rank(&env, &token, -1); q < p; q = sy_next_rank(&env, &token, q)) {
    ++count;
  }
  return count;
}

/* Block p: rows and slots of rank p, into cursor[p] and cursor[W + p]. */
SY_KERNEL void count_ranks(struct sy_stage_env env, struct sy_route_args args) {
  struct sy_pair *sums = reinterpret_cast<struct sy_pair *>(sy_shared());
  const int32_t p = static_cast<int32_t>(blockIdx.x);
  struct sy_pair mine = {0, 0};
  for (int64_t t = threadIdx.x; t < args.num_tokens; t += SY_THREADS) {
    const struct sy_token_slots token = sy_token_slots_at(&env, &args, t);
    mine = sy_add(mine, count_token(env, token, p));
  }
  struct sy_pair total;
  sy_block_scan(mine, sums, &total);
  if (threadIdx.x == 0) {
    args.cursor[p] = total.rows;
    args.cursor[env.world + p] = total.slots;
  }
}

/* One block: send_offset and return_rows; cursor[W + p] becomes the first slot of rank p. */
SY_KERNEL void place_ranks(struct sy_stage_env env, struct sy_route_args args) {
  struct sy_pair *sums = reinterpret_cast<struct sy_pair *>(sy_shared());
  struct sy_pair carry = {0, 0};
  for (int32_t base = 0; base < env.world; base += static_cast<int32_t>(SY_THREADS)) {
    const int32_t p = base + static_cast<int32_t>(threadIdx.x);
    struct sy_pair mine = {0, 0};
    if (p < env.world) {
      mine = {args.cursor[p], args.cursor[env.world + p]};
    }
    struct sy_pair total;
    const struct sy_pair before = sy_add(carry, sy_block_scan(mine, sums, &total));
    if (p < env.world) {
      args.send_offset[p] = before.rows;
      args.cursor[env.world + p] = before.slots;
      args.return_rows[p] = env.per_slot ? mine.slots : mine.rows;
    }
    carry = sy_add(carry, total);
  }
  if (threadIdx.x == 0) {
    args.send_offset[env.world] = carry.rows;
    args.send_slot_offset[carry.rows] = carry.slots;
  }
}

/* One block: token_offset; every slot's return row is none until a rank fills it. */
SY_KERNEL void place_tokens(struct sy_stage_env env, struct sy_route_args args) {
  struct sy_pair *sums = reinterpret_cast<struct sy_pair *>(sy_shared());
  struct sy_pair carry = {0, 0};
  for (int64_t base = 0; base < args.num_tokens; base += SY_THREADS) {
    const int64_t t = base + threadIdx.x;
    struct sy_pair mine = {0, 0};
    if (t < args.num_tokens) {
      const struct sy_token_slots token = sy_token_slots_at(&env, &args, t);
      mine.rows = ranks_below(env, token, env.world);
      for (int32_t k = 0; env.per_slot && k < env.top_k; ++k) {
        args.slot_return[t * env.top_k + k] = {-1, -1};
      }
    }
    struct sy_pair total;
    const struct sy_pair before = sy_block_scan(mine, sums, &total);
    if (t < args.num_tokens) {
      args.token_offset[t] = carry.rows + before.rows;
    }
    carry = sy_add(carry, total);
  }
  if (threadIdx.x == 0) {
    args.token_offset[args.num_tokens] = carry.rows;
  }
}

/* Block p: the rows of rank p, tokens ascending. */
SY_KERNEL void fill_rows(struct sy_stage_env env, struct sy_route_args args) {
  struct sy_pair *sums = reinterpret_cast<struct sy_pair *>(sy_shared());
  const int32_t p = static_cast<int32_t>(blockIdx.x);
  const int32_t first_slot = args.cursor[env.world + p];
  struct sy_pair carry = {0, 0};
  for (int64_t base = 0; base < args.num_tokens; base += SY_THREADS) {
    const int64_t t = base + threadIdx.x;
    struct sy_token_slots token = {};
    struct sy_pair mine = {0, 0};
    if (t < args.num_tokens) {
      token = sy_token_slots_at(&env, &args, t);
      mine = count_token(env, token, p);
    }
    struct sy_pair total;
    const struct sy_pair before = sy_add(carry, sy_block_scan(mine, sums, &total));
    if (mine.rows > 0) {
      args.token_row[args.token_offset[t] + ranks_below(env, token, p)] = {p, before.rows};
      args.send_slot_offset[args.send_offset[p] + before.rows] = first_slot + before.slots;
      sy_fill_slots(&env, &args, &token, p, first_slot + before.slots);
      if (env.per_slot) {
        const int32_t first = env.padded_slots ? before.rows * env.return_slots : before.slots;
        sy_fill_slot_return(&env, &token, p, first, args.slot_return + t * env.top_k);
      }
    }
    carry = sy_add(carry, total);
  }
}

/* gather, one block, behind place_tokens: row == token, slots of all ranks. */
SY_KERNEL void fill_gather(struct sy_stage_env env, struct sy_route_args args) {
  struct sy_pair *sums = reinterpret_cast<struct sy_pair *>(sy_shared());
  struct sy_pair carry = {0, 0};
  for (int32_t p = static_cast<int32_t>(threadIdx.x); p <= env.world;
       p += static_cast<int32_t>(SY_THREADS)) {
    args.send_offset[p] = p == 0 ? 0 : static_cast<int32_t>(args.num_tokens);
  }
  for (int64_t base = 0; base < args.num_tokens; base += SY_THREADS) {
    const int64_t t = base + threadIdx.x;
    struct sy_token_slots token = {};
    struct sy_pair mine = {0, 0};
    if (t < args.num_tokens) {
      token = sy_token_slots_at(&env, &args, t);
      mine = count_token(env, token, -1);
    }
    struct sy_pair total;
    const struct sy_pair before = sy_add(carry, sy_block_scan(mine, sums, &total));
    if (t < args.num_tokens) {
      int32_t ref = args.token_offset[t];
      args.send_slot_offset[t] = before.slots;
      sy_fill_slots(&env, &args, &token, -1, before.slots);
      for (int32_t p = sy_next_rank(&env, &token, -1); p < env.world;
           p = sy_next_rank(&env, &token, p)) {
        args.token_row[ref++] = {p, static_cast<int32_t>(t)};
        if (env.per_slot) {
          sy_fill_slot_return(&env, &token, p, static_cast<int32_t>(t) * env.return_slots,
                              args.slot_return + t * env.top_k);
        }
      }
    }
    carry = sy_add(carry, total);
  }
  if (threadIdx.x == 0) {
    args.send_slot_offset[args.num_tokens] = carry.slots;
  }
}

sy_status sy_cuda_route(const struct sy_stage_env *env, const struct sy_route_args *args) {
  const cudaStream_t stream = sy_stream(env);
  const unsigned ranks = static_cast<unsigned>(env->world);
  SY_CUDA_TRY(SY_LAUNCH(place_tokens, 1, SY_THREADS, SY_SCAN_BYTES, stream, *env, *args));
  if (env->gather) {
    SY_CUDA_TRY(SY_LAUNCH(fill_gather, 1, SY_THREADS, SY_SCAN_BYTES, stream, *env, *args));
    return SY_OK;
  }
  SY_CUDA_TRY(SY_LAUNCH(count_ranks, ranks, SY_THREADS, SY_SCAN_BYTES, stream, *env, *args));
  SY_CUDA_TRY(SY_LAUNCH(place_ranks, 1, SY_THREADS, SY_SCAN_BYTES, stream, *env, *args));
  SY_CUDA_TRY(SY_LAUNCH(fill_rows, ranks, SY_THREADS, SY_SCAN_BYTES, stream, *env, *args));
  return SY_OK;
}
