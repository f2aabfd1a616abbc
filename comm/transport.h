/* The exchange seam: moves one message per peer and direction. It knows bytes, not rows.
 *
 * One exchange in a direction is: open (sizes known, receives posted, memory carved), landing
 * (where to write each message), start (send), wait (until every peer's message is here and ours
 * are gone), received (read in place). Memory: an `out` arena for messages to other ranks and an
 * `in` arena for messages from every rank. The own rank's message is written where it is read, in
 * `in`.
 *
 * In device memory an exchange is ordered on a stream: start enqueues it, and work enqueued behind
 * wait finds the messages. The sizes are known on both sides: exactly receive_max bytes come. */
#ifndef SY_COMM_TRANSPORT_H
#define SY_COMM_TRANSPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/switchyard.h"

enum sy_direction { SY_DISPATCH = 0, SY_RETURN = 1, SY_NUM_DIRECTIONS = 2 };

/* Every message starts at a multiple of this and its size is one. */
#define SY_MESSAGE_ALIGN 16

struct sy_arena_bytes {
  size_t out[SY_NUM_DIRECTIONS];
  size_t in[SY_NUM_DIRECTIONS];
};

/* The sizes of one exchange with one peer: what goes there, and the most that may come. */
struct sy_message_bytes {
  size_t send;
  size_t receive_max;
};

struct sy_transport {
  const struct sy_transport_ops *ops;
  sy_memory memory; /* where landing and received lie */
  int32_t rank;
  int32_t world;
  void *stream; /* device memory: where start enqueues; the runtime's, set before open */
};

struct sy_transport_ops {
  const char *name;

  /* Grows the arenas to at least these sizes. Collective: ranks whose needs differ still all call,
   * and wait for each other until deadline_ns. No exchange may be open. MEMORY, when some rank has
   * none, comes on all ranks and leaves the old arenas in place. */
  sy_status (*reserve)(struct sy_transport *t, const struct sy_arena_bytes *bytes,
                       int64_t deadline_ns);

  /* Opens an exchange: messages[world]. broadcast: one message, of messages[rank].send bytes, is
   * the message to every peer; it is written once, at the own rank's landing. TOO_SMALL if the
   * sizes exceed the arenas. */
  sy_status (*open)(struct sy_transport *t, enum sy_direction direction, bool broadcast,
                    const struct sy_message_bytes *messages);

  /* Where the message to `peer` is written, between open and start; aligned to SY_MESSAGE_ALIGN. */
  void *(*landing)(struct sy_transport *t, enum sy_direction direction, int32_t peer);

  /* Sends all messages; peers in the order rank + i mod world. Does not block. In device memory:
   * enqueued on the stream, behind what writes the messages. */
  sy_status (*start)(struct sy_transport *t, enum sy_direction direction);

  /* Moves things along without blocking; *done_out when all receives and sends have completed. */
  sy_status (*progress)(struct sy_transport *t, enum sy_direction direction, bool *done_out);

  /* Progress until done or until the monotonic clock passes deadline_ns: then PEER, and missing()
   * tells which peers were not heard from. Yields the core while it waits. In device memory: until
   * the library has taken the exchange; what the stream does is not awaited. */
  sy_status (*wait)(struct sy_transport *t, enum sy_direction direction, int64_t deadline_ns);

  /* The message from `peer`, valid until the next open in this direction; bytes_out its size.
   * NULL when the peer sent more than receive_max: the ranks disagree about sizes. */
  const void *(*received)(struct sy_transport *t, enum sy_direction direction, int32_t peer,
                          size_t *bytes_out);

  /* This rank has begun `step`: told to the peers, where there is a way beside the stream, so that
   * missing() can tell who has not. Does not block. */
  void (*beat)(struct sy_transport *t, uint64_t step);

  /* Device memory: what has gone wrong on the stream so far. TRANSPORT; does not block. */
  sy_status (*check)(struct sy_transport *t);

  /* Device memory: the runtime has waited too long for the stream. missing() then tells which peers
   * have not begun this rank's step; peers may be asked, for a second at most. */
  void (*expired)(struct sy_transport *t);

  /* After wait, allgather or reserve returned PEER, or after expired: whether this peer is one that
   * was waited for. */
  bool (*missing)(const struct sy_transport *t, int32_t peer);

  /* Small set-up collective: `bytes` from each rank, into all[world * bytes] in rank order. */
  sy_status (*allgather)(struct sy_transport *t, const void *mine, size_t bytes, void *all,
                         int64_t deadline_ns);

  /* What the native library said about the last TRANSPORT error, or why missing() cannot tell; empty
   * if nothing. */
  const char *(*error_text)(const struct sy_transport *t);

  /* The group is dead: nothing is sent, awaited or freed from now on (a late peer may
   * still write). */
  void (*abort)(struct sy_transport *t);

  /* Releases everything; after abort only what no peer can reach. Does not communicate. */
  void (*destroy)(struct sy_transport *t);
};

/* Where a transport's arenas come from; alloc gives NULL when memory has run out. */
struct sy_arena_memory {
  sy_memory kind;
  void *(*alloc)(size_t bytes);
  void (*free)(void *block);
};

/* sy_alloc and sy_free. */
SY_API extern const struct sy_arena_memory sy_arena_host;

/* The transport of a world of one process. */
SY_API sy_status sy_transport_create_local(const struct sy_arena_memory *memory,
                                           struct sy_transport **transport_out);

#endif
