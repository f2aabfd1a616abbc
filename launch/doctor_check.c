#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "launch/doctor.h"
#include "launch/text.h"

/* A pair is slow below this share of what the median rank's best pair reaches (with one slow host of
 * three, most pairs are slow, and so is their median), or above this multiple of the median latency
 * and further away than the scheduler of a busy host makes it. */
#define SLOW_SHARE 0.5
#define SLOW_FACTOR 3.0
#define SLOW_LATENCY_US 50.0

#define SKEW_S 1.0

/* Where the list is full, in place of one that matters less; NULL: there is none. */
static struct doctor_finding *place_for(struct doctor_sheet *sheet, enum doctor_verdict verdict) {
  if (sheet->num_findings < DOCTOR_MAX_FINDINGS) {
    return &sheet->findings[sheet->num_findings++];
  }
  for (int32_t i = 0; i < DOCTOR_MAX_FINDINGS; ++i) {
    if (sheet->findings[i].verdict < verdict) {
      return &sheet->findings[i];
    }
  }
  return NULL;
}

static void find(struct doctor_sheet *sheet, enum doctor_verdict verdict, const char *topic,
                 const char *format, ...) __attribute__((format(printf, 4, 5)));

static void find(struct doctor_sheet *sheet, enum doctor_verdict verdict, const char *topic,
                 const char *format, ...) {
  struct doctor_finding *finding = place_for(sheet, verdict);
  if (finding == NULL) {
    return;
  }
  va_list arguments;
  va_start(arguments, format);
  finding->verdict = verdict;
  snprintf(finding->topic, sizeof finding->topic, "%s", topic);
  vsnprintf(finding->text, sizeof finding->text, format, arguments);
  va_end(arguments);
}

/* "0-2, 5": the ranks that `is_named` picks against rank 0. Returns how many. */
static int32_t name_ranks(const struct doctor_sheet *sheet,
                          bool (*is_named)(const struct doctor_sheet *, int32_t), char text[160]) {
  int32_t count = 0;
  text[0] = '\0';
  for (int32_t r = 0; r < sheet->world; ++r) {
    if (!is_named(sheet, r)) {
      continue;
    }
    int32_t last = r;
    while (last + 1 < sheet->world && is_named(sheet, last + 1)) {
      ++last;
    }
    char part[40];
    snprintf(part, sizeof part, last > r ? "%s%d-%d" : "%s%d", text[0] != '\0' ? ", " : "", r,
             last);
    strncat(text, part, 159 - strlen(text));
    count += last - r + 1;
    r = last;
  }
  return count;
}

static const char *plural(int32_t count) { return count == 1 ? "" : "s"; }

/* ---- What must agree ---- */

static bool other_library(const struct doctor_sheet *s, int32_t r) {
  return strcmp(s->facts[r].library, s->facts[0].library) != 0;
}

static bool other_mpi(const struct doctor_sheet *s, int32_t r) {
  return strcmp(s->facts[r].mpi, s->facts[0].mpi) != 0;
}

static bool other_checkpoint(const struct doctor_sheet *s, int32_t r) {
  return s->facts[r].fingerprint != s->facts[0].fingerprint;
}

static bool other_plan(const struct doctor_sheet *s, int32_t r) {
  return s->facts[r].plan_hash != s->facts[0].plan_hash;
}

static bool other_nccl(const struct doctor_sheet *s, int32_t r) {
  return s->facts[r].devices.nccl != s->facts[0].devices.nccl;
}

static bool has_problem(const struct doctor_sheet *s, int32_t r) {
  return s->facts[r].problem[0] != '\0';
}

static void check_library(struct doctor_sheet *sheet) {
  char ranks[160];
  const int32_t libraries = name_ranks(sheet, other_library, ranks);
  if (libraries > 0) {
    find(sheet, DOCTOR_BROKEN, "library", "rank%s %s: another version than %s of rank 0",
         plural(libraries), ranks, sheet->facts[0].library);
  } else {
    find(sheet, DOCTOR_FINE, "library", "Switchyard %s on all ranks", sheet->facts[0].library);
  }
  const int32_t mpis = name_ranks(sheet, other_mpi, ranks);
  if (mpis > 0) {
    find(sheet, DOCTOR_BROKEN, "MPI", "rank%s %s: another library than %s of rank 0", plural(mpis),
         ranks, sheet->facts[0].mpi);
  } else if (sheet->facts[0].mpi[0] != '\0') {
    find(sheet, DOCTOR_FINE, "MPI", "%s on all ranks", sheet->facts[0].mpi);
  }
}

static void check_checkpoint(struct doctor_sheet *sheet) {
  char ranks[160];
  bool is_whole = true;
  for (int32_t r = 0; r < sheet->world; ++r) {
    const bool is_first =
        r == 0 || strcmp(sheet->facts[r].problem, sheet->facts[r - 1].problem) != 0;
    if (has_problem(sheet, r) && is_first) {
      find(sheet, DOCTOR_BROKEN, sheet->checkpoint != NULL ? "checkpoint" : "plan",
           "rank %d: %.300s", r, sheet->facts[r].problem);
    }
    is_whole = is_whole && !has_problem(sheet, r);
  }
  if (!is_whole) {
    return;
  }
  const int32_t others = name_ranks(sheet, other_checkpoint, ranks);
  if (others > 0) {
    find(sheet, DOCTOR_BROKEN, "checkpoint", "rank%s %s: other files than rank 0 has in %.150s",
         plural(others), ranks, sheet->checkpoint);
  } else if (sheet->checkpoint != NULL) {
    find(sheet, DOCTOR_FINE, "checkpoint", "the same on all ranks, fingerprint %016llx",
         (unsigned long long)sheet->facts[0].fingerprint);
  }
  const int32_t plans = name_ranks(sheet, other_plan, ranks);
  if (plans > 0) {
    find(sheet, DOCTOR_BROKEN, "plan", "rank%s %s: another plan than rank 0", plural(plans), ranks);
  }
}

/* ---- GPUs ---- */

static bool lacks_gpu(const struct doctor_sheet *s, int32_t r) {
  return s->facts[r].devices.num_gpus <= 0;
}

static bool other_gpu(const struct doctor_sheet *s, int32_t r) {
  return strcmp(s->facts[r].devices.gpu_name, s->facts[0].devices.gpu_name) != 0;
}

static void check_gpus(struct doctor_sheet *sheet) {
  char ranks[160];
  if (!sheet->has_gpus) {
    find(sheet, DOCTOR_FINE, "GPU", "none is needed: the ranks compute on their CPUs");
    return;
  }
  const int32_t lacking = name_ranks(sheet, lacks_gpu, ranks);
  if (lacking > 0) {
    find(sheet, DOCTOR_BROKEN, "GPU", "rank%s %s: no GPU is visible", plural(lacking), ranks);
    return;
  }
  const struct device_facts *first = &sheet->facts[0].devices;
  const int32_t others = name_ranks(sheet, other_gpu, ranks);
  if (others > 0) {
    find(sheet, DOCTOR_WARNING, "GPU", "rank%s %s: another model than rank 0's %s", plural(others),
         ranks, first->gpu_name);
  } else {
    find(sheet, DOCTOR_FINE, "GPU", "%s on all ranks", first->gpu_name);
  }
  const int32_t nccls = name_ranks(sheet, other_nccl, ranks);
  if (nccls > 0) {
    find(sheet, DOCTOR_BROKEN, "NCCL", "rank%s %s: another version than rank 0's %d.%d.%d",
         plural(nccls), ranks, first->nccl / 10000, first->nccl / 100 % 100, first->nccl % 100);
  } else if (first->nccl == 0) {
    find(sheet, DOCTOR_BROKEN, "NCCL", "libnccl.so.2 is found on no rank");
  } else {
    find(sheet, DOCTOR_FINE, "NCCL", "%d.%d.%d on all ranks", first->nccl / 10000,
         first->nccl / 100 % 100, first->nccl % 100);
  }
}

/* ---- Hosts ---- */

static void check_host(struct doctor_sheet *sheet, int32_t host) {
  uint64_t needed = 0;
  uint64_t available = UINT64_MAX;
  int32_t first = -1;
  for (int32_t r = 0; r < sheet->world; ++r) {
    if (sheet->host_of[r] == host) {
      const struct doctor_facts *facts = &sheet->facts[r];
      first = first < 0 ? r : first;
      needed += facts->needed_bytes;
      available = facts->available_bytes < available ? facts->available_bytes : available;
    }
  }
  const struct doctor_facts *facts = &sheet->facts[first];
  char need[TEXT_SIZE];
  char have[TEXT_SIZE];
  text_bytes(need, needed);
  text_bytes(have, available);
  if (needed > available) {
    find(sheet, DOCTOR_BROKEN, "memory", "%s: the plans of its ranks need %s, %s are available",
         facts->host, need, have);
  } else {
    find(sheet, DOCTOR_FINE, "memory", "%s: %s needed by the plans, %s available", facts->host,
         need, have);
  }
  if (facts->local_size > facts->usable_cores && strstr(facts->place, "share") != NULL) {
    find(sheet, DOCTOR_WARNING, "cores", "%s: %d ranks share %d core%s", facts->host,
         facts->local_size, facts->usable_cores, plural(facts->usable_cores));
  }
}

static void check_clocks(struct doctor_sheet *sheet) {
  double worst = 0.0;
  int32_t rank = 0;
  for (int32_t r = 1; r < sheet->world; ++r) {
    if (fabs(sheet->ahead_s[r]) > fabs(worst)) {
      worst = sheet->ahead_s[r];
      rank = r;
    }
  }
  if (fabs(worst) > SKEW_S) {
    find(sheet, DOCTOR_WARNING, "clocks", "rank %d on %s is %.1f s %s rank 0: logs will mislead",
         rank, sheet->facts[rank].host, fabs(worst), worst > 0.0 ? "ahead of" : "behind");
  } else if (sheet->world > 1) {
    find(sheet, DOCTOR_FINE, "clocks", "within %.3f ms of rank 0", 1e3 * fabs(worst));
  }
}

/* ---- Links ---- */

bool doctor_pair_is_slow(const struct doctor_sheet *sheet, int32_t a, int32_t b) {
  const struct probe_link *pair = &sheet->pairs[(size_t)a * (size_t)sheet->world + (size_t)b];
  const struct doctor_level *level =
      &sheet->levels[sheet->host_of[a] == sheet->host_of[b] ? DOCTOR_IN_HOST : DOCTOR_BETWEEN];
  return pair->bandwidth_gbs < SLOW_SHARE * level->best_gbs ||
         pair->latency_us > SLOW_FACTOR * level->latency_us + SLOW_LATENCY_US;
}

static void check_pairs(struct doctor_sheet *sheet) {
  int32_t slow = 0;
  int32_t worst_a = 0;
  int32_t worst_b = 0;
  double worst = INFINITY;
  for (int32_t a = 0; a < sheet->world; ++a) {
    for (int32_t b = a + 1; b < sheet->world; ++b) {
      const double gbs = sheet->pairs[(size_t)a * (size_t)sheet->world + (size_t)b].bandwidth_gbs;
      if (doctor_pair_is_slow(sheet, a, b)) {
        ++slow;
        if (gbs < worst) {
          worst = gbs;
          worst_a = a;
          worst_b = b;
        }
      }
    }
  }
  if (slow > 0) {
    find(sheet, DOCTOR_WARNING, "links",
         "%d pair%s far below what the median rank reaches; the slowest: rank %d on %s and rank %d "
         "on %s, "
         "%.3g GB/s",
         slow, plural(slow), worst_a, sheet->facts[worst_a].host, worst_b,
         sheet->facts[worst_b].host, worst);
  } else if (sheet->world > 1) {
    find(sheet, DOCTOR_FINE, "links", "no pair is far below what the median rank reaches");
  }
}

static bool exchanges_slowly(const struct doctor_sheet *s, int32_t r) {
  return s->exchange_gbs[r] < SLOW_SHARE * s->levels[DOCTOR_ALL].exchange_gbs;
}

static void check_exchange(struct doctor_sheet *sheet) {
  char ranks[160];
  const int32_t slow = name_ranks(sheet, exchanges_slowly, ranks);
  if (slow > 0) {
    find(sheet, DOCTOR_WARNING, "all-to-all",
         "rank%s %s: less than half of the median rank's bandwidth while all exchange",
         plural(slow), ranks);
  }
  if (sheet->levels[DOCTOR_BETWEEN].num_pairs > 0 && sheet->link.ranks_per_host == 0) {
    find(sheet, DOCTOR_WARNING, "hosts",
         "ranks are not dealt to the hosts in blocks of equal size: plans take all for one host");
  }
}

enum doctor_verdict doctor_check(struct doctor_sheet *sheet) {
  sheet->num_findings = 0;
  check_library(sheet);
  check_checkpoint(sheet);
  check_gpus(sheet);
  for (int32_t host = 0; host < sheet->num_hosts; ++host) {
    check_host(sheet, host);
  }
  check_clocks(sheet);
  check_pairs(sheet);
  check_exchange(sheet);
  enum doctor_verdict worst = DOCTOR_FINE;
  for (int32_t i = 0; i < sheet->num_findings; ++i) {
    worst = sheet->findings[i].verdict > worst ? sheet->findings[i].verdict : worst;
  }
  return worst;
}
