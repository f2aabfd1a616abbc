#include "runtime/predict.h"

#include <math.h>

#include "kernels/wire.h"

static int64_t min_i64(int64_t a, int64_t b) { return a < b ? a : b; }

static double max_f64(double a, double b) { return a > b ? a : b; }

/* ---- Rows ---- */

/* Of one token, expected: rows to some other ranks, and rows back from them. */
struct rows {
  double out, back;
  int64_t ranks;
};

static struct rows sum(struct rows a, struct rows b) {
  return (struct rows){a.out + b.out, a.back + b.back, a.ranks + b.ranks};
}

static struct rows difference(struct rows a, struct rows b) {
  return (struct rows){a.out - b.out, a.back - b.back, a.ranks - b.ranks};
}

/* The chance that a token with K distinct experts, all alike likely, has one among `owned` of E. */
static double chance_of_rank(int64_t owned, int64_t experts, int64_t top_k) {
  double none = 1.0;
  for (int64_t i = 0; i < min_i64(top_k, experts); ++i) {
    none *= experts - owned - i > 0 ? (double)(experts - owned - i) / (double)(experts - i) : 0.0;
  }
  return 1.0 - none;
}

/* exact: a row where the token has an expert; per_slot: one back for each of its experts there.
 * Otherwise a row to every rank, and as many back as a row has room for. */
static struct rows rows_of_rank(const struct sy_plan *plan, sy_strategy strategy, int64_t owned) {
  const struct sy_dims *d = &plan->dims;
  const int64_t experts = plan->model.shape.num_experts;
  if (strategy != SY_STRATEGY_EXACT) {
    const int64_t slots = min_i64(d->top_k, d->max_local_experts);
    return (struct rows){1.0, d->per_slot ? (double)slots : 1.0, 1};
  }
  const double chance = chance_of_rank(owned, experts, d->top_k);
  const double slots = (double)min_i64(d->top_k, experts) * (double)owned / (double)experts;
  return (struct rows){chance, d->per_slot ? slots : chance, 1};
}

/* A walk over the ranks: neighbours mostly own as many experts. */
struct walk {
  const struct sy_plan *plan;
  sy_strategy strategy;
  int64_t owned;
  struct rows rows;
};

static struct rows next_rows(struct walk *walk, int64_t rank) {
  const int32_t owned = walk->plan->model.rank_experts[rank];
  if (owned != walk->owned) {
    walk->owned = owned;
    walk->rows = rows_of_rank(walk->plan, walk->strategy, owned);
  }
  return walk->rows;
}

static struct rows sum_ranks(struct walk *walk, int64_t begin, int64_t end) {
  struct rows total = {0.0, 0.0, 0};
  for (int64_t rank = begin; rank < end; ++rank) {
    total = sum(total, next_rows(walk, rank));
  }
  return total;
}

/* ---- Time ---- */

/* What shapes every rank's exchange alike. */
struct exchange {
  const sy_link *link;
  double tokens; /* rows are sent for */
  double waves;
  double row_bytes, return_row_bytes;
};

static double bytes_of(const struct exchange *e, struct rows peers) {
  const double headers =
      2.0 * e->waves * (double)peers.ranks * (double)sizeof(struct sy_wire_header);
  return e->tokens * (peers.out * e->row_bytes + peers.back * e->return_row_bytes) + headers;
}

/* Per wave and direction one latency, as messages overlap, and what each costs beside; bytes inside
 * a host and between hosts travel at the same time. */
static double time_of(const struct exchange *e, struct rows inside, struct rows beyond) {
  const sy_link *link = e->link;
  const double latency = max_f64(inside.ranks > 0 ? link->in_host.latency_us : 0.0,
                                 beyond.ranks > 0 ? link->between_hosts.latency_us : 0.0);
  const double messages = (double)inside.ranks * link->in_host.message_us +
                          (double)beyond.ranks * link->between_hosts.message_us;
  const double transfer = max_f64(bytes_of(e, inside) / (link->in_host.bandwidth_gbs * 1e3),
                                  bytes_of(e, beyond) / (link->between_hosts.bandwidth_gbs * 1e3));
  return 2.0 * e->waves * (latency + messages) + transfer;
}

static struct exchange exchange_of(const struct sy_plan *plan, sy_strategy strategy,
                                   int64_t wave_tokens) {
  const struct sy_dims *d = &plan->dims;
  const int64_t waves = (plan->desc.max_tokens + wave_tokens - 1) / wave_tokens;
  const int64_t slots =
      strategy == SY_STRATEGY_GATHER ? d->top_k : min_i64(d->top_k, d->max_local_experts);
  return (struct exchange){
      .link = &plan->desc.link,
      .tokens =
          (double)(strategy == SY_STRATEGY_FIXED ? waves * wave_tokens : plan->desc.max_tokens),
      .waves = (double)waves,
      .row_bytes = (double)sy_wire_row_make(d->mode, d->format, d->hidden, (int32_t)slots).bytes,
      .return_row_bytes = (double)d->return_row_bytes};
}

struct sy_prediction sy_predict(const struct sy_plan *plan, sy_strategy strategy,
                                int64_t wave_tokens) {
  const int64_t world = plan->model.world;
  const int64_t asked = plan->desc.link.ranks_per_host;
  const int64_t per_host = asked > 0 ? asked : world;
  const struct exchange e = exchange_of(plan, strategy, wave_tokens);
  struct walk walk = {.plan = plan, .strategy = strategy, .owned = -1};
  const struct rows all = sum_ranks(&walk, 0, world);
  struct sy_prediction prediction = {0.0, 0.0};
  for (int64_t begin = 0; begin < world && world > 1; begin += per_host) {
    const int64_t end = min_i64(begin + per_host, world);
    const struct rows host = sum_ranks(&walk, begin, end);
    for (int64_t rank = begin; rank < end; ++rank) {
      const struct rows inside = difference(host, next_rows(&walk, rank));
      const struct rows beyond = difference(all, host);
      prediction.us = max_f64(prediction.us, time_of(&e, inside, beyond));
      if (rank == plan->desc.rank) {
        prediction.rank_bytes = bytes_of(&e, inside) + bytes_of(&e, beyond);
      }
    }
  }
  return prediction;
}

/* ---- Link figures ---- */

static sy_status check_level(const char *name, const sy_link_level *level) {
  if (!(level->latency_us > 0.0 && isfinite(level->latency_us)) ||
      !(level->bandwidth_gbs > 0.0 && isfinite(level->bandwidth_gbs)) ||
      !(level->message_us >= 0.0 && isfinite(level->message_us))) {
    return sy_fail(
        SY_ERR_ARGUMENT,
        "link %s: latency is %g us, a message costs %g us, bandwidth is %g GB/s; allowed: "
        "finite, above 0 (a message may cost 0)",
        name, level->latency_us, level->message_us, level->bandwidth_gbs);
  }
  return SY_OK;
}

sy_status sy_check_link(const sy_link *link) {
  SY_TRY(check_level("in_host", &link->in_host));
  SY_TRY(check_level("between_hosts", &link->between_hosts));
  return sy_check_range("link ranks_per_host", link->ranks_per_host, 0, INT32_MAX);
}
