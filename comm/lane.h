/* What transports have in common: the arenas of one direction (a lane), where the messages of an
 * exchange lie in them, and the order of its calls.
 *
 *   out | to peer 0 | to peer 1 | ...         without the own rank; unused by a broadcast
 *   in  | from peer 0 | from peer 1 | ...     the own rank's message in its place
 *
 * Invariants: every message starts at a multiple of SY_MESSAGE_ALIGN; a peer's place in `in` has
 * receive_max bytes, the own rank's has its send bytes. Each open is followed by one start and one
 * wait: peers count on the same sequence of messages in every lane. In debug builds a fence follows
 * every place in host memory, which start and close look at.
 *
 * SY_API, since transports of other libraries (switchyard_mpi) are made of it. */
#ifndef SY_COMM_LANE_H
#define SY_COMM_LANE_H

#include "comm/transport.h"

enum sy_lane_state { SY_LANE_CLOSED = 0, SY_LANE_OPEN, SY_LANE_STARTED };

/* The value of received_bytes until the message is here, and when more than receive_max came. */
#define SY_LANE_TRUNCATED SIZE_MAX

struct sy_lane_message {
  size_t send_bytes;
  size_t receive_max;
  size_t out_offset;
  size_t in_offset;
  size_t received_bytes;
};

struct sy_buffer {
  unsigned char *start;
  size_t bytes;
};

struct sy_lane {
  const struct sy_arena_memory *memory; /* of `out` and `in` */
  int32_t rank;
  int32_t world;
  enum sy_lane_state state;
  bool broadcast;
  struct sy_buffer out;
  struct sy_buffer in;
  struct sy_lane_message *messages; /* [world] */
};

/* A closed lane: `out` empty, `in` of in_bytes. MEMORY leaves nothing behind. */
SY_API sy_status sy_lane_create(struct sy_lane *lane, const struct sy_arena_memory *memory,
                                int32_t rank, int32_t world, size_t in_bytes);
SY_API void sy_lane_destroy(struct sy_lane *lane);

/* Places all messages and opens the lane. STATE, ARGUMENT (a size that is no multiple of
 * SY_MESSAGE_ALIGN), TOO_SMALL: the lane stays as it was. */
SY_API sy_status sy_lane_open(struct sy_lane *lane, bool broadcast,
                              const struct sy_message_bytes *messages);

/* The next state; STATE if the lane is not in the one before it; INTERNAL if a message was written
 * past its place. */
SY_API sy_status sy_lane_start(struct sy_lane *lane);
SY_API sy_status sy_lane_check_started(const struct sy_lane *lane);
SY_API sy_status sy_lane_close(struct sy_lane *lane);

SY_API void *sy_lane_landing(const struct sy_lane *lane, int32_t peer);
SY_API const void *sy_lane_received(const struct sy_lane *lane, int32_t peer, size_t *bytes_out);

/* Larger arenas of both directions, in two steps, so that ranks can agree in between: every
 * prepare that succeeds is followed by a commit or a discard. STATE (an exchange is
 * open), MEMORY. */
struct sy_arena_growth { /* start is NULL where the old buffer suffices */
  const struct sy_arena_memory *memory;
  struct sy_buffer out[SY_NUM_DIRECTIONS];
  struct sy_buffer in[SY_NUM_DIRECTIONS];
};

SY_API sy_status sy_arena_growth_prepare(struct sy_lane lanes[SY_NUM_DIRECTIONS],
                                         const struct sy_arena_bytes *bytes,
                                         struct sy_arena_growth *growth_out);
SY_API void sy_arena_growth_commit(struct sy_lane lanes[SY_NUM_DIRECTIONS],
                                   struct sy_arena_growth *growth);
SY_API void sy_arena_growth_discard(struct sy_arena_growth *growth);

#endif
