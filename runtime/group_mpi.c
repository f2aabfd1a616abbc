/* A group of the ranks of an MPI communicator. */
#define _GNU_SOURCE /* sched_getaffinity */
#include "runtime/switchyard_mpi.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "comm/clock.h"
#include "comm/mpi_transport.h"
#include "runtime/internal.h"
#include "runtime/memory.h"

/* What ranks tell each other first. Never changes, so that any two versions understand it. */
struct version_note {
  char version[32];
};

/* What they tell each other then. */
struct create_note {
  int32_t status; /* of the rank's own arguments */
  int32_t num_cores;
  cpu_set_t cores; /* that the rank may use */
  char host[MPI_MAX_PROCESSOR_NAME];
};

static sy_status check_comm(MPI_Comm comm) {
  int is_initialized = 0;
  int is_finalized = 0;
  MPI_Initialized(&is_initialized);
  MPI_Finalized(&is_finalized);
  if (!is_initialized || is_finalized) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_group_create_mpi: MPI is %s",
                   is_finalized ? "finalised already" : "not initialised");
  }
  if (comm == MPI_COMM_NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "sy_group_create_mpi: comm is MPI_COMM_NULL");
  }
  int is_inter = 0;
  MPI_Comm_test_inter(comm, &is_inter);
  if (is_inter) {
    return sy_fail(SY_ERR_ARGUMENT,
                   "sy_group_create_mpi: comm is an inter-communicator; expected an "
                   "intra-communicator");
  }
  return SY_OK;
}

/* ---- Agreement ---- */

/* Appends, as far as it fits. */
static void add_text(char *text, size_t bytes, const char *more) {
  const size_t used = strlen(text);
  snprintf(text + used, bytes - used, "%s", more);
}

static sy_status gather(struct sy_transport *t, const void *mine, size_t bytes, void *all,
                        int64_t deadline_ns) {
  const sy_status status = t->ops->allgather(t, mine, bytes, all, deadline_ns);
  if (status != SY_ERR_PEER) {
    return status;
  }
  char ranks[256] = "";
  for (int32_t peer = 0; peer < t->world; ++peer) {
    if (t->ops->missing(t, peer)) {
      char name[16];
      snprintf(name, sizeof name, "%s%d", ranks[0] != '\0' ? ", " : "", (int)peer);
      add_text(ranks, sizeof ranks, name);
    }
  }
  return sy_fail(status, "sy_group_create_mpi: rank %d heard nothing in time from rank %s",
                 (int)t->rank, ranks);
}

static sy_status agree_on_version(struct sy_transport *t, struct version_note *all,
                                  int64_t deadline_ns) {
  struct version_note mine = {""};
  snprintf(mine.version, sizeof mine.version, "%s", sy_version());
  SY_TRY(gather(t, &mine, sizeof mine, all, deadline_ns));
  char others[256] = "";
  for (int32_t peer = 0; peer < t->world; ++peer) {
    struct version_note *theirs = &all[peer];
    theirs->version[sizeof theirs->version - 1] = '\0';
    if (strcmp(theirs->version, all[0].version) != 0) {
      char other[64];
      snprintf(other, sizeof other, ", rank %d has %s", (int)peer, theirs->version);
      add_text(others, sizeof others, other);
    }
  }
  if (others[0] == '\0') {
    return SY_OK;
  }
  return sy_fail(SY_ERR_MISMATCH, "versions of Switchyard differ: rank 0 has %s%s", all[0].version,
                 others);
}

static struct create_note make_note(sy_status status) {
  struct create_note note = {.status = (int32_t)status};
  int length = 0;
  MPI_Get_processor_name(note.host, &length);
  if (sched_getaffinity(0, sizeof note.cores, &note.cores) == 0) {
    note.num_cores = CPU_COUNT(&note.cores);
  } else { /* more cores than a cpu_set_t has: as if this rank could use them all */
    memset(&note.cores, 0xFF, sizeof note.cores);
    note.num_cores = (int32_t)sysconf(_SC_NPROCESSORS_ONLN);
  }
  return note;
}

/* A rank whose arguments are wrong fails the call on all ranks. */
static sy_status agree_on_arguments(struct sy_transport *t, sy_status own, struct create_note *all,
                                    int64_t deadline_ns) {
  const struct create_note mine = make_note(own);
  SY_TRY(gather(t, &mine, sizeof mine, all, deadline_ns));
  SY_TRY(own); /* whose sentence says more than the one below */
  for (int32_t peer = 0; peer < t->world; ++peer) {
    const sy_status theirs = (sy_status)all[peer].status;
    if (theirs != SY_OK) {
      return sy_fail(theirs, "sy_group_create_mpi: rank %d: %s", (int)peer, sy_status_text(theirs));
    }
  }
  return SY_OK;
}

/* This rank's share of the cores it may use: others of its host may use them too. */
static int32_t share_of_cores(const struct sy_transport *t, const struct create_note *all) {
  const struct create_note *mine = &all[t->rank];
  int32_t num_sharers = 1; /* this rank */
  for (int32_t peer = 0; peer < t->world; ++peer) {
    cpu_set_t common;
    CPU_AND(&common, &mine->cores, &all[peer].cores);
    num_sharers +=
        peer != t->rank && strcmp(all[peer].host, mine->host) == 0 && CPU_COUNT(&common) > 0;
  }
  const int32_t share = mine->num_cores / num_sharers;
  return share > 1 ? share : 1;
}

/* ---- Creation ---- */

/* OMP_NUM_THREADS, where it is set, is what a group takes for num_threads == 0. */
static sy_status create_agreed(struct sy_transport *t, const sy_group_desc *desc, sy_status own,
                               int64_t deadline_ns, sy_group **group_out) {
  struct create_note *notes =
      sy_alloc((size_t)t->world * (sizeof *notes + sizeof(struct version_note)));
  struct version_note *versions = (struct version_note *)(notes + t->world);
  if (notes == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory to greet %d ranks", (int)t->world);
  }
  sy_status status = agree_on_version(t, versions, deadline_ns);
  if (status == SY_OK) {
    status = agree_on_arguments(t, own, notes, deadline_ns);
  }
  if (status == SY_OK) {
    sy_group_desc shared = *desc;
    const char *omp_threads = getenv("OMP_NUM_THREADS");
    if (shared.num_threads == 0 && (omp_threads == NULL || *omp_threads == '\0')) {
      shared.num_threads = share_of_cores(t, notes);
    }
    status = sy_group_create_transport(&shared, NULL, t, group_out);
  }
  sy_free(notes);
  return status;
}

sy_status sy_group_create_mpi(MPI_Comm comm, const sy_group_desc *desc, sy_group **group_out) {
  const sy_group_desc defaults = SY_GROUP_DESC_INIT;
  SY_TRY(check_comm(comm));
  const sy_status own = sy_group_check_host(desc, group_out);
  desc = desc == NULL || own != SY_OK ? &defaults : desc;
  const int64_t deadline_ns = sy_clock_ns() + (int64_t)desc->load_timeout_ms * 1000000;
  struct sy_transport *t = NULL;
  SY_TRY(sy_transport_create_mpi(comm, deadline_ns, &t));
  const sy_status status = create_agreed(t, desc, own, deadline_ns, group_out);
  if (status == SY_ERR_PEER || status == SY_ERR_TRANSPORT) {
    t->ops->abort(t);
  }
  if (status != SY_OK) {
    t->ops->destroy(t);
  }
  return status;
}
