/* What `switchyard doctor` is asked and finds out: facts of every rank (doctor.c), measurements
 * between them (doctor_measure.c), a judgement (doctor_check.c: pure), and what is printed of it
 * (doctor_print.c). All ranks hold the same sheet. */
#ifndef LAUNCH_DOCTOR_H
#define LAUNCH_DOCTOR_H

#include "launch/devices.h"
#include "launch/link_file.h"
#include "launch/probe.h"
#include "launch/session.h"

/* One rank's part. Sent between ranks as it is: plain values only. */
struct doctor_facts {
  char host[64];
  char library[32];
  char mpi[128];
  char place[LAUNCH_ERROR_BYTES];
  char problem[LAUNCH_ERROR_BYTES]; /* why the checkpoint or the plan cannot be used; empty: none */
  uint64_t fingerprint;             /* of the checkpoint; 0: none was given */
  uint64_t available_bytes;         /* of memory, on its host */
  uint64_t needed_bytes;            /* by the plan, of this rank: weights, exchange, scratch */
  uint64_t plan_hash;
  int32_t usable_cores;
  int32_t local_size;
  struct device_facts devices;
};

/* Figures of one level of links: pairs inside hosts, or between them. */
struct doctor_level {
  int32_t num_pairs;
  double latency_us, worst_latency_us; /* median and worst of the pairs */
  double bandwidth_gbs, worst_bandwidth_gbs;
  double best_gbs;                  /* median over the ranks of what each one's best pair reaches */
  double exchange_gbs, slowest_gbs; /* of a rank while all exchange: median and slowest */
  double message_us;
};

enum doctor_verdict { DOCTOR_FINE, DOCTOR_WARNING, DOCTOR_BROKEN };

struct doctor_finding {
  enum doctor_verdict verdict;
  char topic[16];
  char text[LAUNCH_ERROR_BYTES];
};

#define DOCTOR_MAX_FINDINGS 48
enum { DOCTOR_IN_HOST, DOCTOR_BETWEEN, DOCTOR_ALL, DOCTOR_LEVELS };

struct doctor_sheet {
  int32_t world;
  int32_t num_hosts;
  int32_t *host_of;           /* [world] */
  struct doctor_facts *facts; /* [world] */
  double *ahead_s;            /* [world] clocks against rank 0's */
  struct probe_link *pairs;   /* [world * world], symmetric */
  double *exchange_gbs;       /* [world] each rank's own, while all exchange with all */
  struct doctor_level levels[DOCTOR_LEVELS];
  bool has_gpus;          /* the job is meant to use them */
  const char *checkpoint; /* NULL: none */
  const char *model;      /* of the plan, for people */
  sy_link link;
  struct link_source source;
  sy_plan_info plan; /* of rank 0, with the measured link */
  int64_t max_tokens;
  int32_t num_findings;
  struct doctor_finding findings[DOCTOR_MAX_FINDINGS];
};

/* Collective; false: probe->error has the sentence. Fills ahead_s, pairs, exchange_gbs, levels. */
bool doctor_measure(struct probe *probe, struct doctor_sheet *sheet);

/* The link figures that a plan is to be given. */
void doctor_make_link(struct doctor_sheet *sheet);

/* Fills findings from all the rest; returns the worst verdict. */
enum doctor_verdict doctor_check(struct doctor_sheet *sheet);

/* Whether a pair is far worse than its kind: pairs of one host, or of two. */
bool doctor_pair_is_slow(const struct doctor_sheet *sheet, int32_t a, int32_t b);

void doctor_print_text(const struct doctor_sheet *sheet);

/* False: out of memory. */
bool doctor_print_json(const struct doctor_sheet *sheet);

#endif
