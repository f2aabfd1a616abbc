/* The side channel over TCP.
 *
 * Coming together: rank 0 listens at the address that all know. The others greet it, and say where
 * they listen themselves; when all have come it answers each with the list of places, or with what is
 * wrong. Then each rank calls those below it, so that every two have a connection: a rank that is
 * stuck is in nobody's way. Greetings with another magic are strangers', and are hung up on.
 *
 * Afterwards frames travel: beats (a step), and data (one rank's part of a gathering). Frames of a pair
 * arrive in order, so data that came early, for the next gathering, is left in the connection.
 * Numbers travel as they lie in memory: ranks are little-endian machines. */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "comm/clock.h"
#include "comm/side.h"
#include "comm/tcp.h"
#include "runtime/memory.h"
#include "runtime/status.h"

static const char magic[8] = "SYSIDE\r\n";
enum { VERSION = 1, GREETING_NS = 2000000000 };

struct greeting {
  char magic[8];
  uint32_t version;
  int32_t rank;
  int32_t world;
  uint32_t port;    /* where this rank listens */
  uint64_t session; /* 0 to rank 0, who tells it */
};

/* Where a rank listens. family 0: on rank 0's host, wherever that is for the reader. */
struct place {
  uint16_t family;
  uint16_t port;
  unsigned char address[16];
};

/* Rank 0's; struct place[world] follows when status is OK. */
struct answer {
  char magic[8];
  uint32_t version;
  int32_t status;
  uint64_t session;
  char text[200];
};

enum frame_kind { BEAT = 1, DATA = 2 };

struct frame {
  uint32_t kind;
  uint32_t unused;
  uint64_t value; /* the step, or how many bytes follow */
};

struct connection {
  int socket; /* -1: none */
  bool is_gone;
  uint64_t step;         /* last told by the peer */
  struct frame incoming; /* so far incoming_bytes of it; data's stays until it is gathered */
  size_t incoming_bytes;
  struct frame beat; /* under way to the peer, of which beat_left bytes are still here */
  size_t beat_left;
  size_t sent; /* of a gathering: bytes of its frame and data */
  size_t received;
};

struct tcp_side {
  struct sy_side base;
  uint64_t step;
  bool *missing;                  /* [world] */
  struct pollfd *pollers;         /* [world] */
  struct connection *connections; /* [world]; the own one unused */
};

static struct tcp_side *tcp_of(struct sy_side *side) { return (struct tcp_side *)side; }

/* ---- Frames ---- */

static bool awaits_data(const struct connection *c) {
  return c->incoming_bytes == sizeof c->incoming && c->incoming.kind == DATA;
}

/* Takes in beats, up to data. */
static void take_frames(struct connection *c) {
  while (!c->is_gone && !awaits_data(c)) {
    const ptrdiff_t received =
        sy_tcp_receive_some(c->socket, (char *)&c->incoming + c->incoming_bytes,
                            sizeof c->incoming - c->incoming_bytes);
    if (received == 0) {
      return;
    }
    c->is_gone = received < 0;
    c->incoming_bytes += received > 0 ? (size_t)received : 0;
    if (c->incoming_bytes == sizeof c->incoming && c->incoming.kind != DATA) {
      c->is_gone = c->incoming.kind != BEAT; /* nothing of ours */
      c->step = c->incoming.value > c->step ? c->incoming.value : c->step;
      c->incoming_bytes = 0;
    }
  }
}

/* The rest of a beat that is under way, then the newest if it is a later one. */
static void send_beats(const struct tcp_side *s, struct connection *c) {
  for (;;) {
    if (c->beat_left == 0) {
      if (c->is_gone || c->beat.value >= s->step) {
        return;
      }
      c->beat = (struct frame){.kind = BEAT, .value = s->step};
      c->beat_left = sizeof c->beat;
    }
    const ptrdiff_t sent = sy_tcp_send_some(
        c->socket, (const char *)&c->beat + sizeof c->beat - c->beat_left, c->beat_left);
    if (sent <= 0) {
      c->is_gone = c->is_gone || sent < 0;
      c->beat_left = sent < 0 ? 0 : c->beat_left;
      return;
    }
    c->beat_left -= (size_t)sent;
  }
}

static void tcp_beat(struct sy_side *side, uint64_t step) {
  struct tcp_side *s = tcp_of(side);
  s->step = step;
  for (int32_t peer = 0; peer < side->world; ++peer) {
    if (peer != side->rank) {
      send_beats(s, &s->connections[peer]);
    }
  }
}

static void tcp_steps(struct sy_side *side, uint64_t *steps_out) {
  struct tcp_side *s = tcp_of(side);
  for (int32_t peer = 0; peer < side->world; ++peer) {
    if (peer != side->rank) {
      send_beats(s, &s->connections[peer]);
      take_frames(&s->connections[peer]);
    }
    steps_out[peer] = peer == side->rank ? s->step : s->connections[peer].step;
  }
}

/* ---- Gathering ---- */

static void send_data(const struct tcp_side *s, struct connection *c, const struct frame *frame,
                      const unsigned char *mine) {
  send_beats(s, c);
  while (c->beat_left == 0 && !c->is_gone && c->sent < sizeof *frame + frame->value) {
    const bool in_frame = c->sent < sizeof *frame;
    const void *from = in_frame ? (const void *)((const char *)frame + c->sent)
                                : (const void *)(mine + c->sent - sizeof *frame);
    const size_t left = (in_frame ? sizeof *frame : sizeof *frame + frame->value) - c->sent;
    const ptrdiff_t sent = sy_tcp_send_some(c->socket, from, left);
    if (sent == 0) {
      return;
    }
    c->is_gone = sent < 0;
    c->sent += sent > 0 ? (size_t)sent : 0;
  }
}

/* Data of another size than this rank's is taken in, and dropped. */
static void take_data(struct connection *c, size_t bytes, unsigned char *to) {
  take_frames(c);
  while (awaits_data(c) && !c->is_gone && c->received < c->incoming.value) {
    unsigned char dropped[256];
    const size_t left = c->incoming.value - c->received;
    const bool is_kept = c->incoming.value == bytes;
    const ptrdiff_t received =
        sy_tcp_receive_some(c->socket, is_kept ? to + c->received : dropped,
                            is_kept || left < sizeof dropped ? left : sizeof dropped);
    if (received == 0) {
      return;
    }
    c->is_gone = received < 0;
    c->received += received > 0 ? (size_t)received : 0;
  }
}

static bool has_data(const struct connection *c) {
  return awaits_data(c) && c->received == c->incoming.value;
}

/* Moves all connections along; what each still waits for is in its poller. How many do. */
static int32_t progress(struct tcp_side *s, const struct frame *frame, const unsigned char *mine,
                        unsigned char *all) {
  int32_t num_open = 0;
  for (int32_t peer = 0; peer < s->base.world; ++peer) {
    struct connection *c = &s->connections[peer];
    s->pollers[peer] = (struct pollfd){.fd = -1};
    if (peer == s->base.rank) {
      continue;
    }
    send_data(s, c, frame, mine);
    take_data(c, frame->value, all + (size_t)peer * frame->value);
    const bool is_sent = c->sent == sizeof *frame + frame->value;
    if (!is_sent || !has_data(c)) {
      ++num_open;
      s->pollers[peer] = (struct pollfd){
          .fd = c->socket, .events = (short)((is_sent ? 0 : POLLOUT) | (has_data(c) ? 0 : POLLIN))};
    }
  }
  return num_open;
}

/* Those that are gone; when all are there, those not heard from, or that do not listen. */
static bool note_missing(struct tcp_side *s, const struct frame *frame) {
  bool any_gone = false;
  for (int32_t peer = 0; peer < s->base.world; ++peer) {
    const struct connection *c = &s->connections[peer];
    s->missing[peer] = peer != s->base.rank && c->is_gone && !has_data(c);
    any_gone = any_gone || s->missing[peer];
  }
  for (int32_t peer = 0; peer < s->base.world && !any_gone; ++peer) {
    const struct connection *c = &s->connections[peer];
    s->missing[peer] =
        peer != s->base.rank && (!has_data(c) || c->sent < sizeof *frame + frame->value);
  }
  return any_gone;
}

/* The next gathering begins anew. MISMATCH names the first rank that has another size. */
static sy_status finish_gathering(struct tcp_side *s, size_t bytes) {
  sy_status status = SY_OK;
  for (int32_t peer = 0; peer < s->base.world; ++peer) {
    struct connection *c = &s->connections[peer];
    if (peer != s->base.rank && c->incoming.value != bytes && status == SY_OK) {
      status = sy_fail(SY_ERR_MISMATCH, "rank %d gathers %zu bytes from each rank, rank %d %llu",
                       s->base.rank, bytes, peer, (unsigned long long)c->incoming.value);
    }
    c->incoming_bytes = 0;
    c->sent = 0;
    c->received = 0;
  }
  return status;
}

static sy_status tcp_allgather(struct sy_side *side, const void *mine, size_t bytes, void *all,
                               int64_t deadline_ns) {
  enum { LOOK_MS = 50 };
  struct tcp_side *s = tcp_of(side);
  const struct frame frame = {.kind = DATA, .value = bytes};
  memcpy((unsigned char *)all + (size_t)side->rank * bytes, mine, bytes);
  while (progress(s, &frame, mine, all) > 0) {
    if (note_missing(s, &frame) || sy_clock_ns() >= deadline_ns) {
      return SY_ERR_PEER;
    }
    poll(s->pollers, (nfds_t)side->world, LOOK_MS); /* an interruption is a look too */
  }
  return finish_gathering(s, bytes);
}

static bool tcp_missing(const struct sy_side *side, int32_t peer) {
  return ((const struct tcp_side *)side)->missing[peer];
}

/* ---- Rank 0: who has come ---- */

static struct answer make_answer(sy_status status, uint64_t session, const char *text) {
  struct answer answer = {.version = VERSION, .status = (int32_t)status, .session = session};
  memcpy(answer.magic, magic, sizeof magic);
  snprintf(answer.text, sizeof answer.text, "%s", text);
  return answer;
}

/* Nobody goes on: those who have come are told why. */
static sy_status refuse_all(struct tcp_side *s, int newcomer, sy_status status, const char *text) {
  const struct answer answer = make_answer(status, 0, text);
  const int64_t deadline_ns = sy_clock_ns() + GREETING_NS;
  for (int32_t peer = 1; peer < s->base.world; ++peer) {
    if (s->connections[peer].socket >= 0) {
      (void)sy_tcp_send(s->connections[peer].socket, &answer, sizeof answer, deadline_ns);
    }
  }
  if (newcomer >= 0) {
    (void)sy_tcp_send(newcomer, &answer, sizeof answer, deadline_ns);
    close(newcomer);
  }
  return sy_fail(status, "%s", text);
}

static struct place place_of(int socket, uint32_t port) {
  struct place place = {.port = (uint16_t)port};
  struct sockaddr_storage peer = {0};
  socklen_t bytes = sizeof peer;
  getpeername(socket, (struct sockaddr *)&peer, &bytes);
  if (peer.ss_family == AF_INET6) {
    const struct in6_addr *address = &((const struct sockaddr_in6 *)&peer)->sin6_addr;
    place.family = IN6_IS_ADDR_LOOPBACK(address) ? 0 : AF_INET6;
    memcpy(place.address, address, sizeof *address);
  } else {
    const struct in_addr *address = &((const struct sockaddr_in *)&peer)->sin_addr;
    place.family = ntohl(address->s_addr) >> 24 == 127 ? 0 : AF_INET;
    memcpy(place.address, address, sizeof *address);
  }
  return place;
}

/* What is wrong with a greeting, into text; false when nothing is. */
static bool find_fault(const struct tcp_side *s, const struct greeting *g, char *text,
                       size_t bytes) {
  const int32_t world = s->base.world;
  if (g->version != VERSION) {
    snprintf(text, bytes, "a rank speaks version %u of the rendezvous, rank 0 version %d",
             (unsigned)g->version, VERSION);
  } else if (g->world != world) {
    snprintf(text, bytes, "rank %d was started as one of %d ranks, rank 0 as one of %d", g->rank,
             g->world, world);
  } else if (g->rank < 1 || g->rank >= world) {
    snprintf(text, bytes, "somebody is rank %d; allowed beside rank 0: 1 to %d", g->rank,
             world - 1);
  } else if (s->connections[g->rank].socket >= 0) {
    snprintf(text, bytes, "two processes are rank %d", g->rank);
  } else {
    return false;
  }
  return true;
}

static void name_absent(const struct tcp_side *s, const char *address, char *text, size_t bytes) {
  int used = snprintf(text, bytes, "not all ranks came to %s in time; missing: rank", address);
  const char *comma = " ";
  for (int32_t peer = 1; peer < s->base.world && (size_t)used + 16 < bytes; ++peer) {
    if (s->connections[peer].socket < 0) {
      used += snprintf(text + used, bytes - (size_t)used, "%s%d", comma, peer);
      comma = ", ";
    }
  }
}

static sy_status welcome(struct tcp_side *s, int listener, const char *address,
                         struct place *places, int64_t deadline_ns) {
  char text[sizeof((struct answer *)0)->text];
  for (int32_t num_here = 1; num_here < s->base.world;) {
    const int newcomer = sy_tcp_accept(listener, deadline_ns);
    if (newcomer < 0) {
      name_absent(s, address, text, sizeof text);
      return refuse_all(s, -1, SY_ERR_PEER, text);
    }
    const int64_t soon_ns = sy_clock_ns() + GREETING_NS;
    struct greeting g;
    if (sy_tcp_receive(newcomer, &g, sizeof g, soon_ns < deadline_ns ? soon_ns : deadline_ns) !=
            0 ||
        memcmp(g.magic, magic, sizeof magic) != 0) {
      close(newcomer);
      continue;
    }
    if (find_fault(s, &g, text, sizeof text)) {
      return refuse_all(s, newcomer, SY_ERR_MISMATCH, text);
    }
    s->connections[g.rank].socket = newcomer;
    places[g.rank] = place_of(newcomer, g.port);
    ++num_here;
  }
  return SY_OK;
}

static sy_status gather_ranks(struct tcp_side *s, const struct addrinfo *at, const char *address,
                              int64_t deadline_ns) {
  const size_t places_bytes = (size_t)s->base.world * sizeof(struct place);
  int listener = -1;
  SY_TRY(sy_tcp_listen(at, address, &listener));
  struct place *places = sy_alloc(places_bytes);
  if (places == NULL) {
    close(listener);
    return sy_fail(SY_ERR_MEMORY, "no memory for the places of %d ranks", s->base.world);
  }
  memset(places, 0, places_bytes);
  sy_status status = welcome(s, listener, address, places, deadline_ns);
  close(listener);
  const struct answer answer = make_answer(SY_OK, (uint64_t)sy_clock_ns(), "");
  for (int32_t peer = 1; peer < s->base.world && status == SY_OK; ++peer) {
    const int socket = s->connections[peer].socket;
    if (sy_tcp_send(socket, &answer, sizeof answer, deadline_ns) != 0 ||
        sy_tcp_send(socket, places, places_bytes, deadline_ns) != 0) {
      status = sy_fail(SY_ERR_PEER, "rank %d came to %s and left again", peer, address);
    }
  }
  sy_free(places);
  return status;
}

/* ---- The others ---- */

static struct greeting make_greeting(const struct tcp_side *s, uint32_t port, uint64_t session) {
  struct greeting g = {.version = VERSION,
                       .rank = s->base.rank,
                       .world = s->base.world,
                       .port = port,
                       .session = session};
  memcpy(g.magic, magic, sizeof magic);
  return g;
}

/* Greets rank 0 and hears who is where. */
static sy_status greet(struct tcp_side *s, const char *address, uint16_t port,
                       struct answer *answer, struct place *places, int64_t deadline_ns) {
  const int socket = s->connections[0].socket;
  const struct greeting g = make_greeting(s, port, 0);
  int error = sy_tcp_send(socket, &g, sizeof g, deadline_ns);
  error = error != 0 ? error : sy_tcp_receive(socket, answer, sizeof *answer, deadline_ns);
  if (error != 0) {
    return sy_fail(SY_ERR_PEER, "rank %d: rank 0 at %s %s", s->base.rank, address,
                   error == ETIMEDOUT ? "did not answer in time: not all ranks have come"
                                      : "hung up without an answer");
  }
  if (memcmp(answer->magic, magic, sizeof magic) != 0) {
    return sy_fail(SY_ERR_MISMATCH, "rank %d: who answers at %s is no rank 0 of Switchyard",
                   s->base.rank, address);
  }
  if (answer->status != SY_OK) {
    answer->text[sizeof answer->text - 1] = '\0';
    return sy_fail((sy_status)answer->status, "%s", answer->text);
  }
  error = sy_tcp_receive(socket, places, (size_t)s->base.world * sizeof *places, deadline_ns);
  return error == 0 ? SY_OK
                    : sy_fail(SY_ERR_PEER, "rank %d: rank 0 at %s hung up", s->base.rank, address);
}

static sy_status call_peer(struct tcp_side *s, int32_t peer, const struct place *place,
                           uint64_t session, int64_t deadline_ns) {
  struct sockaddr_storage to = {0};
  socklen_t bytes = sizeof to;
  if (place->family == 0) {
    getpeername(s->connections[0].socket, (struct sockaddr *)&to, &bytes);
  } else {
    to.ss_family = place->family;
  }
  if (to.ss_family == AF_INET6) {
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&to;
    in6->sin6_port = htons(place->port);
    bytes = sizeof *in6;
    if (place->family != 0) {
      memcpy(&in6->sin6_addr, place->address, sizeof in6->sin6_addr);
    }
  } else {
    struct sockaddr_in *in = (struct sockaddr_in *)&to;
    in->sin_port = htons(place->port);
    bytes = sizeof *in;
    if (place->family != 0) {
      memcpy(&in->sin_addr, place->address, sizeof in->sin_addr);
    }
  }
  struct addrinfo there = {
      .ai_family = to.ss_family, .ai_addr = (struct sockaddr *)&to, .ai_addrlen = bytes};
  char name[32];
  snprintf(name, sizeof name, "rank %d's place", peer);
  struct connection *c = &s->connections[peer];
  SY_TRY(sy_tcp_connect(&there, name, deadline_ns, &c->socket));
  const struct greeting g = make_greeting(s, 0, session);
  return sy_tcp_send(c->socket, &g, sizeof g, deadline_ns) == 0
             ? SY_OK
             : sy_fail(SY_ERR_PEER, "rank %d: rank %d hung up", s->base.rank, peer);
}

/* Ranks above this one call it. */
static sy_status take_calls(struct tcp_side *s, int listener, uint64_t session,
                            int64_t deadline_ns) {
  for (int32_t num_left = s->base.world - 1 - s->base.rank; num_left > 0;) {
    const int caller = sy_tcp_accept(listener, deadline_ns);
    if (caller < 0) {
      return sy_fail(SY_ERR_PEER, "rank %d: %d of the ranks above it did not call in time",
                     s->base.rank, num_left);
    }
    struct greeting g;
    if (sy_tcp_receive(caller, &g, sizeof g, sy_clock_ns() + GREETING_NS) != 0 ||
        memcmp(g.magic, magic, sizeof magic) != 0 || g.session != session ||
        g.rank <= s->base.rank || g.rank >= s->base.world || s->connections[g.rank].socket >= 0) {
      close(caller);
      continue;
    }
    s->connections[g.rank].socket = caller;
    --num_left;
  }
  return SY_OK;
}

static sy_status join_ranks(struct tcp_side *s, const struct addrinfo *at, const char *address,
                            int64_t deadline_ns) {
  struct place *places = sy_alloc((size_t)s->base.world * sizeof *places);
  if (places == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory for the places of %d ranks", s->base.world);
  }
  struct answer answer;
  uint16_t port = 0;
  int listener = -1;
  sy_status status = sy_tcp_connect(at, address, deadline_ns, &s->connections[0].socket);
  if (status == SY_OK) {
    struct sockaddr_storage own = {0};
    socklen_t bytes = sizeof own;
    getsockname(s->connections[0].socket, (struct sockaddr *)&own, &bytes);
    status = sy_tcp_listen_anywhere(own.ss_family, &listener, &port);
  }
  if (status == SY_OK) {
    status = greet(s, address, port, &answer, places, deadline_ns);
  }
  for (int32_t peer = 1; peer < s->base.rank && status == SY_OK; ++peer) {
    status = call_peer(s, peer, &places[peer], answer.session, deadline_ns);
  }
  if (status == SY_OK) {
    status = take_calls(s, listener, answer.session, deadline_ns);
  }
  if (listener >= 0) {
    close(listener);
  }
  sy_free(places);
  return status;
}

/* ---- Life ---- */

static void tcp_destroy(struct sy_side *side) {
  struct tcp_side *s = tcp_of(side);
  for (int32_t peer = 0; s->connections != NULL && peer < side->world; ++peer) {
    if (s->connections[peer].socket >= 0) {
      close(s->connections[peer].socket);
    }
  }
  sy_free(s->connections);
  sy_free(s->pollers);
  sy_free(s->missing);
  sy_free(s);
}

static const struct sy_side_ops tcp_ops = {
    .name = "tcp",
    .allgather = tcp_allgather,
    .missing = tcp_missing,
    .beat = tcp_beat,
    .steps = tcp_steps,
    .destroy = tcp_destroy,
};

static sy_status allocate(struct tcp_side *s) {
  const size_t world = (size_t)s->base.world;
  s->connections = sy_alloc(world * sizeof *s->connections);
  s->pollers = sy_alloc(world * sizeof *s->pollers);
  s->missing = sy_alloc(world * sizeof *s->missing);
  for (size_t peer = 0; s->connections != NULL && peer < world; ++peer) {
    s->connections[peer] = (struct connection){.socket = -1};
  }
  if (s->connections == NULL || s->pollers == NULL || s->missing == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory for connections to %zu ranks", world);
  }
  memset(s->missing, 0, world * sizeof *s->missing);
  return SY_OK;
}

sy_status sy_side_create_tcp(const char *address, int32_t rank, int32_t world, int64_t deadline_ns,
                             struct sy_side **side_out) {
  if (world < 1 || rank < 0 || rank >= world) {
    return sy_fail(SY_ERR_ARGUMENT, "rank is %d of %d", rank, world);
  }
  struct addrinfo *at = NULL;
  SY_TRY(sy_tcp_resolve(address, &at));
  struct tcp_side *s = sy_alloc(sizeof *s);
  if (s == NULL) {
    freeaddrinfo(at);
    return sy_fail(SY_ERR_MEMORY, "no memory for the side channel");
  }
  *s = (struct tcp_side){.base = {.ops = &tcp_ops, .rank = rank, .world = world}};
  sy_status status = allocate(s);
  if (status == SY_OK && world > 1) {
    status = rank == 0 ? gather_ranks(s, at, address, deadline_ns)
                       : join_ranks(s, at, address, deadline_ns);
  }
  freeaddrinfo(at);
  if (status != SY_OK) {
    tcp_destroy(&s->base);
    return status;
  }
  *side_out = &s->base;
  return SY_OK;
}
