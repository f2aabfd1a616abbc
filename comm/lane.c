#include "comm/lane.h"

#include <string.h>

#include "runtime/memory.h"
#include "runtime/status.h"

const struct sy_arena_memory sy_arena_host = {
    .kind = SY_MEMORY_HOST, .alloc = sy_alloc, .free = sy_free};

/* ---- Fences ---- */

#if defined(SY_FENCES)
enum { FENCE_BYTES = 64 };
#else
enum { FENCE_BYTES = 0 };
#endif
enum { FENCE_BYTE = 0xFE };

/* Room for an arena of so many bytes and a fence for each of its places. */
static void *alloc_fenced(const struct sy_arena_memory *memory, size_t bytes, int32_t world) {
  const size_t fences = (size_t)world * FENCE_BYTES;
  return bytes > SIZE_MAX - fences ? NULL : memory->alloc(bytes + fences);
}

static void raise_fence(const struct sy_lane *lane, const struct sy_buffer *arena, size_t end) {
  if (lane->memory->kind == SY_MEMORY_HOST) {
    memset(arena->start + end, FENCE_BYTE, FENCE_BYTES);
  }
}

static sy_status check_fence(const struct sy_lane *lane, const struct sy_buffer *arena,
                             size_t offset, size_t bytes, const char *which, int32_t peer) {
  for (int i = 0; lane->memory->kind == SY_MEMORY_HOST && i < FENCE_BYTES; ++i) {
    if (arena->start[offset + bytes + (size_t)i] != FENCE_BYTE) {
      return sy_fail(SY_ERR_INTERNAL, "the message %s rank %d was written past its %zu bytes",
                     which, peer, bytes);
    }
  }
  return SY_OK;
}

static size_t in_bytes_of(const struct sy_lane *lane, int32_t peer) {
  const struct sy_lane_message *m = &lane->messages[peer];
  return peer == lane->rank ? m->send_bytes : m->receive_max;
}

static sy_status check_fences(const struct sy_lane *lane) {
  for (int32_t peer = 0; peer < lane->world; ++peer) {
    const struct sy_lane_message *m = &lane->messages[peer];
    if (peer != lane->rank && !lane->broadcast) {
      SY_TRY(check_fence(lane, &lane->out, m->out_offset, m->send_bytes, "to", peer));
    }
    SY_TRY(check_fence(lane, &lane->in, m->in_offset, in_bytes_of(lane, peer),
                       peer == lane->rank ? "to" : "from", peer));
  }
  return SY_OK;
}

/* ---- Life ---- */

/* Empty arenas are blocks all the same: a message of 0 bytes has an address too. */
sy_status sy_lane_create(struct sy_lane *lane, const struct sy_arena_memory *memory, int32_t rank,
                         int32_t world, size_t in_bytes) {
  struct sy_lane fresh = {.memory = memory, .rank = rank, .world = world};
  fresh.messages = sy_alloc((size_t)world * sizeof *fresh.messages);
  fresh.out.start = alloc_fenced(memory, 0, world);
  fresh.in.start = alloc_fenced(memory, in_bytes, world);
  fresh.in.bytes = in_bytes;
  if (fresh.messages == NULL || fresh.out.start == NULL || fresh.in.start == NULL) {
    sy_lane_destroy(&fresh);
    return sy_fail(SY_ERR_MEMORY, "no memory for the message table of %d ranks", world);
  }
  *lane = fresh;
  return SY_OK;
}

void sy_lane_destroy(struct sy_lane *lane) {
  if (lane->memory != NULL) {
    lane->memory->free(lane->out.start);
    lane->memory->free(lane->in.start);
  }
  sy_free(lane->messages);
  *lane = (struct sy_lane){0};
}

/* ---- Order of calls ---- */

static sy_status expect_state(const struct sy_lane *lane, enum sy_lane_state expected,
                              const char *call) {
  static const char *const names[] = {"closed", "open", "started"};
  if (lane->state == expected) {
    return SY_OK;
  }
  return sy_fail(SY_ERR_STATE, "%s of an exchange that is %s; it must be %s", call,
                 names[lane->state], names[expected]);
}

sy_status sy_lane_start(struct sy_lane *lane) {
  SY_TRY(expect_state(lane, SY_LANE_OPEN, "start"));
  SY_TRY(check_fences(lane));
  lane->state = SY_LANE_STARTED;
  return SY_OK;
}

sy_status sy_lane_check_started(const struct sy_lane *lane) {
  return expect_state(lane, SY_LANE_STARTED, "wait");
}

sy_status sy_lane_close(struct sy_lane *lane) {
  lane->state = SY_LANE_CLOSED;
  return check_fences(lane);
}

/* ---- Places of messages ---- */

static sy_status take_place(const struct sy_lane *lane, const struct sy_buffer *arena,
                            const char *arena_name, int32_t peer, size_t bytes, size_t *used,
                            size_t *offset_out) {
  if (bytes % SY_MESSAGE_ALIGN != 0) {
    return sy_fail(SY_ERR_ARGUMENT, "rank %d's message of %zu bytes: must be a multiple of %d",
                   peer, bytes, SY_MESSAGE_ALIGN);
  }
  if (bytes > arena->bytes - *used) {
    return sy_fail(SY_ERR_TOO_SMALL,
                   "rank %d's message of %zu bytes does not fit: the `%s` arena has %zu bytes, of "
                   "which %zu are taken",
                   peer, bytes, arena_name, arena->bytes, *used);
  }
  *offset_out = *used + (size_t)peer * FENCE_BYTES;
  *used += bytes;
  raise_fence(lane, arena, *offset_out + bytes);
  return SY_OK;
}

sy_status sy_lane_open(struct sy_lane *lane, bool broadcast,
                       const struct sy_message_bytes *messages) {
  SY_TRY(expect_state(lane, SY_LANE_CLOSED, "open"));
  size_t out_used = 0;
  size_t in_used = 0;
  for (int32_t peer = 0; peer < lane->world; ++peer) {
    struct sy_lane_message *m = &lane->messages[peer];
    const bool own = peer == lane->rank;
    m->send_bytes = messages[broadcast ? lane->rank : peer].send;
    m->receive_max = messages[peer].receive_max;
    m->received_bytes = SY_LANE_TRUNCATED;
    if (!own && !broadcast) {
      SY_TRY(take_place(lane, &lane->out, "out", peer, m->send_bytes, &out_used, &m->out_offset));
    }
    SY_TRY(
        take_place(lane, &lane->in, "in", peer, in_bytes_of(lane, peer), &in_used, &m->in_offset));
    if (own && m->send_bytes <= m->receive_max) {
      m->received_bytes = m->send_bytes;
    }
  }
  lane->broadcast = broadcast;
  lane->state = SY_LANE_OPEN;
  return SY_OK;
}

void *sy_lane_landing(const struct sy_lane *lane, int32_t peer) {
  if (peer == lane->rank || lane->broadcast) {
    return lane->in.start + lane->messages[lane->rank].in_offset;
  }
  return lane->out.start + lane->messages[peer].out_offset;
}

const void *sy_lane_received(const struct sy_lane *lane, int32_t peer, size_t *bytes_out) {
  const struct sy_lane_message *m = &lane->messages[peer];
  const bool truncated = m->received_bytes == SY_LANE_TRUNCATED;
  *bytes_out = truncated ? 0 : m->received_bytes;
  return truncated ? NULL : lane->in.start + m->in_offset;
}

/* ---- Arenas ---- */

static sy_status grow(const struct sy_lane *lane, const struct sy_buffer *old, size_t bytes,
                      struct sy_buffer *fresh) {
  if (bytes <= old->bytes) {
    return SY_OK;
  }
  fresh->start = alloc_fenced(lane->memory, bytes, lane->world);
  if (fresh->start == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory for %zu bytes of exchange memory", bytes);
  }
  fresh->bytes = bytes;
  return SY_OK;
}

sy_status sy_arena_growth_prepare(struct sy_lane lanes[SY_NUM_DIRECTIONS],
                                  const struct sy_arena_bytes *bytes,
                                  struct sy_arena_growth *growth_out) {
  struct sy_arena_growth growth = {.memory = lanes[0].memory};
  sy_status status = SY_OK;
  for (int d = 0; d < SY_NUM_DIRECTIONS && status == SY_OK; ++d) {
    status = expect_state(&lanes[d], SY_LANE_CLOSED, "reserve in the middle");
  }
  for (int d = 0; d < SY_NUM_DIRECTIONS && status == SY_OK; ++d) {
    status = grow(&lanes[d], &lanes[d].out, bytes->out[d], &growth.out[d]);
    if (status == SY_OK) {
      status = grow(&lanes[d], &lanes[d].in, bytes->in[d], &growth.in[d]);
    }
  }
  if (status != SY_OK) {
    sy_arena_growth_discard(&growth);
    return status;
  }
  *growth_out = growth;
  return SY_OK;
}

static void replace(const struct sy_arena_memory *memory, struct sy_buffer *old,
                    struct sy_buffer *fresh) {
  if (fresh->start != NULL) {
    memory->free(old->start);
    *old = *fresh;
    *fresh = (struct sy_buffer){0};
  }
}

void sy_arena_growth_commit(struct sy_lane lanes[SY_NUM_DIRECTIONS],
                            struct sy_arena_growth *growth) {
  for (int d = 0; d < SY_NUM_DIRECTIONS; ++d) {
    replace(growth->memory, &lanes[d].out, &growth->out[d]);
    replace(growth->memory, &lanes[d].in, &growth->in[d]);
  }
}

void sy_arena_growth_discard(struct sy_arena_growth *growth) {
  for (int d = 0; d < SY_NUM_DIRECTIONS; ++d) {
    if (growth->memory != NULL) {
      growth->memory->free(growth->out[d].start);
      growth->memory->free(growth->in[d].start);
    }
  }
  *growth = (struct sy_arena_growth){0};
}
