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
#include "runtime/agree.h"
#include "runtime/group_mpi.h"
#include "runtime/internal.h"
#include "runtime/memory.h"

/* What ranks tell each other once their versions agree. */
struct create_note {
  int32_t num_cores;
  cpu_set_t cores; /* that the rank may use */
  char host[MPI_MAX_PROCESSOR_NAME];
};

sy_status sy_group_check_comm(const char *call, MPI_Comm comm) {
  int is_initialized = 0;
  int is_finalized = 0;
  MPI_Initialized(&is_initialized);
  MPI_Finalized(&is_finalized);
  if (!is_initialized || is_finalized) {
    return sy_fail(SY_ERR_ARGUMENT, "%s: MPI is %s", call,
                   is_finalized ? "finalised already" : "not initialised");
  }
  if (comm == MPI_COMM_NULL) {
    return sy_fail(SY_ERR_ARGUMENT, "%s: comm is MPI_COMM_NULL", call);
  }
  int is_inter = 0;
  MPI_Comm_test_inter(comm, &is_inter);
  if (is_inter) {
    return sy_fail(SY_ERR_ARGUMENT,
                   "%s: comm is an inter-communicator; expected an intra-communicator", call);
  }
  return SY_OK;
}

/* ---- Agreement ---- */

static struct create_note make_note(void) {
  struct create_note note = {.num_cores = 0};
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
                               const struct sy_agreement *agreement, sy_group **group_out) {
  struct create_note *notes = sy_alloc((size_t)t->world * sizeof *notes);
  if (notes == NULL) {
    return sy_fail(SY_ERR_MEMORY, "no memory to greet %d ranks", (int)t->world);
  }
  const struct create_note mine = make_note();
  sy_status status = sy_agree_on_version(agreement);
  if (status == SY_OK) {
    status = sy_agree_on_status(agreement, own);
  }
  if (status == SY_OK) {
    status = sy_agree_gather(agreement, &mine, sizeof mine, notes);
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
  static const char call[] = "sy_group_create_mpi";
  const sy_group_desc defaults = SY_GROUP_DESC_INIT;
  SY_TRY(sy_group_check_comm(call, comm));
  const sy_status own = sy_group_check_host(desc, group_out);
  desc = desc == NULL || own != SY_OK ? &defaults : desc;
  const int64_t deadline_ns = sy_clock_ns() + (int64_t)desc->load_timeout_ms * 1000000;
  struct sy_transport *t = NULL;
  SY_TRY(sy_transport_create_mpi(comm, deadline_ns, &t));
  const struct sy_agreement agreement = {
      .call = call, .rank = t->rank, .world = t->world, .transport = t, .deadline_ns = deadline_ns};
  const sy_status status = create_agreed(t, desc, own, &agreement, group_out);
  if (status == SY_ERR_PEER || status == SY_ERR_TRANSPORT) {
    t->ops->abort(t);
  }
  if (status != SY_OK) {
    t->ops->destroy(t);
  }
  return status;
}
