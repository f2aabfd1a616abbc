/* The doctor's judgement, on sheets that are made up: what is broken, what is only slow, and which
 * ranks are named. */
#include <stdio.h>
#include <stdlib.h>

#include "launch/doctor.h"
#include "tests/support/harness.h"

enum { WORLD = 4 };

struct patient {
  struct doctor_sheet sheet;
  int32_t host_of[WORLD];
  struct doctor_facts facts[WORLD];
  double ahead_s[WORLD];
  struct probe_link pairs[WORLD * WORLD];
  double exchange_gbs[WORLD];
};

static struct doctor_level level_of(int32_t pairs, double latency_us, double gbs) {
  return (struct doctor_level){.num_pairs = pairs,
                               .latency_us = latency_us,
                               .worst_latency_us = latency_us,
                               .bandwidth_gbs = gbs,
                               .worst_bandwidth_gbs = gbs,
                               .best_gbs = gbs,
                               .exchange_gbs = gbs,
                               .slowest_gbs = 0.75 * gbs,
                               .message_us = 0.5};
}

/* Two hosts of two ranks that lack nothing. The sheet points into the patient. */
static struct patient *healthy(void) {
  struct patient *p = calloc(1, sizeof *p);
  if (!CHECK(p != NULL)) {
    abort();
  }
  p->sheet = (struct doctor_sheet){
      .world = WORLD,
      .num_hosts = 2,
      .host_of = p->host_of,
      .facts = p->facts,
      .ahead_s = p->ahead_s,
      .pairs = p->pairs,
      .exchange_gbs = p->exchange_gbs,
      .levels = {level_of(2, 1.0, 8.0), level_of(4, 20.0, 2.0), level_of(6, 20.0, 2.0)}};
  for (int32_t r = 0; r < WORLD; ++r) {
    struct doctor_facts *f = &p->facts[r];
    p->host_of[r] = r / 2;
    p->exchange_gbs[r] = 2.0;
    snprintf(f->host, sizeof f->host, "host%d", r / 2);
    snprintf(f->library, sizeof f->library, "0.1.0");
    snprintf(f->mpi, sizeof f->mpi, "Open MPI v4.1.4");
    snprintf(f->devices.gpu_name, sizeof f->devices.gpu_name, "RTX PRO 6000");
    f->devices.num_gpus = 1;
    f->devices.nccl = 22809;
    f->available_bytes = 100;
    f->needed_bytes = 50;
    f->usable_cores = 8;
    f->local_size = 2;
    for (int32_t q = 0; q < WORLD; ++q) {
      p->pairs[r * WORLD + q] =
          r / 2 == q / 2 ? (struct probe_link){1.0, 8.0} : (struct probe_link){20.0, 2.0};
    }
  }
  doctor_make_link(&p->sheet);
  return p;
}

/* Judges, and frees the patient: the verdict, and a finding of it with these words. */
static void check_verdict(struct patient *p, enum doctor_verdict verdict, const char *topic,
                          const char *part) {
  bool found = false;
  CHECK_EQ_I64(doctor_check(&p->sheet), verdict);
  for (int32_t i = 0; i < p->sheet.num_findings; ++i) {
    const struct doctor_finding *f = &p->sheet.findings[i];
    found = found || (f->verdict == verdict && strcmp(f->topic, topic) == 0 &&
                      strstr(f->text, part) != NULL);
  }
  if (!CHECK(found)) {
    for (int32_t i = 0; i < p->sheet.num_findings; ++i) {
      printf("    %d %s: %s\n", (int)p->sheet.findings[i].verdict, p->sheet.findings[i].topic,
             p->sheet.findings[i].text);
    }
  }
  free(p);
}

TEST(a_healthy_job_is_fine) {
  check_verdict(healthy(), DOCTOR_FINE, "library", "Switchyard 0.1.0 on all ranks");
  check_verdict(healthy(), DOCTOR_FINE, "links", "no pair is far below");
  check_verdict(healthy(), DOCTOR_FINE, "memory", "host1: 100 B needed by the plans, 100 B");
}

TEST(what_must_agree_is_broken_when_it_does_not) {
  struct patient *p = healthy();
  snprintf(p->facts[2].library, sizeof p->facts[2].library, "0.2.0");
  snprintf(p->facts[3].library, sizeof p->facts[3].library, "0.2.0");
  check_verdict(p, DOCTOR_BROKEN, "library", "ranks 2-3: another version than 0.1.0 of rank 0");
  p = healthy();
  snprintf(p->facts[1].mpi, sizeof p->facts[1].mpi, "MPICH");
  check_verdict(p, DOCTOR_BROKEN, "MPI", "rank 1: another library than Open MPI v4.1.4 of rank 0");
  p = healthy();
  p->sheet.checkpoint = "/models/x";
  p->facts[3].fingerprint = 7;
  check_verdict(p, DOCTOR_BROKEN, "checkpoint", "rank 3: other files than rank 0 has in /models/x");
  p = healthy();
  p->facts[1].plan_hash = 7;
  p->facts[3].plan_hash = 7;
  check_verdict(p, DOCTOR_BROKEN, "plan", "ranks 1, 3: another plan than rank 0");
  p = healthy();
  p->sheet.checkpoint = "/models/x";
  snprintf(p->facts[2].problem, sizeof p->facts[2].problem, "/models/x: no such folder");
  check_verdict(p, DOCTOR_BROKEN, "checkpoint", "rank 2: /models/x: no such folder");
}

TEST(gpus_count_only_where_they_are_needed) {
  struct patient *p = healthy();
  p->facts[1].devices.num_gpus = 0;
  check_verdict(p, DOCTOR_FINE, "GPU", "none is needed");
  p = healthy();
  p->sheet.has_gpus = true;
  check_verdict(p, DOCTOR_FINE, "NCCL", "2.28.9 on all ranks");
  p = healthy();
  p->sheet.has_gpus = true;
  p->facts[1].devices.num_gpus = -1;
  check_verdict(p, DOCTOR_BROKEN, "GPU", "rank 1: no GPU is visible");
  p = healthy();
  p->sheet.has_gpus = true;
  p->facts[1].devices.nccl = 23003;
  check_verdict(p, DOCTOR_BROKEN, "NCCL", "rank 1: another version than rank 0's 2.28.9");
  p = healthy();
  p->sheet.has_gpus = true;
  snprintf(p->facts[0].devices.gpu_name, sizeof p->facts[0].devices.gpu_name, "GB10");
  check_verdict(p, DOCTOR_WARNING, "GPU", "ranks 1-3: another model than rank 0's GB10");
}

TEST(memory_is_of_a_host_together) {
  struct patient *p = healthy();
  p->facts[2].needed_bytes = 51;
  check_verdict(p, DOCTOR_BROKEN, "memory", "host1: the plans of its ranks need 101 B, 100 B are");
}

TEST(what_is_slow_is_a_warning) {
  struct patient *p = healthy();
  p->pairs[1 * WORLD + 2].bandwidth_gbs = 0.9;
  CHECK(doctor_pair_is_slow(&p->sheet, 1, 2));
  CHECK(!doctor_pair_is_slow(&p->sheet, 0, 2)); /* slower than in a host, but like its kind */
  check_verdict(
      p, DOCTOR_WARNING, "links",
      "1 pair far below what the median rank reaches; the slowest: rank 1 on host0 and rank "
      "2 on host1, 0.9 GB/s");
  p = healthy();
  p->pairs[0 * WORLD + 1].latency_us = 100.0;
  check_verdict(p, DOCTOR_WARNING, "links", "rank 0 on host0 and rank 1 on host0, 8 GB/s");
  p = healthy();
  p->exchange_gbs[3] = 0.9;
  check_verdict(p, DOCTOR_WARNING, "all-to-all", "rank 3: less than half of the median");
  p = healthy();
  p->ahead_s[2] = -2.5;
  check_verdict(p, DOCTOR_WARNING, "clocks", "rank 2 on host1 is 2.5 s behind rank 0");
  p = healthy();
  p->facts[0].usable_cores = 1;
  snprintf(p->facts[0].place, sizeof p->facts[0].place, "not bound: 2 ranks share 1 core");
  check_verdict(p, DOCTOR_WARNING, "cores", "host0: 2 ranks share 1 core");
}

TEST(the_link_is_that_of_the_slowest_rank) {
  struct patient *p = healthy();
  CHECK_EQ_I64(p->sheet.link.ranks_per_host, 2);
  CHECK_NEAR(p->sheet.link.in_host.bandwidth_gbs, 6.0, 0.0);
  CHECK_NEAR(p->sheet.link.between_hosts.bandwidth_gbs, 1.5, 0.0);
  CHECK_NEAR(p->sheet.link.between_hosts.latency_us, 20.0, 0.0);
  CHECK(p->sheet.source.has_in_host && p->sheet.source.has_between_hosts);
  p->host_of[1] = 1; /* dealt in turn: no blocks */
  p->host_of[2] = 0;
  doctor_make_link(&p->sheet);
  CHECK_EQ_I64(p->sheet.link.ranks_per_host, 0);
  check_verdict(p, DOCTOR_WARNING, "hosts", "not dealt to the hosts in blocks");
}

/* With more to say than there is room for, what is broken is still said. */
TEST(what_is_broken_finds_room) {
  enum { MANY = 200 };
  struct doctor_sheet sheet = {.world = MANY, .num_hosts = MANY};
  sheet.facts = calloc(MANY, sizeof *sheet.facts);
  sheet.host_of = calloc(MANY, sizeof *sheet.host_of);
  sheet.ahead_s = calloc(MANY, sizeof *sheet.ahead_s);
  sheet.pairs = calloc((size_t)MANY * MANY, sizeof *sheet.pairs);
  sheet.exchange_gbs = calloc(MANY, sizeof *sheet.exchange_gbs);
  for (int32_t r = 0; r < MANY; ++r) {
    sheet.host_of[r] = r;
    sheet.facts[r].available_bytes = 100;
    sheet.facts[r].needed_bytes = r == MANY - 1 ? 101 : 1;
  }
  CHECK_EQ_I64(doctor_check(&sheet), DOCTOR_BROKEN);
  CHECK_EQ_I64(sheet.num_findings, DOCTOR_MAX_FINDINGS);
  free(sheet.facts);
  free(sheet.host_of);
  free(sheet.ahead_s);
  free(sheet.pairs);
  free(sheet.exchange_gbs);
}
