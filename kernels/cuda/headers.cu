/* Headers and counters: what the CPU backend's host does between stages, done on the stream. Each is
 * one small block. A fault is noted once: the first, and among headers read together the one of the
 * lowest rank. */
#include "kernels/cuda/scan.cuh"

#define ALL_LANES 0xFFFFFFFFu

static_assert(SY_PEERS_PER_LAUNCH == SY_WARP, "a lane per peer");

/* The host reads `rank` first. */
SY_DEVICE void note_fault(struct sy_device_fault *noted, const struct sy_device_fault &fault) {
  if (noted->rank < 0) {
    noted->status = fault.status;
    noted->fault = fault.fault;
    for (int i = 0; i < 3; ++i) {
      noted->detail[i] = fault.detail[i];
    }
    noted->step = fault.step;
    __threadfence_system();
    noted->rank = fault.rank;
  }
}

/* ---- Out ---- */

/* Lane i: the header to rank first + i. */
SY_KERNEL void write_headers(struct sy_write_headers_args args) {
  const int32_t i = static_cast<int32_t>(threadIdx.x);
  if (i >= args.count) {
    return;
  }
  const int32_t p = args.first + i;
  struct sy_wire_header header = args.header;
  if (header.status == SY_OK && args.send_offset != nullptr) {
    const int32_t first = args.gather ? 0 : args.send_offset[p];
    const int32_t rows = args.gather ? args.send_offset[1] : args.send_offset[p + 1] - first;
    header.rows = static_cast<uint32_t>(rows);
    header.detail[0] = args.send_slot_offset[first + rows] - args.send_slot_offset[first];
  } else if (header.status == SY_OK) {
    header.rows = args.rows[i];
  }
  memcpy(args.message[i], &header, sizeof header);
  args.first_row[p] = args.message[i] + sizeof header;
  if (args.mirror != nullptr) {
    args.mirror[p] = header;
  }
}

sy_status sy_cuda_write_headers(const struct sy_stage_env *env,
                                const struct sy_write_headers_args *args) {
  SY_CUDA_TRY(SY_LAUNCH(write_headers, 1, SY_WARP, 0, sy_stream(env), *args));
  return SY_OK;
}

/* ---- In ---- */

/* SY_OK, or what is wrong with a header. */
SY_DEVICE sy_status judge(const struct sy_wire_header &header,
                          const struct sy_wire_header &expected) {
  if (header.magic != expected.magic || header.version != expected.version) {
    return SY_ERR_MISMATCH;
  }
  if (header.status != SY_OK) {
    return static_cast<sy_status>(header.status);
  }
  const bool same = header.call == expected.call && header.plan_hash == expected.plan_hash &&
                    header.step == expected.step && header.wave == expected.wave &&
                    header.tokens <= expected.tokens && header.rows <= expected.rows;
  return same ? SY_OK : SY_ERR_MISMATCH;
}

/* Lane i: the header from rank first + i. */
SY_KERNEL void read_headers(struct sy_read_headers_args args) {
  const int32_t i = static_cast<int32_t>(threadIdx.x);
  const int32_t p = args.first + i;
  struct sy_wire_header header = {};
  sy_status status = SY_OK;
  if (i < args.count) {
    memcpy(&header, args.message[i], sizeof header);
    status = args.fault == nullptr ? SY_OK : judge(header, args.expected);
    args.first_row[p] = args.message[i] + sizeof header;
    if (args.rows != nullptr) {
      args.rows[p] = status == SY_OK ? static_cast<int32_t>(header.rows) : 0;
    }
    if (args.mirror != nullptr) {
      args.mirror[p] = header;
    }
  }
  const uint32_t bad = __ballot_sync(ALL_LANES, status != SY_OK);
  if (bad != 0 && i == __ffs(static_cast<int>(bad)) - 1) {
    const bool told = header.status == static_cast<int16_t>(status);
    note_fault(args.fault, {p,
                            static_cast<int16_t>(status),
                            told ? header.fault : static_cast<uint16_t>(0),
                            {header.detail[0], header.detail[1], header.detail[2]},
                            args.expected.step});
  }
  if (i == 0 && args.routed_out != nullptr) {
    *args.routed_out = args.routed;
    *args.cursor_out = {0, 0, 0};
  }
}

sy_status sy_cuda_read_headers(const struct sy_stage_env *env,
                               const struct sy_read_headers_args *args) {
  SY_CUDA_TRY(SY_LAUNCH(read_headers, 1, SY_WARP, 0, sy_stream(env), *args));
  return SY_OK;
}

/* ---- Ids ---- */

#define NO_SLOT INT64_MAX

/* The first bad slot that this thread sees: token * top_k + slot. */
SY_DEVICE int64_t first_bad_slot(const struct sy_stage_env &env, const struct sy_route_args &args) {
  const int64_t count = args.num_tokens * env.top_k;
  for (int64_t s = threadIdx.x; s < count; s += SY_THREADS) {
    const int32_t *ids = reinterpret_cast<const int32_t *>(
        reinterpret_cast<const char *>(args.expert_ids) + s / env.top_k * args.expert_ids_stride);
    const int32_t id = ids[s % env.top_k];
    if (id < -1 || id >= env.num_experts) {
      return s;
    }
  }
  return NO_SLOT;
}

SY_KERNEL void note_ids(struct sy_stage_env env, struct sy_note_ids_args args) {
  int64_t *firsts = reinterpret_cast<int64_t *>(sy_shared());
  int64_t first = first_bad_slot(env, args.route);
  for (int delta = 16; delta > 0; delta /= 2) {
    const int64_t other = __shfl_xor_sync(ALL_LANES, first, delta);
    first = other < first ? other : first;
  }
  if (threadIdx.x % SY_WARP == 0) {
    firsts[threadIdx.x / SY_WARP] = first;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned w = 0; w < SY_THREADS / SY_WARP; ++w) {
      first = firsts[w] < first ? firsts[w] : first;
    }
    if (first != NO_SLOT) {
      const int64_t token = first / env.top_k;
      const int64_t slot = first % env.top_k;
      const int32_t *ids =
          reinterpret_cast<const int32_t *>(reinterpret_cast<const char *>(args.route.expert_ids) +
                                            token * args.route.expert_ids_stride);
      note_fault(args.noted, {env.rank,
                              static_cast<int16_t>(SY_ERR_ROUTING),
                              args.fault,
                              {args.first_token + token, slot, ids[slot]},
                              args.step});
    }
  }
}

sy_status sy_cuda_note_ids(const struct sy_stage_env *env, const struct sy_note_ids_args *args) {
  SY_CUDA_TRY(SY_LAUNCH(note_ids, 1, SY_THREADS, SY_THREADS / SY_WARP * sizeof(int64_t),
                        sy_stream(env), *env, *args));
  return SY_OK;
}

/* ---- Counters ---- */

SY_KERNEL void count_chunk(struct sy_stage_env env, struct sy_count_chunk_args args) {
  struct sy_pair *sums = reinterpret_cast<struct sy_pair *>(sy_shared());
  if (args.first) {
    for (int32_t e = static_cast<int32_t>(threadIdx.x); e < env.local_experts;
         e += static_cast<int32_t>(SY_THREADS)) {
      args.active[e] = 0;
    }
    __syncthreads();
  }
  struct sy_pair fresh = {0, 0};
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < args.routed->num_active;
       i += static_cast<int32_t>(SY_THREADS)) {
    unsigned char *active = &args.active[args.routed->active_expert[i]];
    fresh.rows += *active == 0 ? 1 : 0;
    *active = 1;
  }
  struct sy_pair total;
  sy_block_scan(fresh, sums, &total);
  if (threadIdx.x == 0) {
    args.counts->received_rows += static_cast<uint64_t>(args.routed->num_received);
    args.counts->routed_rows += static_cast<uint64_t>(args.routed->num_routed);
    args.counts->active_experts += static_cast<uint64_t>(total.rows);
  }
}

sy_status sy_cuda_count_chunk(const struct sy_stage_env *env,
                              const struct sy_count_chunk_args *args) {
  SY_CUDA_TRY(SY_LAUNCH(count_chunk, 1, SY_THREADS, SY_SCAN_BYTES, sy_stream(env), *env, *args));
  return SY_OK;
}
