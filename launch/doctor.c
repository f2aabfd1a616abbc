/* switchyard doctor: whether a job would run on these ranks, and what their links can do. */
#include "launch/doctor.h"

#include <assert.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "launch/command.h"
#include "launch/fingerprint.h"
#include "launch/host.h"
#include "launch/options.h"
#include "launch/peers.h"
#include "launch/plan.h"
#include "runtime/switchyard_checkpoint.h"

struct flags {
  int model, mode, combine;
  int64_t max_tokens, layers, timeout_s;
  const char *checkpoint, *write_link;
  bool gpus, json;
};

#define NOT_GIVEN (-1)
#define AT(field) .offset = offsetof(struct flags, field)

static const struct option_spec specs[] = {
    {.kind = OPTION_HEADING, .name = "The job"},
    {.kind = OPTION_CHOICE,
     .name = "model",
     .value = "NAME",
     .help = "a known model, whose layer is planned",
     AT(model),
     .choices = layer_models},
    {.kind = OPTION_TEXT,
     .name = "checkpoint",
     .value = "DIR",
     .help = "the job's checkpoint, in place of a model: must be the same on all ranks",
     AT(checkpoint)},
    {.kind = OPTION_INTEGER,
     .name = "layers",
     .value = "N",
     .help = "whose weights must fit into memory (default: the checkpoint's, or 1)",
     AT(layers),
     .min = 1,
     .max = 4096},
    {.kind = OPTION_CHOICE,
     .name = "mode",
     .value = "NAME",
     .help = "formats of weights and activations",
     AT(mode),
     .choices = layer_modes},
    {.kind = OPTION_CHOICE,
     .name = "combine",
     .value = "NAME",
     .help = "how a token's partial results meet again",
     AT(combine),
     .choices = plan_combines},
    {.kind = OPTION_INTEGER,
     .name = "max-tokens",
     .value = "N",
     .help = "tokens of any rank in one forward",
     AT(max_tokens),
     .min = 1,
     .max = INT32_MAX},
    {.kind = OPTION_SWITCH, .name = "gpus", .help = "every rank needs a GPU and NCCL", AT(gpus)},
    {.kind = OPTION_INTEGER,
     .name = "timeout",
     .value = "SECONDS",
     .help = "how long to wait for another rank",
     AT(timeout_s),
     .min = 1,
     .max = 86400},
    {.kind = OPTION_HEADING, .name = "Output"},
    {.kind = OPTION_TEXT,
     .name = "write-link",
     .value = "FILE",
     .help = "write the links' figures, for `switchyard plan --link` and `lm --link`",
     AT(write_link)},
    {.kind = OPTION_SWITCH, .name = "json", .help = "print JSON", AT(json)},
};

static const struct option_page page = {
    .about =
        "Looks at the ranks and hosts of a job before it runs: versions, checkpoint and plan that "
        "must agree, GPUs, memory, clocks; measures latency and bandwidth of every pair of ranks, "
        "one at a time (beyond 16 ranks disjoint pairs at once), and each rank's bandwidth while "
        "all exchange with all; marks slow links; tells which strategy `auto` would take. Exits "
        "with 1 when something would break the job.",
    .examples = "  mpirun -n 4 switchyard doctor\n"
                "  mpirun -n 8 switchyard doctor --checkpoint DIR --write-link link.json\n"
                "  mpirun -n 8 switchyard doctor --model deepseek-v3 --layers 58 --json\n",
    .specs = specs,
    .num_specs = sizeof specs / sizeof specs[0],
};

/* ---- Facts of this rank ---- */

/* The number behind `key` in a file of the system; otherwise UINT64_MAX ("max", or there is none). */
static uint64_t read_number(const char *path, const char *key) {
  char line[128];
  uint64_t value = UINT64_MAX;
  FILE *file = fopen(path, "re");
  while (file != NULL && fgets(line, sizeof line, file) != NULL) {
    if (strncmp(line, key, strlen(key)) == 0) {
      const char *digits = line + strlen(key);
      char *end = NULL;
      const unsigned long long number = strtoull(digits, &end, 10);
      value = end == digits ? UINT64_MAX : number;
      break;
    }
  }
  if (file != NULL) {
    fclose(file);
  }
  return value;
}

/* What the kernel says can be had without swapping, within the cgroup's limit. */
static uint64_t available_memory(void) {
  const uint64_t kib = read_number("/proc/meminfo", "MemAvailable:");
  const uint64_t limit = read_number("/sys/fs/cgroup/memory.max", "");
  const uint64_t used = read_number("/sys/fs/cgroup/memory.current", "");
  const uint64_t within = limit == UINT64_MAX || used > limit ? UINT64_MAX : limit - used;
  const uint64_t bytes = kib > UINT64_MAX / 1024 ? UINT64_MAX : kib * 1024;
  return bytes < within ? bytes : within;
}

/* The layer and how many there are, from the checkpoint or from a known model. */
static bool find_layer(const struct flags *flags, sy_shape *shape, int64_t *layers,
                       struct doctor_facts *facts) {
  *layers = flags->layers == NOT_GIVEN ? 1 : flags->layers;
  if (flags->checkpoint == NULL) {
    *shape = layer_model_shape(flags->model);
    return true;
  }
  sy_checkpoint *checkpoint = NULL;
  sy_model_info info = SY_MODEL_INFO_INIT;
  sy_status status = sy_checkpoint_open(flags->checkpoint, &checkpoint);
  if (status == SY_OK) {
    status = sy_checkpoint_model(checkpoint, &info);
  }
  sy_checkpoint_close(checkpoint);
  if (status != SY_OK) {
    snprintf(facts->problem, sizeof facts->problem, "%.380s", sy_last_error(NULL));
    return false;
  }
  *shape = info.shape;
  *layers = flags->layers == NOT_GIVEN ? info.num_layers : flags->layers;
  return fingerprint_folder(flags->checkpoint, &facts->fingerprint, facts->problem);
}

static bool query_plan(const struct flags *flags, const sy_shape *shape, int32_t world,
                       int32_t rank, const sy_link *link, sy_plan_info *info_out) {
  sy_plan *plan = NULL;
  sy_plan_desc desc = SY_PLAN_DESC_INIT;
  desc.shape = shape;
  desc.world = world;
  desc.rank = rank;
  desc.max_tokens = flags->max_tokens;
  desc.combine = (sy_combine)flags->combine;
  desc.link = *link;
  const bool planned =
      sy_plan_create(&desc, &plan) == SY_OK && sy_plan_query(plan, info_out) == SY_OK;
  sy_plan_destroy(plan);
  return planned;
}

static void plan_needs(const struct session *session, const struct flags *flags,
                       struct doctor_facts *facts) {
  const sy_plan_desc defaults = SY_PLAN_DESC_INIT;
  sy_shape shape = SY_SHAPE_INIT;
  sy_plan_info info = SY_PLAN_INFO_INIT;
  int64_t layers = 1;
  if (!find_layer(flags, &shape, &layers, facts)) {
    return;
  }
  shape.mode = (sy_mode)flags->mode;
  if (!query_plan(flags, &shape, session->world, session->rank, &defaults.link, &info)) {
    snprintf(facts->problem, sizeof facts->problem, "%.380s", sy_last_error(NULL));
    return;
  }
  facts->plan_hash = info.hash;
  facts->needed_bytes =
      (uint64_t)layers * info.weight_bytes + info.exchange_bytes + info.scratch_bytes;
}

static int gather_own(struct session *session, const struct flags *flags,
                      struct doctor_facts *facts) {
  struct host_facts host;
  memset(facts, 0, sizeof *facts); /* padding too: it is sent */
  if (!host_discover(&host)) {
    return session_fail(session, CLI_FAILED, "hwloc cannot read the topology of this host");
  }
  const char *mpi = peers_library();
  memcpy(facts->host, host.name, sizeof facts->host);
  snprintf(facts->library, sizeof facts->library, "%s", sy_version());
  if (mpi != NULL) {
    snprintf(facts->mpi, sizeof facts->mpi, "%.*s", (int)strcspn(mpi, ",\n"), mpi);
  }
  snprintf(facts->place, sizeof facts->place, "%s", session->bind.sentence);
  facts->local_size = session->bind.local_size;
  facts->usable_cores = host.usable_cores;
  facts->available_bytes = available_memory();
  devices_read(&facts->devices);
  plan_needs(session, flags, facts);
  return CLI_OK;
}

/* ---- The sheet ---- */

static bool allocate(struct doctor_sheet *sheet, int32_t world) {
  const size_t ranks = (size_t)world;
  sheet->world = world;
  sheet->facts = calloc(ranks, sizeof *sheet->facts);
  sheet->host_of = calloc(ranks, sizeof *sheet->host_of);
  sheet->ahead_s = calloc(ranks, sizeof *sheet->ahead_s);
  sheet->pairs = calloc(ranks * ranks, sizeof *sheet->pairs);
  sheet->exchange_gbs = calloc(ranks, sizeof *sheet->exchange_gbs);
  return sheet->facts != NULL && sheet->host_of != NULL && sheet->ahead_s != NULL &&
         sheet->pairs != NULL && sheet->exchange_gbs != NULL;
}

static void release(struct doctor_sheet *sheet) {
  free(sheet->facts);
  free(sheet->host_of);
  free(sheet->ahead_s);
  free(sheet->pairs);
  free(sheet->exchange_gbs);
}

/* Hosts are numbered in the order of their first ranks. */
static void number_hosts(struct doctor_sheet *sheet) {
  assert(sheet->facts != NULL);
  for (int32_t r = 0; r < sheet->world; ++r) {
    int32_t first = 0;
    while (strcmp(sheet->facts[first].host, sheet->facts[r].host) != 0) {
      ++first;
    }
    sheet->host_of[r] = first < r ? sheet->host_of[first] : sheet->num_hosts++;
  }
}

static void plan_with_link(const struct flags *flags, struct doctor_sheet *sheet) {
  struct doctor_facts unused;
  sy_shape shape = SY_SHAPE_INIT;
  int64_t layers = 1;
  memset(&unused, 0, sizeof unused);
  if (find_layer(flags, &shape, &layers, &unused)) {
    shape.mode = (sy_mode)flags->mode;
    query_plan(flags, &shape, sheet->world, 0, &sheet->link, &sheet->plan);
  }
}

/* ---- The command ---- */

static int write_results(struct session *session, const struct flags *flags,
                         const struct doctor_sheet *sheet) {
  char error[LAUNCH_ERROR_BYTES];
  if (flags->json && !doctor_print_json(sheet)) {
    return session_fail(session, CLI_FAILED, "out of memory");
  }
  if (!flags->json) {
    doctor_print_text(sheet);
  }
  if (flags->write_link != NULL &&
      !link_file_write(flags->write_link, &sheet->link, &sheet->source, error)) {
    return session_fail(session, CLI_FAILED, "%s", error);
  }
  return CLI_OK;
}

/* Collective. */
static int examine(struct session *session, const struct flags *flags, struct probe *probe,
                   const struct doctor_facts *mine, struct doctor_sheet *sheet) {
  if (!probe_allgather(probe, "hearing from all ranks", mine, sheet->facts, sizeof *mine)) {
    return session_fail(session, CLI_PEER, "%s", probe->error);
  }
  number_hosts(sheet);
  if (!doctor_measure(probe, sheet)) {
    return session_fail(session, CLI_PEER, "%s", probe->error);
  }
  doctor_make_link(sheet);
  if (session->rank == 0) {
    plan_with_link(flags, sheet); /* before the check, and on the rank that prints */
  }
  const enum doctor_verdict worst = doctor_check(sheet);
  int code = CLI_OK;
  if (session->rank == 0) {
    code = write_results(session, flags, sheet);
  }
  if (code == CLI_OK && worst == DOCTOR_BROKEN) {
    return CLI_FAILED; /* the findings have said why */
  }
  return code;
}

int doctor_command(struct session *session, int argc, char **argv) {
  struct flags flags = {.max_tokens = 4096, .layers = NOT_GIVEN, .timeout_s = 30};
  struct doctor_facts mine;
  struct doctor_sheet sheet = {.plan = SY_PLAN_INFO_INIT};
  struct probe probe = {.state = NULL};
  int code = options_parse(session, &page, argc, argv, &flags);
  if (code == CLI_OK) {
    code = gather_own(session, &flags, &mine);
  }
  if (code == CLI_OK &&
      (!allocate(&sheet, session->world) ||
       !probe_open(&probe, session->rank, session->world, (double)flags.timeout_s))) {
    code = session_fail(session, CLI_FAILED, "out of memory for the figures of %d ranks",
                        session->world);
  }
  code = session_agree(session, code);
  if (code == CLI_OK) {
    sheet.has_gpus = flags.gpus;
    sheet.checkpoint = flags.checkpoint;
    sheet.model =
        flags.checkpoint != NULL ? flags.checkpoint : option_choice_name(layer_models, flags.model);
    sheet.max_tokens = flags.max_tokens;
    code = examine(session, &flags, &probe, &mine, &sheet);
  }
  probe_close(&probe);
  release(&sheet);
  return code;
}
