#include <limits.h>
#include <mpi.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "launch/probe.h"

enum { TAG_GATHER = 71, TAG_RELEASE, TAG_CLOCK, TAG_PING, TAG_BULK, TAG_EXCHANGE };

/* The others wait longer than rank 0, which knows best who is missing, and speaks first. */
#define GRACE_S 3.0

/* Measuring ranks never sleep; those that wait do after this long, and leave them the cores. */
#define AWAKE_S 1e-3
#define NAP_NS 200000

#define PING_BYTES 64
#define MIN_PINGS 8
#define MAX_PINGS 200
#define PING_TIME_S 20e-3

#define FIRST_BULK_BYTES ((size_t)64 << 10)
#define MAX_BULK_BYTES ((size_t)4 << 20)
#define BULK_TIME_S 5e-3
#define BULK_REPEATS 3

struct probe_state {
  MPI_Request *requests; /* [2 * world] */
  int *peers;            /* [2 * world] whose request it is */
  int num_requests;
  unsigned char *flags; /* [world] */
  unsigned char *out;   /* [PROBE_BUFFER_BYTES] */
  unsigned char *in;    /* [PROBE_BUFFER_BYTES] */
};

static double seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

static double wall_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

bool probe_open(struct probe *probe, int rank, int world, double timeout_s) {
  *probe = (struct probe){.rank = rank, .world = world, .timeout_s = timeout_s};
  struct probe_state *state = calloc(1, sizeof *state);
  if (state != NULL) {
    probe->state = state;
    state->requests = calloc(2 * (size_t)world, sizeof(MPI_Request));
    state->peers = calloc(2 * (size_t)world, sizeof(int));
    state->flags = calloc((size_t)world, 1);
    state->out = calloc(1, PROBE_BUFFER_BYTES);
    state->in = calloc(1, PROBE_BUFFER_BYTES);
    if (state->requests != NULL && state->peers != NULL && state->flags != NULL &&
        state->out != NULL && state->in != NULL) {
      return true;
    }
    probe_close(probe);
  }
  snprintf(probe->error, sizeof probe->error, "out of memory for measurements");
  return false;
}

void probe_close(struct probe *probe) {
  if (probe->state != NULL) {
    free(probe->state->requests);
    free(probe->state->peers);
    free(probe->state->flags);
    free(probe->state->out);
    free(probe->state->in);
    free(probe->state);
    probe->state = NULL;
  }
}

/* ---- Messages with a deadline ---- */

static void send_to(struct probe *probe, int peer, int tag, const void *data, size_t bytes) {
  struct probe_state *state = probe->state;
  state->peers[state->num_requests] = peer;
  MPI_Isend(data, (int)bytes, MPI_BYTE, peer, tag, MPI_COMM_WORLD,
            &state->requests[state->num_requests++]);
}

static void receive_from(struct probe *probe, int peer, int tag, void *data, size_t bytes) {
  struct probe_state *state = probe->state;
  state->peers[state->num_requests] = peer;
  MPI_Irecv(data, (int)bytes, MPI_BYTE, peer, tag, MPI_COMM_WORLD,
            &state->requests[state->num_requests++]);
}

static void name_missing(struct probe *probe, const char *what) {
  struct probe_state *state = probe->state;
  char ranks[200] = "";
  memset(state->flags, 0, (size_t)probe->world);
  for (int i = 0; i < state->num_requests; ++i) {
    int done = 1;
    MPI_Test(&state->requests[i], &done, MPI_STATUS_IGNORE);
    if (!done) {
      state->flags[state->peers[i]] = 1;
    }
  }
  for (int peer = 0; peer < probe->world; ++peer) {
    if (state->flags[peer] != 0) {
      char name[16];
      snprintf(name, sizeof name, "%s%d", ranks[0] != '\0' ? ", " : "", peer);
      strncat(ranks, name, sizeof ranks - strlen(ranks) - 1);
    }
  }
  snprintf(probe->error, sizeof probe->error, "%s: not heard within %g s from rank %s", what,
           probe->timeout_s, ranks);
}

/* Until all requests since the last one are complete. */
static bool complete(struct probe *probe, const char *what, bool may_sleep) {
  struct probe_state *state = probe->state;
  const double begin = seconds();
  const double limit = probe->timeout_s + (probe->rank == 0 ? 0.0 : GRACE_S);
  while (state->num_requests > 0) {
    int done = 0;
    if (MPI_Testall(state->num_requests, state->requests, &done, MPI_STATUSES_IGNORE) !=
        MPI_SUCCESS) {
      snprintf(probe->error, sizeof probe->error, "%s: MPI reports that a message failed", what);
      return false;
    }
    if (done) {
      state->num_requests = 0;
      return true;
    }
    const double waited = seconds() - begin;
    if (waited > limit) {
      name_missing(probe, what);
      return false;
    }
    if (may_sleep && waited > AWAKE_S) {
      nanosleep(&(struct timespec){.tv_nsec = NAP_NS}, NULL);
    } else {
      sched_yield();
    }
  }
  return true; /* a world of one rank, for which MPI was not even started */
}

bool probe_allgather(struct probe *probe, const char *what, const void *mine, void *all,
                     size_t bytes) {
  if (bytes * (size_t)probe->world > INT_MAX) {
    snprintf(probe->error, sizeof probe->error, "%s: %zu bytes of each rank are too many", what,
             bytes);
    return false;
  }
  if (probe->rank != 0) {
    send_to(probe, 0, TAG_GATHER, mine, bytes);
    receive_from(probe, 0, TAG_RELEASE, all, bytes * (size_t)probe->world);
    return complete(probe, what, true);
  }
  memcpy(all, mine, bytes);
  for (int peer = 1; peer < probe->world; ++peer) {
    receive_from(probe, peer, TAG_GATHER, (char *)all + (size_t)peer * bytes, bytes);
  }
  if (!complete(probe, what, true)) {
    return false;
  }
  for (int peer = 1; peer < probe->world; ++peer) {
    send_to(probe, peer, TAG_RELEASE, all, bytes * (size_t)probe->world);
  }
  return complete(probe, what, true);
}

/* ---- Clocks ---- */

enum { CLOCK_ROUNDS = 12 };

/* Rank 0 asks, and takes the answer with the shortest round trip: the clock then was halfway. */
static bool ask_clock(struct probe *probe, int peer, double *ahead_s_out) {
  double shortest = 1e300;
  for (int i = 0; i < CLOCK_ROUNDS; ++i) {
    double theirs = 0.0;
    const double begin = wall_seconds();
    send_to(probe, peer, TAG_CLOCK, &begin, sizeof begin);
    receive_from(probe, peer, TAG_CLOCK, &theirs, sizeof theirs);
    if (!complete(probe, "comparing clocks", false)) {
      return false;
    }
    const double end = wall_seconds();
    if (end - begin < shortest) {
      shortest = end - begin;
      *ahead_s_out = theirs - 0.5 * (begin + end);
    }
  }
  return true;
}

static bool answer_clock(struct probe *probe) {
  for (int i = 0; i < CLOCK_ROUNDS; ++i) {
    double theirs = 0.0;
    receive_from(probe, 0, TAG_CLOCK, &theirs, sizeof theirs);
    if (!complete(probe, "comparing clocks", i == 0)) {
      return false;
    }
    const double mine = wall_seconds();
    send_to(probe, 0, TAG_CLOCK, &mine, sizeof mine);
    if (!complete(probe, "comparing clocks", false)) {
      return false;
    }
  }
  return true;
}

bool probe_clocks(struct probe *probe, double *ahead_s_out) {
  if (probe->rank != 0) {
    return answer_clock(probe);
  }
  ahead_s_out[0] = 0.0;
  for (int peer = 1; peer < probe->world; ++peer) {
    if (!ask_clock(probe, peer, &ahead_s_out[peer])) {
      return false;
    }
  }
  return true;
}

/* ---- Pairs ---- */

/* What the lower rank tells the other: the size of the next bulk message; 0: only this answer. */
struct ping {
  uint64_t bulk_bytes;
  uint64_t is_last;
  unsigned char rest[PING_BYTES - 16];
};

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a;
  const double y = *(const double *)b;
  return (x > y) - (x < y);
}

/* One ping and its echo, or a bulk message both ways behind it. */
static bool round_trip(struct probe *probe, int peer, struct ping ping, double *seconds_out) {
  struct ping echo;
  double begin = seconds();
  send_to(probe, peer, TAG_PING, &ping, sizeof ping);
  receive_from(probe, peer, TAG_PING, &echo, sizeof echo);
  if (!complete(probe, "measuring a pair", false)) {
    return false;
  }
  if (ping.bulk_bytes > 0) {
    begin = seconds();
    receive_from(probe, peer, TAG_BULK, probe->state->in, ping.bulk_bytes);
    send_to(probe, peer, TAG_BULK, probe->state->out, ping.bulk_bytes);
    if (!complete(probe, "measuring a pair", false)) {
      return false;
    }
  }
  *seconds_out = seconds() - begin;
  return true;
}

static bool measure_latency(struct probe *probe, int peer, double *latency_us_out) {
  double samples[MAX_PINGS];
  int count = 0;
  const double begin = seconds();
  double warm_up = 0.0;
  if (!round_trip(probe, peer, (struct ping){.bulk_bytes = 0}, &warm_up)) {
    return false;
  }
  while (count < MIN_PINGS || (count < MAX_PINGS && seconds() - begin < PING_TIME_S)) {
    if (!round_trip(probe, peer, (struct ping){.bulk_bytes = 0}, &samples[count++])) {
      return false;
    }
  }
  qsort(samples, (size_t)count, sizeof samples[0], compare_doubles);
  *latency_us_out = 0.5e6 * samples[count / 2];
  return true;
}

/* Larger messages until one takes long enough to be timed. */
static bool measure_bandwidth(struct probe *probe, int peer, double *gbs_out) {
  size_t bytes = FIRST_BULK_BYTES;
  double best = 0.0;
  for (int repeat = 0; repeat < BULK_REPEATS;) {
    double taken = 0.0;
    if (!round_trip(probe, peer, (struct ping){.bulk_bytes = bytes}, &taken)) {
      return false;
    }
    if (repeat == 0 && taken < BULK_TIME_S && bytes < MAX_BULK_BYTES) {
      bytes *= 4;
      continue;
    }
    best = repeat == 0 || taken < best ? taken : best;
    ++repeat;
  }
  *gbs_out = 1e-9 * (double)bytes / best;
  return true;
}

static bool serve_pair(struct probe *probe, int peer) {
  struct ping ping = {.is_last = 0};
  while (ping.is_last == 0) {
    receive_from(probe, peer, TAG_PING, &ping, sizeof ping);
    if (!complete(probe, "measuring a pair", false)) {
      return false;
    }
    send_to(probe, peer, TAG_PING, &ping, sizeof ping);
    if (ping.bulk_bytes > 0) {
      receive_from(probe, peer, TAG_BULK, probe->state->in, ping.bulk_bytes);
      send_to(probe, peer, TAG_BULK, probe->state->out, ping.bulk_bytes);
    }
    if (!complete(probe, "measuring a pair", false)) {
      return false;
    }
  }
  return true;
}

bool probe_pair(struct probe *probe, int peer, struct probe_link *link_out) {
  double last = 0.0;
  if (probe->rank > peer) {
    return serve_pair(probe, peer);
  }
  return measure_latency(probe, peer, &link_out->latency_us) &&
         measure_bandwidth(probe, peer, &link_out->bandwidth_gbs) &&
         round_trip(probe, peer, (struct ping){.is_last = 1}, &last);
}

/* ---- All at once ---- */

bool probe_exchange(struct probe *probe, const unsigned char *with, size_t block,
                    double *seconds_out) {
  struct probe_state *state = probe->state;
  unsigned char here = 0;
  if (!probe_allgather(probe, "starting an exchange", &here, state->flags, 1)) {
    return false;
  }
  const double begin = seconds();
  for (int i = 1; i < probe->world; ++i) { /* staggered, as the library visits its peers */
    const int from = (probe->rank - i + probe->world) % probe->world;
    if (with[from] != 0) {
      receive_from(probe, from, TAG_EXCHANGE, state->in + (size_t)from * block, block);
    }
  }
  for (int i = 1; i < probe->world; ++i) {
    const int to = (probe->rank + i) % probe->world;
    if (with[to] != 0) {
      send_to(probe, to, TAG_EXCHANGE, state->out + (size_t)to * block, block);
    }
  }
  if (!complete(probe, "exchanging with all", false)) {
    return false;
  }
  *seconds_out = seconds() - begin;
  return true;
}
