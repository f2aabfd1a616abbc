#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "launch/doctor.h"

/* Up to here every pair is measured while all others rest; beyond, disjoint pairs at once. */
#define MAX_WORLD_OF_LONE_PAIRS 16

#define FIRST_BLOCK ((size_t)4 << 10)
#define EXCHANGE_TIME_S 20e-3
#define GROWTH_TRIES 3
#define EXCHANGE_REPEATS 5
#define SMALL_BLOCK ((size_t)64)
#define SMALL_REPEATS 15

static int compare_doubles(const void *a, const void *b) {
  const double x = *(const double *)a;
  const double y = *(const double *)b;
  return (x > y) - (x < y);
}

/* Sorts; count > 0. */
static double median_of(double *values, size_t count) {
  qsort(values, count, sizeof *values, compare_doubles);
  return values[count / 2];
}

static int level_of(const struct doctor_sheet *sheet, int32_t a, int32_t b) {
  return sheet->host_of[a] == sheet->host_of[b] ? DOCTOR_IN_HOST : DOCTOR_BETWEEN;
}

static bool belongs(const struct doctor_sheet *sheet, int level, int32_t a, int32_t b) {
  return a != b && (level == DOCTOR_ALL || level_of(sheet, a, b) == level);
}

/* ---- Pairs ---- */

/* Of round `round` of a tournament in which everybody meets everybody once: the partner of `rank`
 * among `players` (even), or itself when it is the odd one out. */
static int32_t partner_of(int32_t rank, int32_t round, int32_t players) {
  const int32_t last = players - 1;
  assert(last > 0);
  if (rank == last) {
    return (int32_t)((int64_t)round * (players / 2) % last);
  }
  const int32_t partner = (round - rank + last) % last;
  return partner == rank ? last : partner;
}

static bool rest(struct probe *probe, unsigned char *flags) {
  const unsigned char here = 0;
  return probe_allgather(probe, "measuring pairs of ranks", &here, flags, 1);
}

static bool play_round(struct probe *probe, struct doctor_sheet *sheet, int32_t round,
                       int32_t players, unsigned char *flags) {
  const int32_t mine = partner_of(probe->rank, round, players);
  const bool alone = probe->world <= MAX_WORLD_OF_LONE_PAIRS;
  for (int32_t lower = 0; lower < probe->world; ++lower) {
    const int32_t upper = partner_of(lower, round, players);
    if (upper <= lower || upper >= probe->world) {
      continue;
    }
    const bool is_mine = probe->rank == lower || probe->rank == upper;
    if (is_mine &&
        !probe_pair(probe, mine,
                    &sheet->pairs[(size_t)lower * (size_t)sheet->world + (size_t)upper])) {
      return false;
    }
    if (alone && !rest(probe, flags)) {
      return false;
    }
  }
  return alone || rest(probe, flags);
}

/* Each rank has measured its row's right part; all rows, mirrored, are the matrix. */
static bool share_pairs(struct probe *probe, struct doctor_sheet *sheet) {
  const size_t world = (size_t)sheet->world;
  struct probe_link *row = malloc(world * sizeof *row);
  if (row == NULL) {
    snprintf(probe->error, sizeof probe->error, "out of memory for the figures of %zu ranks",
             world);
    return false;
  }
  memcpy(row, sheet->pairs + (size_t)probe->rank * world, world * sizeof *row);
  const bool shared = probe_allgather(probe, "sharing the figures of pairs", row, sheet->pairs,
                                      world * sizeof *row);
  free(row);
  for (size_t a = 0; shared && a < world; ++a) {
    for (size_t b = a + 1; b < world; ++b) {
      sheet->pairs[b * world + a] = sheet->pairs[a * world + b];
    }
  }
  return shared;
}

static bool measure_pairs(struct probe *probe, struct doctor_sheet *sheet, unsigned char *flags) {
  const int32_t players = sheet->world + sheet->world % 2;
  for (int32_t round = 0; round < players - 1; ++round) {
    if (!play_round(probe, sheet, round, players, flags)) {
      return false;
    }
  }
  return share_pairs(probe, sheet);
}

/* What a rank's best link in the level reaches; 0: it has none. */
static double best_of(const struct doctor_sheet *sheet, int level, int32_t rank) {
  double best = 0.0;
  for (int32_t peer = 0; peer < sheet->world; ++peer) {
    if (belongs(sheet, level, rank, peer)) {
      const double gbs =
          sheet->pairs[(size_t)rank * (size_t)sheet->world + (size_t)peer].bandwidth_gbs;
      best = gbs > best ? gbs : best;
    }
  }
  return best;
}

/* values has room for every pair. */
static void sum_up_pairs(struct doctor_sheet *sheet, int level, double *values) {
  struct doctor_level *sums = &sheet->levels[level];
  size_t count = 0;
  for (int32_t a = 0; a < sheet->world; ++a) {
    for (int32_t b = a + 1; b < sheet->world; ++b) {
      if (belongs(sheet, level, a, b)) {
        values[count++] = sheet->pairs[(size_t)a * (size_t)sheet->world + (size_t)b].latency_us;
      }
    }
  }
  sums->num_pairs = (int32_t)count;
  if (count == 0) {
    return;
  }
  sums->latency_us = median_of(values, count);
  sums->worst_latency_us = values[count - 1];
  count = 0;
  for (int32_t a = 0; a < sheet->world; ++a) {
    for (int32_t b = a + 1; b < sheet->world; ++b) {
      if (belongs(sheet, level, a, b)) {
        values[count++] = sheet->pairs[(size_t)a * (size_t)sheet->world + (size_t)b].bandwidth_gbs;
      }
    }
  }
  sums->bandwidth_gbs = median_of(values, count);
  sums->worst_bandwidth_gbs = values[0];
  count = 0;
  for (int32_t r = 0; r < sheet->world; ++r) {
    values[count] = best_of(sheet, level, r);
    count += values[count] > 0.0 ? 1 : 0;
  }
  sums->best_gbs = median_of(values, count);
}

/* ---- All at once ---- */

struct exchange {
  struct probe *probe;
  struct doctor_sheet *sheet;
  unsigned char *with; /* [world] this rank's peers of the level */
  double *seconds;     /* [world] */
  double *mine;        /* [EXCHANGE_REPEATS or SMALL_REPEATS] */
};

/* Everybody learns everybody's time, and so takes the same decisions. */
static bool run_once(struct exchange *e, size_t block, double *mine_out, double *slowest_out) {
  if (!probe_exchange(e->probe, e->with, block, mine_out) ||
      !probe_allgather(e->probe, "sharing the times of an exchange", mine_out, e->seconds,
                       sizeof *e->seconds)) {
    return false;
  }
  *slowest_out = 0.0;
  for (int32_t r = 0; r < e->sheet->world; ++r) {
    *slowest_out = e->seconds[r] > *slowest_out ? e->seconds[r] : *slowest_out;
  }
  return true;
}

static int32_t count_peers(const struct doctor_sheet *sheet, int level, int32_t rank) {
  int32_t count = 0;
  for (int32_t peer = 0; peer < sheet->world; ++peer) {
    count += belongs(sheet, level, rank, peer) ? 1 : 0;
  }
  return count;
}

/* What each further message costs: small ones to all peers take longer than one alone. */
static bool measure_messages(struct exchange *e, int level) {
  int32_t most = 1;
  double slowest[SMALL_REPEATS];
  for (int i = 0; i < SMALL_REPEATS; ++i) {
    double mine = 0.0;
    if (!run_once(e, SMALL_BLOCK, &mine, &slowest[i])) {
      return false;
    }
  }
  for (int32_t r = 0; r < e->sheet->world; ++r) {
    const int32_t peers = count_peers(e->sheet, level, r);
    most = peers > most ? peers : most;
  }
  struct doctor_level *sums = &e->sheet->levels[level];
  const double beside = 1e6 * median_of(slowest, SMALL_REPEATS) - sums->latency_us;
  sums->message_us = beside > 0.0 ? beside / most : 0.0;
  return true;
}

/* Until the bytes, and not a moment when a busy host ran something else, take long enough. */
static bool grow_block(struct exchange *e, size_t *block_out) {
  const size_t most = PROBE_BUFFER_BYTES / (size_t)e->sheet->world;
  size_t block = FIRST_BLOCK < most ? FIRST_BLOCK : most;
  for (;;) {
    double shortest = INFINITY;
    for (int i = 0; i < GROWTH_TRIES; ++i) {
      double mine = 0.0;
      double slowest = 0.0;
      if (!run_once(e, block, &mine, &slowest)) {
        return false;
      }
      shortest = slowest < shortest ? slowest : shortest;
    }
    if (shortest >= EXCHANGE_TIME_S || block * 4 > most) {
      *block_out = block;
      return true;
    }
    block *= 4;
  }
}

/* Each rank's bandwidth is that of the median of its own times; exchange_gbs gets all ranks'. */
static bool measure_bandwidths(struct exchange *e, int level, double *exchange_gbs) {
  size_t block = 0;
  if (!grow_block(e, &block)) {
    return false;
  }
  for (int i = 0; i < EXCHANGE_REPEATS; ++i) {
    double slowest = 0.0;
    if (!run_once(e, block, &e->mine[i], &slowest)) {
      return false;
    }
  }
  const int32_t peers = count_peers(e->sheet, level, e->probe->rank);
  const double taken = median_of(e->mine, EXCHANGE_REPEATS);
  const double gbs = peers > 0 ? 1e-9 * (double)block * peers / taken : 0.0;
  return probe_allgather(e->probe, "sharing bandwidths", &gbs, exchange_gbs, sizeof gbs);
}

static bool measure_level(struct exchange *e, int level, double *exchange_gbs) {
  struct doctor_level *sums = &e->sheet->levels[level];
  size_t count = 0;
  for (int32_t peer = 0; peer < e->sheet->world; ++peer) {
    e->with[peer] = belongs(e->sheet, level, e->probe->rank, peer) ? 1 : 0;
  }
  if (sums->num_pairs == 0) {
    return true;
  }
  if (!measure_messages(e, level) || !measure_bandwidths(e, level, exchange_gbs)) {
    return false;
  }
  double *values = e->seconds; /* free by now */
  for (int32_t r = 0; r < e->sheet->world; ++r) {
    if (exchange_gbs[r] > 0.0) {
      values[count++] = exchange_gbs[r];
    }
  }
  sums->exchange_gbs = median_of(values, count);
  sums->slowest_gbs = values[0];
  return true;
}

/* ---- In all ---- */

bool doctor_measure(struct probe *probe, struct doctor_sheet *sheet) {
  const size_t world = (size_t)sheet->world;
  unsigned char *flags = calloc(2 * world, 1);
  double *values = calloc(world * world + 2 * world + SMALL_REPEATS, sizeof *values);
  if (flags == NULL || values == NULL) {
    free(flags);
    free(values);
    snprintf(probe->error, sizeof probe->error, "out of memory for the figures of %zu ranks",
             world);
    return false;
  }
  double *others = values + world * world; /* [world] of a level that is not kept rank by rank */
  struct exchange exchange = {.probe = probe,
                              .sheet = sheet,
                              .with = flags + world,
                              .seconds = others + world,
                              .mine = others + 2 * world};
  bool measured = probe_clocks(probe, sheet->ahead_s) && measure_pairs(probe, sheet, flags);
  for (int level = 0; level < DOCTOR_LEVELS && measured; ++level) {
    sum_up_pairs(sheet, level, values);
    measured = measure_level(&exchange, level, level == DOCTOR_ALL ? sheet->exchange_gbs : others);
  }
  free(flags);
  free(values);
  return measured;
}

static sy_link_level link_level(const struct doctor_level *sums) {
  return (sy_link_level){.latency_us = sums->latency_us > LINK_MIN ? sums->latency_us : LINK_MIN,
                         .message_us = sums->message_us,
                         .bandwidth_gbs =
                             sums->slowest_gbs > LINK_MIN ? sums->slowest_gbs : LINK_MIN};
}

/* Ranks 0 to n - 1 on the first host and so on, or 0: they lie otherwise. */
static int32_t ranks_per_host(const struct doctor_sheet *sheet) {
  int32_t per_host = 1;
  while (per_host < sheet->world && sheet->host_of[per_host] == sheet->host_of[0]) {
    ++per_host;
  }
  for (int32_t r = 0; r < sheet->world; ++r) {
    if (sheet->host_of[r] != r / per_host) {
      return 0;
    }
  }
  return per_host;
}

/* A plan waits for the slowest rank: its bandwidth while all exchange is the link's. */
void doctor_make_link(struct doctor_sheet *sheet) {
  const sy_plan_desc desc = SY_PLAN_DESC_INIT;
  sheet->link = desc.link;
  sheet->source = (struct link_source){
      .world = sheet->world,
      .num_hosts = sheet->num_hosts,
      .has_in_host = sheet->levels[DOCTOR_IN_HOST].num_pairs > 0,
      .has_between_hosts = sheet->levels[DOCTOR_BETWEEN].num_pairs > 0,
  };
  if (sheet->source.has_in_host) {
    sheet->link.in_host = link_level(&sheet->levels[DOCTOR_IN_HOST]);
  }
  if (sheet->source.has_between_hosts) {
    sheet->link.between_hosts = link_level(&sheet->levels[DOCTOR_BETWEEN]);
    sheet->link.ranks_per_host = ranks_per_host(sheet);
  }
}
