/* group: slots of received rows -> routed rows sorted by local expert, stable. One block takes the
 * rows of the chunk; a block per local expert counts its rows; one block turns counts into begins; a
 * block per local expert places its rows, in row order.
 *
 * The cursor and struct sy_routed lie in device memory. A slot that names what is not here comes from
 * a broken peer: it is skipped, as a masked one is. */
#include "kernels/cuda/scan.cuh"
#include "kernels/slots.h"

/* A row of the chunk: the row-th of rank's message; rank == world: there is none. */
struct chunk_row {
  int32_t rank;
  int32_t row;
};

SY_DEVICE struct chunk_row find_row(const struct sy_stage_env &env,
                                    const struct sy_group_args &args,
                                    const struct sy_receive_cursor &at, int64_t index) {
  int32_t rank = at.rank;
  int64_t row = at.row + index;
  while (rank < env.world && row >= args.received_rows[rank]) {
    row -= args.received_rows[rank];
    ++rank;
  }
  return {rank, static_cast<int32_t>(row)};
}

/* The local expert of slot j of a row, -1 when the slot is not routed here: masked, another rank's,
 * not valid, or naming an expert that an earlier slot of the row has named. */
SY_DEVICE int32_t routed_expert(const struct sy_stage_env &env, const struct sy_wire_slot *slots,
                                int32_t j) {
  if (slots[j].expert == SY_WIRE_NO_EXPERT || !sy_wire_slot_is_valid(&env, &slots[j])) {
    return -1;
  }
  for (int32_t i = 0; i < j; ++i) {
    if (slots[i].expert == slots[j].expert) {
      return -1;
    }
  }
  return sy_wire_slot_local(&env, &slots[j]);
}

SY_DEVICE int32_t count_slots(const struct sy_stage_env &env, const unsigned char *row) {
  const struct sy_wire_slot *slots = sy_row_slots(&env, row);
  int32_t count = 0;
  for (int32_t j = 0; j < env.slots_per_row; ++j) {
    count += routed_expert(env, slots, j) >= 0 ? 1 : 0;
  }
  return count;
}

/* The return rows of the chunk, behind take_rows' offsets. per_slot, exact: a rank's rows follow each
 * other without gaps, so a row's first return row is the number of slots before it in its message. */
SY_DEVICE void place_return_rows(const struct sy_stage_env &env, const struct sy_group_args &args,
                                 const struct sy_receive_cursor &at) {
  const struct sy_routed *routed = args.routed;
  for (int64_t i = threadIdx.x; i < routed->num_received; i += SY_THREADS) {
    const struct chunk_row row = find_row(env, args, at, i);
    int64_t first = row.row;
    if (env.per_slot && env.padded_slots) {
      first = static_cast<int64_t>(row.row) * env.return_slots;
    } else if (env.per_slot) {
      const bool continued = row.rank == at.rank; /* its message began in an earlier chunk */
      const int64_t begin = continued ? 0 : i - row.row;
      first = (continued ? at.return_row : 0) + routed->row_slot_offset[i] -
              routed->row_slot_offset[begin];
    }
    routed->return_row[i] =
        args.landing[row.rank] + static_cast<size_t>(first) * env.return_row_bytes;
  }
}

/* Thread 0: the position behind the last row taken. */
SY_DEVICE struct sy_receive_cursor next_cursor(const struct sy_stage_env &env,
                                               const struct sy_group_args &args,
                                               const struct sy_receive_cursor &at) {
  const struct sy_routed *routed = args.routed;
  const int64_t taken = routed->num_received;
  if (taken < args.max_rows) {
    return {env.world, 0, 0};
  }
  const struct chunk_row last = find_row(env, args, at, taken - 1);
  const bool continued = last.rank == at.rank;
  const int64_t begin = continued ? 0 : taken - 1 - last.row;
  const int64_t slots = routed->row_slot_offset[taken] - routed->row_slot_offset[begin];
  return {last.rank, last.row + 1, (continued ? at.return_row : 0) + slots};
}

/* One block: received_row, row_slot_offset, return_row, the totals, and the next cursor. */
SY_KERNEL void take_rows(struct sy_stage_env env, struct sy_group_args args) {
  struct sy_pair *sums = reinterpret_cast<struct sy_pair *>(sy_shared());
  struct sy_routed *routed = args.routed;
  const struct sy_receive_cursor at = *args.cursor;
  struct sy_pair carry = {0, 0};
  for (int64_t base = 0; base < args.max_rows; base += SY_THREADS) {
    const int64_t i = base + threadIdx.x;
    struct sy_pair mine = {0, 0};
    if (i < args.max_rows) {
      const struct chunk_row row = find_row(env, args, at, i);
      if (row.rank < env.world) {
        const unsigned char *data =
            args.received[row.rank] + static_cast<size_t>(row.row) * env.wire_row.bytes;
        routed->received_row[i] = data;
        mine = {1, count_slots(env, data)};
      }
    }
    struct sy_pair total;
    const struct sy_pair before = sy_add(carry, sy_block_scan(mine, sums, &total));
    if (mine.rows > 0) {
      routed->row_slot_offset[i] = before.slots;
    }
    carry = sy_add(carry, total);
    if (total.rows == 0) {
      break; /* the same for all threads: no rows are left */
    }
  }
  if (threadIdx.x == 0) {
    routed->row_slot_offset[carry.rows] = carry.slots;
    routed->num_received = carry.rows;
    routed->num_routed = carry.slots;
  }
  __syncthreads();
  place_return_rows(env, args, at);
  if (threadIdx.x == 0) {
    *args.cursor = next_cursor(env, args, at);
  }
}

/* The slot of a row that is routed to local expert e: its number among the row's routed slots, and
 * its weight; -1: none. */
SY_DEVICE int32_t find_slot(const struct sy_stage_env &env, const unsigned char *row, int32_t e,
                            float *weight_out) {
  const struct sy_wire_slot *slots = sy_row_slots(&env, row);
  int32_t before = 0;
  for (int32_t j = 0; j < env.slots_per_row; ++j) {
    const int32_t expert = routed_expert(env, slots, j);
    if (expert == e) {
      *weight_out = slots[j].weight;
      return before;
    }
    before += expert >= 0 ? 1 : 0;
  }
  return -1;
}

/* Block e: expert_offset[e + 1] = its routed rows. */
SY_KERNEL void count_experts(struct sy_stage_env env, struct sy_group_args args) {
  struct sy_pair *sums = reinterpret_cast<struct sy_pair *>(sy_shared());
  const struct sy_routed *routed = args.routed;
  const int32_t e = static_cast<int32_t>(blockIdx.x);
  struct sy_pair mine = {0, 0};
  for (int64_t i = threadIdx.x; i < routed->num_received; i += SY_THREADS) {
    float weight;
    mine.rows += find_slot(env, routed->received_row[i], e, &weight) >= 0 ? 1 : 0;
  }
  struct sy_pair total;
  sy_block_scan(mine, sums, &total);
  if (threadIdx.x == 0) {
    routed->expert_offset[e + 1] = total.rows;
    args.load_counts[e] += static_cast<uint64_t>(total.rows);
  }
}

/* One block: counts -> begins, and the active list. A pair counts rows, and active experts. */
SY_KERNEL void list_experts(struct sy_stage_env env, struct sy_group_args args) {
  struct sy_pair *sums = reinterpret_cast<struct sy_pair *>(sy_shared());
  struct sy_routed *routed = args.routed;
  struct sy_pair carry = {0, 0};
  for (int32_t base = 0; base < env.local_experts; base += static_cast<int32_t>(SY_THREADS)) {
    const int32_t e = base + static_cast<int32_t>(threadIdx.x);
    struct sy_pair mine = {0, 0};
    if (e < env.local_experts) {
      mine.rows = routed->expert_offset[e + 1];
      mine.slots = mine.rows > 0 ? 1 : 0;
    }
    struct sy_pair total;
    const struct sy_pair before = sy_add(carry, sy_block_scan(mine, sums, &total));
    if (e < env.local_experts) {
      routed->expert_offset[e + 1] = before.rows + mine.rows;
    }
    if (mine.slots > 0) {
      routed->active_expert[before.slots] = e;
    }
    carry = sy_add(carry, total);
  }
  if (threadIdx.x == 0) {
    routed->expert_offset[0] = 0;
    routed->num_active = carry.slots;
  }
}

/* Block e: its routed rows, in row order. */
SY_KERNEL void place_rows(struct sy_stage_env env, struct sy_group_args args) {
  struct sy_pair *sums = reinterpret_cast<struct sy_pair *>(sy_shared());
  const struct sy_routed *routed = args.routed;
  const int32_t e = static_cast<int32_t>(blockIdx.x);
  struct sy_pair carry = {routed->expert_offset[e], 0};
  for (int64_t base = 0; base < routed->num_received; base += SY_THREADS) {
    const int64_t i = base + threadIdx.x;
    float weight = 0.0f;
    int32_t slot = -1;
    if (i < routed->num_received) {
      slot = find_slot(env, routed->received_row[i], e, &weight);
    }
    struct sy_pair total;
    const struct sy_pair before =
        sy_add(carry, sy_block_scan({slot >= 0 ? 1 : 0, 0}, sums, &total));
    if (slot >= 0) {
      routed->slot_routed[routed->row_slot_offset[i] + slot] = before.rows;
      routed->routed_source[before.rows] = static_cast<int32_t>(i);
      routed->routed_weight[before.rows] = weight;
    }
    carry = sy_add(carry, total);
  }
}

sy_status sy_cuda_group(const struct sy_stage_env *env, const struct sy_group_args *args) {
  const cudaStream_t stream = sy_stream(env);
  const unsigned experts = static_cast<unsigned>(env->local_experts);
  SY_CUDA_TRY(SY_LAUNCH(take_rows, 1, SY_THREADS, SY_SCAN_BYTES, stream, *env, *args));
  if (experts > 0) {
    SY_CUDA_TRY(SY_LAUNCH(count_experts, experts, SY_THREADS, SY_SCAN_BYTES, stream, *env, *args));
  }
  SY_CUDA_TRY(SY_LAUNCH(list_experts, 1, SY_THREADS, SY_SCAN_BYTES, stream, *env, *args));
  if (experts > 0) {
    SY_CUDA_TRY(SY_LAUNCH(place_rows, experts, SY_THREADS, SY_SCAN_BYTES, stream, *env, *args));
  }
  return SY_OK;
}
