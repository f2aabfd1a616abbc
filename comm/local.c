/* The transport of a world of one process: the only message is written where it is read. */
#include <string.h>

#include "comm/lane.h"
#include "comm/transport.h"
#include "runtime/memory.h"
#include "runtime/status.h"

struct local_transport {
  struct sy_transport base;
  bool dead;
  struct sy_lane lanes[SY_NUM_DIRECTIONS];
};

static struct local_transport *local_of(struct sy_transport *t) {
  return (struct local_transport *)t;
}

static sy_status local_reserve(struct sy_transport *t, const struct sy_arena_bytes *bytes,
                               int64_t deadline_ns) {
  (void)deadline_ns;
  struct local_transport *local = local_of(t);
  struct sy_arena_growth growth;
  if (local->dead) {
    return SY_ERR_PEER;
  }
  SY_TRY(sy_arena_growth_prepare(local->lanes, bytes, &growth));
  sy_arena_growth_commit(local->lanes, &growth);
  return SY_OK;
}

static sy_status local_open(struct sy_transport *t, enum sy_direction direction, bool broadcast,
                            const struct sy_message_bytes *messages) {
  struct local_transport *local = local_of(t);
  return local->dead ? SY_ERR_PEER : sy_lane_open(&local->lanes[direction], broadcast, messages);
}

static void *local_landing(struct sy_transport *t, enum sy_direction direction, int32_t peer) {
  return sy_lane_landing(&local_of(t)->lanes[direction], peer);
}

static sy_status local_start(struct sy_transport *t, enum sy_direction direction) {
  struct local_transport *local = local_of(t);
  return local->dead ? SY_ERR_PEER : sy_lane_start(&local->lanes[direction]);
}

static sy_status local_progress(struct sy_transport *t, enum sy_direction direction,
                                bool *done_out) {
  struct local_transport *local = local_of(t);
  if (local->dead) {
    return SY_ERR_PEER;
  }
  SY_TRY(sy_lane_check_started(&local->lanes[direction]));
  *done_out = true;
  return SY_OK;
}

static sy_status local_wait(struct sy_transport *t, enum sy_direction direction,
                            int64_t deadline_ns) {
  (void)deadline_ns;
  bool done = false;
  SY_TRY(local_progress(t, direction, &done));
  return sy_lane_close(&local_of(t)->lanes[direction]);
}

static const void *local_received(struct sy_transport *t, enum sy_direction direction, int32_t peer,
                                  size_t *bytes_out) {
  return sy_lane_received(&local_of(t)->lanes[direction], peer, bytes_out);
}

/* Nobody to tell, and nothing to go wrong: the stream carries kernels alone. */
static void local_beat(struct sy_transport *t, uint64_t step) {
  (void)t;
  (void)step;
}

static sy_status local_check(struct sy_transport *t) {
  return local_of(t)->dead ? SY_ERR_PEER : SY_OK;
}

static void local_expired(struct sy_transport *t) { (void)t; }

static bool local_missing(const struct sy_transport *t, int32_t peer) {
  (void)t;
  (void)peer;
  return false;
}

static sy_status local_allgather(struct sy_transport *t, const void *mine, size_t bytes, void *all,
                                 int64_t deadline_ns) {
  (void)deadline_ns;
  if (local_of(t)->dead) {
    return SY_ERR_PEER;
  }
  memcpy(all, mine, bytes);
  return SY_OK;
}

static const char *local_error_text(const struct sy_transport *t) {
  (void)t;
  return "";
}

static void local_abort(struct sy_transport *t) { local_of(t)->dead = true; }

static void local_destroy(struct sy_transport *t) {
  struct local_transport *local = local_of(t);
  for (int d = 0; d < SY_NUM_DIRECTIONS; ++d) {
    sy_lane_destroy(&local->lanes[d]);
  }
  sy_free(local);
}

static const struct sy_transport_ops local_ops = {
    .name = "local",
    .reserve = local_reserve,
    .open = local_open,
    .landing = local_landing,
    .start = local_start,
    .progress = local_progress,
    .wait = local_wait,
    .received = local_received,
    .beat = local_beat,
    .check = local_check,
    .expired = local_expired,
    .missing = local_missing,
    .allgather = local_allgather,
    .error_text = local_error_text,
    .abort = local_abort,
    .destroy = local_destroy,
};

sy_status sy_transport_create_local(const struct sy_arena_memory *memory,
                                    struct sy_transport **transport_out) {
  struct local_transport *local = sy_alloc(sizeof *local);
  if (local == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory for the local transport");
  }
  *local = (struct local_transport){
      .base = {.ops = &local_ops, .memory = memory->kind, .rank = 0, .world = 1}};
  for (int d = 0; d < SY_NUM_DIRECTIONS; ++d) {
    const sy_status status = sy_lane_create(&local->lanes[d], memory, 0, 1, 0);
    if (status != SY_OK) {
      local_destroy(&local->base);
      return status;
    }
  }
  *transport_out = &local->base;
  return SY_OK;
}
