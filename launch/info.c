/* switchyard info: versions, backends, this host, and the ranks that run here. */
#include <stdlib.h>
#include <string.h>

#include "launch/command.h"
#include "launch/info.h"
#include "launch/options.h"
#include "launch/peers.h"

struct flags {
  bool json;
};

static const struct option_spec specs[] = {
    {.kind = OPTION_HEADING, .name = "Options"},
    {.kind = OPTION_SWITCH,
     .name = "json",
     .help = "print JSON",
     .offset = offsetof(struct flags, json)},
};

static const struct option_page page = {
    .about =
        "Shows the library's version, the backends built in and what is in use of them, what "
        "this process may use of its host, and its GPUs. Under mpirun also where the ranks are and "
        "which cores each may use. SWITCHYARD_CPU_LEVEL in the environment chooses another "
        "instruction level than the best; SWITCHYARD_BIND=none leaves the ranks where the "
        "system puts them.",
    .examples = "  switchyard info\n"
                "  switchyard info --json\n"
                "  mpirun -n 4 switchyard info\n",
    .specs = specs,
    .num_specs = sizeof specs / sizeof specs[0],
};

static int discover(struct session *session, struct rank_facts *facts) {
  memset(facts, 0, sizeof *facts); /* padding too: it is sent */
  if (!host_discover(&facts->host)) {
    return session_fail(session, CLI_FAILED, "hwloc cannot read the topology of this host");
  }
  snprintf(facts->backend, sizeof facts->backend, "%s", sy_backend());
  snprintf(facts->place, sizeof facts->place, "%s", session->bind.sentence);
  return CLI_OK;
}

static int count_hosts(const struct rank_facts *ranks, int world) {
  int hosts = 0;
  for (int rank = 0; rank < world; ++rank) {
    int first = 0;
    while (strcmp(ranks[first].host.name, ranks[rank].host.name) != 0) {
      ++first;
    }
    hosts += first == rank ? 1 : 0;
  }
  return hosts;
}

static int print(struct session *session, const struct rank_facts *ranks, bool json) {
  struct gpus gpus;
  gpus_discover(&gpus);
  const struct info_sheet sheet = {
      .world = session->world,
      .ranks = ranks,
      .num_hosts = count_hosts(ranks, session->world),
      .mpi_library = peers_library(),
      .gpus = &gpus,
  };
  if (!json) {
    info_print_text(&sheet);
  } else if (!info_print_json(&sheet)) {
    return session_fail(session, CLI_FAILED, "the JSON text cannot be made");
  }
  return CLI_OK;
}

/* Collective. */
static int gather_and_print(struct session *session, const struct rank_facts *mine, bool json) {
  struct rank_facts *ranks = calloc((size_t)session->world, sizeof *ranks);
  if (ranks == NULL) {
    return session_fail(session, CLI_FAILED, "out of memory for %d ranks", session->world);
  }
  int code = CLI_OK;
  if (!peers_allgather(mine, ranks, sizeof *mine)) {
    code = session_fail(session, CLI_PEER, "the ranks cannot reach each other");
  } else if (session->rank == 0) {
    code = print(session, ranks, json);
  }
  free(ranks);
  return code;
}

int info_command(struct session *session, int argc, char **argv) {
  struct flags flags = {.json = false};
  struct rank_facts mine;
  int code = options_parse(session, &page, argc, argv, &flags);
  if (code == CLI_OK) {
    code = discover(session, &mine);
  }
  code = session_agree(session, code);
  return code == CLI_OK ? gather_and_print(session, &mine, flags.json) : code;
}
