#define _GNU_SOURCE /* sched_getaffinity */
#include "team.h"

#include <limits.h>
#include <omp.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "device.h"

enum { TAG_TO_ROOT = 1, TAG_FROM_ROOT = 2 };

double lm_seconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* OMP_NUM_THREADS where it is set. Otherwise this rank's share of the cores that the ranks of its
 * host may use together, and no more than it may use itself. Collective. */
static int32_t default_threads(MPI_Comm comm) {
  cpu_set_t mine, all;
  CPU_ZERO(&mine);
  CPU_ZERO(&all);
  if (sched_getaffinity(0, sizeof mine, &mine) != 0) {
    CPU_SET(0, &mine);
  }
  MPI_Comm host;
  int ranks = 1;
  MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host);
  MPI_Comm_size(host, &ranks);
  MPI_Allreduce(&mine, &all, (int)sizeof mine, MPI_BYTE, MPI_BOR, host);
  MPI_Comm_free(&host);
  const int share = CPU_COUNT(&all) / ranks;
  const int own = CPU_COUNT(&mine);
  const char *wanted = getenv("OMP_NUM_THREADS");
  if (wanted != NULL && wanted[0] != '\0') {
    return omp_get_max_threads();
  }
  const int threads = share < own ? share : own;
  return threads < 1 ? 1 : threads;
}

enum lm_exit lm_team_join(struct lm_team *team, int *argc, char ***argv) {
  *team = (struct lm_team){.timeout_ms = LM_TIMEOUT_MS};
  const bool placed = bind_self(lm_gpu_is_built(), &team->bind); /* before anything is allocated */
  int level;
  MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &level);
  MPI_Comm_dup(MPI_COMM_WORLD, &team->comm);
  MPI_Comm_rank(team->comm, &team->rank);
  MPI_Comm_size(team->comm, &team->world);
  team->threads = default_threads(team->comm);
  team->threads = team->bind.threads > 0 ? team->bind.threads : team->threads;
  MPI_Comm_set_errhandler(team->comm, MPI_ERRORS_RETURN);
  team->requests = malloc((size_t)team->world * sizeof(MPI_Request));
  if (team->requests == NULL) {
    team->dead = true; /* without requests this rank cannot take part in anything */
    return lm_fail(team, LM_OTHER, "out of memory for %d requests", team->world);
  }
  return placed ? LM_OK : lm_fail(team, LM_USAGE, "%s", team->bind.sentence);
}

int lm_team_leave(struct lm_team *team, enum lm_exit code) {
  free(team->requests);
  MPI_Comm_free(&team->comm);
  MPI_Finalize();
  return (int)code;
}

enum lm_exit lm_fail(struct lm_team *team, enum lm_exit code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(team->text, sizeof team->text, format, arguments);
  va_end(arguments);
  return code;
}

enum lm_exit lm_fail_status(struct lm_team *team, sy_status status, enum lm_exit bad_call,
                            const char *what) {
  const char *sentence = sy_last_error(NULL);
  if (sentence[0] == '\0') {
    sentence = sy_status_text(status);
  }
  enum lm_exit code = LM_OTHER;
  if (status >= SY_ERR_PEER) {
    team->dead = true;
    code = status == SY_ERR_INTERNAL ? LM_OTHER : LM_PEER;
  } else if (status == SY_ERR_MISMATCH) {
    code = LM_PEER;
  } else if (status == SY_ERR_IO || status == SY_ERR_FORMAT) {
    code = LM_INPUT;
  } else if (status != SY_ERR_MEMORY) {
    code = bad_call;
  }
  return lm_fail(team, code, "%s: %s", what, sentence);
}

/* Names the peers whose requests are still open. */
static enum lm_exit fail_missing(struct lm_team *team, const char *what, int32_t timeout_ms) {
  char ranks[256] = "";
  size_t used = 0;
  for (int32_t peer = 0; peer < team->world && used + 16 < sizeof ranks; ++peer) {
    int done = 1;
    MPI_Test(&team->requests[peer], &done, MPI_STATUS_IGNORE);
    if (!done) {
      used += (size_t)snprintf(ranks + used, sizeof ranks - used, " %d", peer);
    }
  }
  team->dead = true;
  return lm_fail(team, LM_PEER, "%s: not heard within %d ms from rank%s", what, timeout_ms, ranks);
}

/* Until every request is complete, one per peer; then all are MPI_REQUEST_NULL. */
static enum lm_exit complete(struct lm_team *team, const char *what, int32_t timeout_ms) {
  const double deadline = lm_seconds() + 1e-3 * timeout_ms;
  for (;;) {
    int done = 0;
    if (MPI_Testall(team->world, team->requests, &done, MPI_STATUSES_IGNORE) != MPI_SUCCESS) {
      team->dead = true;
      return lm_fail(team, LM_PEER, "%s: MPI reports that a message failed", what);
    }
    if (done) {
      return LM_OK;
    }
    if (lm_seconds() > deadline) {
      return fail_missing(team, what, timeout_ms);
    }
    sched_yield();
  }
}

static enum lm_exit gather(struct lm_team *team, const void *mine, size_t bytes, void *all,
                           int32_t timeout_ms) {
  const int count = (int)bytes;
  for (int32_t peer = 0; peer < team->world; ++peer) {
    team->requests[peer] = MPI_REQUEST_NULL;
    if (team->rank == 0 && peer != 0) {
      MPI_Irecv((char *)all + (size_t)peer * bytes, count, MPI_BYTE, peer, TAG_TO_ROOT, team->comm,
                &team->requests[peer]);
    }
  }
  if (team->rank == 0) {
    memcpy(all, mine, bytes);
  } else {
    MPI_Isend(mine, count, MPI_BYTE, 0, TAG_TO_ROOT, team->comm, &team->requests[0]);
  }
  return complete(team, "gathering on rank 0", timeout_ms);
}

static enum lm_exit broadcast(struct lm_team *team, void *buffer, size_t bytes,
                              int32_t timeout_ms) {
  const int count = (int)bytes;
  for (int32_t peer = 0; peer < team->world; ++peer) {
    team->requests[peer] = MPI_REQUEST_NULL;
    if (team->rank == 0 && peer != 0) {
      MPI_Isend(buffer, count, MPI_BYTE, peer, TAG_FROM_ROOT, team->comm, &team->requests[peer]);
    }
  }
  if (team->rank != 0) {
    MPI_Irecv(buffer, count, MPI_BYTE, 0, TAG_FROM_ROOT, team->comm, &team->requests[0]);
  }
  return complete(team, "hearing from rank 0", timeout_ms);
}

enum lm_exit lm_team_gather(struct lm_team *team, const void *mine, size_t bytes, void *all) {
  if (bytes > INT_MAX) {
    return lm_fail(team, LM_OTHER, "gathering %zu bytes from a rank: the most is %d", bytes,
                   INT_MAX);
  }
  return gather(team, mine, bytes, all, team->timeout_ms);
}

enum lm_exit lm_team_all(struct lm_team *team, bool mine, bool *all_out) {
  bool *each = calloc((size_t)team->world, sizeof *each);
  if (each == NULL) {
    team->dead = true; /* the peers wait for what this rank cannot say */
    return lm_fail(team, LM_OTHER, "out of memory for %d ranks", team->world);
  }
  enum lm_exit code = gather(team, &mine, sizeof mine, each, LM_LOAD_TIMEOUT_MS);
  bool all = true;
  for (int32_t peer = 0; code == LM_OK && team->rank == 0 && peer < team->world; ++peer) {
    all = all && each[peer];
  }
  free(each);
  if (code == LM_OK) {
    code = broadcast(team, &all, sizeof all, LM_LOAD_TIMEOUT_MS);
  }
  *all_out = all;
  return code;
}

struct verdict {
  int32_t code;
  uint32_t text_hash;   /* tells equal sentences */
  uint32_t common_hash; /* of what must be the same on all ranks */
};

uint32_t lm_hash(uint32_t hash, const void *data, size_t bytes) {
  const unsigned char *byte = data;
  for (size_t i = 0; i < bytes; ++i) {
    hash = (hash ^ byte[i]) * UINT32_C(16777619);
  }
  return hash;
}

static struct verdict verdict_make(const struct lm_team *team, enum lm_exit code,
                                   uint32_t common_hash) {
  const uint32_t text_hash = lm_hash(LM_HASH_SEED, team->text, strlen(team->text));
  return (struct verdict){.code = (int32_t)code,
                          .text_hash = code == LM_OK ? 0 : text_hash,
                          .common_hash = common_hash};
}

static _Noreturn void leave_alone(const struct lm_team *team, enum lm_exit code) {
  fflush(stdout);
  fprintf(stderr, "lm: rank %d: %s\n", team->rank, team->text);
  _exit((int)code);
}

/* What is wrong with a file is mostly wrong for every rank, in other words for each: the lowest rank
 * that failed speaks for all. */
static void print_verdict(const struct lm_team *team, const struct verdict *all) {
  const struct verdict mine = all[team->rank];
  int32_t alike = 0;
  int32_t others = 0;
  for (int32_t peer = 0; peer < team->world; ++peer) {
    if (all[peer].code != LM_OK && peer < team->rank) {
      return;
    }
    const bool same = all[peer].code == mine.code && all[peer].text_hash == mine.text_hash;
    alike += same;
    others += !same && all[peer].code != LM_OK;
  }
  if (mine.code == LM_OK) {
    return;
  }
  char speaker[32] = "";
  char rest[64] = "";
  if (alike < team->world) {
    snprintf(speaker, sizeof speaker, "rank %d: ", team->rank);
  }
  if (others > 0) {
    snprintf(rest, sizeof rest, " (%d other rank%s failed too)", others, others == 1 ? "" : "s");
  }
  fprintf(stderr, "lm: %s%s%s\n", speaker, team->text, rest);
}

/* The lowest rank's code that is not LM_OK; where all are well, LM_USAGE if something differs. */
static enum lm_exit agreed_code(struct lm_team *team, const struct verdict *all,
                                const char *other) {
  for (int32_t peer = 0; peer < team->world; ++peer) {
    if (all[peer].code != LM_OK) {
      return (enum lm_exit)all[peer].code;
    }
  }
  for (int32_t peer = 1; peer < team->world; ++peer) {
    if (all[peer].common_hash != all[0].common_hash) {
      lm_fail(team, LM_USAGE, "rank %d has %s than rank 0", peer, other);
      if (team->rank == 0) {
        fprintf(stderr, "lm: %s\n", team->text);
      }
      return LM_USAGE;
    }
  }
  return LM_OK;
}

enum lm_exit lm_team_agree_on(struct lm_team *team, enum lm_exit mine, uint32_t common_hash,
                              const char *other) {
  if (team->dead) {
    leave_alone(team, mine);
  }
  const size_t bytes = (size_t)team->world * sizeof(struct verdict);
  struct verdict *all = calloc((size_t)team->world, sizeof *all);
  if (all == NULL) {
    leave_alone(team, lm_fail(team, LM_OTHER, "out of memory for %zu bytes", bytes));
  }
  const struct verdict verdict = verdict_make(team, mine, common_hash);
  enum lm_exit code = gather(team, &verdict, sizeof verdict, all, LM_LOAD_TIMEOUT_MS);
  if (code == LM_OK) {
    code = broadcast(team, all, bytes, LM_LOAD_TIMEOUT_MS);
  }
  if (code != LM_OK) {
    leave_alone(team, code);
  }
  print_verdict(team, all);
  code = agreed_code(team, all, other);
  free(all);
  return code;
}

enum lm_exit lm_team_agree(struct lm_team *team, enum lm_exit mine) {
  return lm_team_agree_on(team, mine, 0, "");
}
