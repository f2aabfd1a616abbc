#include "launch/info.h"

#include <jansson.h>
#include <string.h>

#include "launch/text.h"
#include "runtime/switchyard.h"

static const char *const cache_names[HOST_CACHE_LEVELS] = {"L1d", "L2", "L3"};

static void print_backends(const struct text_style *style, const struct info_sheet *sheet) {
  printf("\n%sBackends%s\n", style->bold, style->end);
  printf("  Kernels    cpu%s\n  Level      ",
         sheet->gpus->is_built ? ", cuda" : ", the only one built in");
  text_wrap(stdout, 13, sheet->ranks[0].backend);
  printf("  Exchange   local (one process)");
  if (sheet->mpi_library != NULL) {
    printf(", mpi (%.*s)", (int)strcspn(sheet->mpi_library, ",\n"), sheet->mpi_library);
  }
  printf("%s%s\n", sheet->gpus->is_built ? ", nccl (GPUs)" : "",
         sheet->mpi_library == NULL ? "; built without MPI" : "");
}

static void print_host(const struct text_style *style, const struct host_facts *host) {
  char bytes[TEXT_SIZE];
  printf("\n%sHost %s%s\n", style->bold, host->name, style->end);
  if (host->processor[0] != '\0') {
    printf("  Processor  %s\n", host->processor);
  }
  printf("  Cores      %d of %d usable here (hardware threads: %s)\n", host->usable_cores,
         host->cores, host->cpu_list);
  printf("  Memory     %s in %d NUMA node%s\n", text_bytes(bytes, host->memory_bytes),
         host->numa_nodes, host->numa_nodes == 1 ? "" : "s");
  const char *before = "  Caches     ";
  for (int level = 0; level < HOST_CACHE_LEVELS; ++level) {
    if (host->caches[level] > 0) {
      printf("%s%d x %s %s", before, host->caches[level], cache_names[level],
             text_bytes(bytes, host->cache_bytes[level]));
      before = ", ";
    }
  }
  printf("%s", before[0] == ',' ? "\n" : "");
}

static void print_peers(const struct gpus *gpus, int device) {
  const char *before = "     Reads the memory of GPU ";
  for (int peer = 0; peer < gpus->count; ++peer) {
    if (gpus->gpu[device].reaches[peer]) {
      printf("%s%d", before, peer);
      before = ", ";
    }
  }
  printf("%s", before[0] == ',' ? "\n" : "");
}

static void print_gpus(const struct text_style *style, const struct gpus *gpus) {
  char bytes[TEXT_SIZE];
  printf("\n%sGPUs%s\n", style->bold, style->end);
  for (int i = 0; i < gpus->count; ++i) {
    const struct gpu_facts *gpu = &gpus->gpu[i];
    printf("  %d  %s: %d SMs, %s, compute capability %d.%d\n     Kernels ", i, gpu->name,
           gpu->num_sms, text_bytes(bytes, gpu->memory_bytes), gpu->compute_major,
           gpu->compute_minor);
    text_wrap(stdout, 13, gpu->kernels);
    print_peers(gpus, i);
  }
  if (gpus->missing[0] != '\0') {
    printf("  None: ");
    text_wrap(stdout, 8, gpus->missing);
  }
}

static void print_ranks(const struct text_style *style, const struct info_sheet *sheet) {
  printf("\n%s%d ranks on %d host%s%s\n", style->bold, sheet->world, sheet->num_hosts,
         sheet->num_hosts == 1 ? "" : "s", style->end);
  int width = 4;
  for (int rank = 0; rank < sheet->world; ++rank) {
    const int length = (int)strlen(sheet->ranks[rank].host.name);
    width = length > width ? length : width;
  }
  printf("%s  rank  %-*s  cores  place%s\n", style->dim, width, "host", style->end);
  for (int rank = 0; rank < sheet->world; ++rank) {
    const struct rank_facts *facts = &sheet->ranks[rank];
    printf("  %4d  %-*s  %5d  ", rank, width, facts->host.name, facts->host.usable_cores);
    text_wrap(stdout, width + 17, facts->place);
  }
}

void info_print_text(const struct info_sheet *sheet) {
  const struct text_style style = text_style_of_stdout();
  printf("%sSwitchyard %s%s\n", style.bold, sy_version(), style.end);
  print_backends(&style, sheet);
  print_host(&style, &sheet->ranks[0].host);
  if (sheet->gpus->is_built) {
    print_gpus(&style, sheet->gpus);
  }
  if (sheet->world > 1) {
    print_ranks(&style, sheet);
  }
}

static json_t *host_json(const struct host_facts *host) {
  json_t *caches = json_array();
  for (int level = 0; level < HOST_CACHE_LEVELS; ++level) {
    if (host->caches[level] > 0) {
      json_array_append_new(caches, json_pack("{s:s, s:i, s:I}", "name", cache_names[level],
                                              "count", host->caches[level], "bytes",
                                              (json_int_t)host->cache_bytes[level]));
    }
  }
  return json_pack("{s:s, s:s, s:i, s:i, s:i, s:i, s:s, s:i, s:I, s:o}", "name", host->name,
                   "processor", host->processor, "cores", host->cores, "hardware_threads",
                   host->cpus, "usable_cores", host->usable_cores, "usable_hardware_threads",
                   host->usable_cpus, "usable_list", host->cpu_list, "numa_nodes", host->numa_nodes,
                   "memory_bytes", (json_int_t)host->memory_bytes, "caches", caches);
}

static json_t *ranks_json(const struct info_sheet *sheet) {
  json_t *list = json_array();
  for (int rank = 0; rank < sheet->world; ++rank) {
    const struct rank_facts *facts = &sheet->ranks[rank];
    json_array_append_new(list,
                          json_pack("{s:i, s:s, s:s, s:i, s:i, s:s, s:s}", "rank", rank, "host",
                                    facts->host.name, "backend", facts->backend, "usable_cores",
                                    facts->host.usable_cores, "usable_hardware_threads",
                                    facts->host.usable_cpus, "usable_list", facts->host.cpu_list,
                                    "place", facts->place));
  }
  return list;
}

static json_t *gpus_json(const struct gpus *gpus) {
  json_t *list = json_array();
  for (int i = 0; i < gpus->count; ++i) {
    const struct gpu_facts *gpu = &gpus->gpu[i];
    json_t *reaches = json_array();
    for (int peer = 0; peer < gpus->count; ++peer) {
      if (gpu->reaches[peer]) {
        json_array_append_new(reaches, json_integer(peer));
      }
    }
    json_array_append_new(list, json_pack("{s:i, s:s, s:i, s:I, s:i, s:i, s:b, s:s, s:o}", "device",
                                          i, "name", gpu->name, "sms", gpu->num_sms, "memory_bytes",
                                          (json_int_t)gpu->memory_bytes, "compute_major",
                                          gpu->compute_major, "compute_minor", gpu->compute_minor,
                                          "usable", gpu->is_usable ? 1 : 0, "kernels", gpu->kernels,
                                          "reads_memory_of", reaches));
  }
  return list;
}

static json_t *backends_json(const struct info_sheet *sheet) {
  return sheet->gpus->is_built ? json_pack("[s, s]", "cpu", "cuda") : json_pack("[s]", "cpu");
}

static json_t *transports_json(const struct info_sheet *sheet) {
  json_t *list = json_pack("[s]", "local");
  if (sheet->mpi_library != NULL) {
    json_array_append_new(list, json_string("mpi"));
  }
  if (sheet->gpus->is_built) {
    json_array_append_new(list, json_string("nccl"));
  }
  return list;
}

bool info_print_json(const struct info_sheet *sheet) {
  json_t *root =
      json_pack("{s:s, s:o, s:s, s:o, s:s?, s:o, s:o, s:s, s:i, s:i, s:o}", "version", sy_version(),
                "backends", backends_json(sheet), "backend", sheet->ranks[0].backend, "transports",
                transports_json(sheet), "mpi_library", sheet->mpi_library, "host",
                host_json(&sheet->ranks[0].host), "gpus", gpus_json(sheet->gpus), "gpus_missing",
                sheet->gpus->is_built ? sheet->gpus->missing : "built without CUDA", "world",
                sheet->world, "hosts", sheet->num_hosts, "ranks", ranks_json(sheet));
  if (root == NULL) {
    return false;
  }
  json_dumpf(root, stdout, JSON_INDENT(2)); /* main looks at stdout's error state */
  putchar('\n');
  json_decref(root);
  return true;
}
