#include <jansson.h>
#include <string.h>

#include "launch/text.h"
#include "launch/topo.h"

#define CPUS_COLUMNS 26

static int count(const struct topo_sheet *sheet, hwloc_obj_type_t type) {
  const int found = hwloc_get_nbobjs_by_type(sheet->machine->topology, type);
  return found < 0 ? 0 : found;
}

/* ---- Text ----------------------------------------------------------------------------------- */

static const char *plural(int count_of) { return count_of == 1 ? "" : "s"; }

static void print_machine(const struct text_style *style, const struct topo_sheet *sheet) {
  const struct machine *machine = sheet->machine;
  const char *processor = machine_processor(machine);
  char bytes[TEXT_SIZE];
  printf("%sMachine %s%s\n", style->bold, topo_host_name(sheet), style->end);
  if (processor[0] != '\0') {
    printf("  Processor  %d x %s\n", count(sheet, HWLOC_OBJ_PACKAGE), processor);
  }
  printf("  Cores      %d usable, with %d hardware threads\n", sheet->table.num_usable_cores,
         count(sheet, HWLOC_OBJ_PU));
  printf("  Memory     %s in %d NUMA node%s\n", text_bytes(bytes, topo_memory_bytes(machine)),
         count(sheet, HWLOC_OBJ_NUMANODE), plural(count(sheet, HWLOC_OBJ_NUMANODE)));
  for (int32_t i = 0; i < machine->num_gpus; ++i) {
    printf("  GPU %-5d  %s  %s\n", i, machine->gpus[i].pci, machine->gpus[i].name);
  }
  for (int32_t i = 0; i < machine->num_nics; ++i) {
    const struct machine_nic *nic = &machine->nics[i];
    printf("  NIC        %s  %s%s%s%s\n", nic->pci, topo_nic_name(nic),
           nic->hca[0] != '\0' && nic->interface[0] != '\0' ? ", interface " : "",
           nic->hca[0] != '\0' ? nic->interface : "", nic->is_down ? ", down" : "");
  }
}

static void print_rank(const struct topo_sheet *sheet, int32_t r) {
  const struct machine *machine = sheet->machine;
  const struct binding *b = &sheet->table.ranks[r];
  char cpus[CPUS_COLUMNS + 1];
  char nodes[24];
  char gpu[24] = "-";
  if (b->device >= 0) {
    snprintf(gpu, sizeof gpu, b->gpu >= 0 ? "%d" : "?", b->gpu);
  }
  printf("  %4d  %3s  %5d  %-*s  %-6s  %7d  ", r, gpu, b->num_cores, CPUS_COLUMNS,
         bind_list_text(cpus, sizeof cpus, b->cpus), bind_list_text(nodes, sizeof nodes, b->nodes),
         b->threads);
  char words[400] = "";
  for (int32_t n = 0; n < b->num_nics; ++n) {
    const struct machine_nic *nic = &machine->nics[b->nics[n]];
    char word[64];
    snprintf(word, sizeof word, "%s%s", n > 0 ? " " : "", topo_nic_name(nic));
    strncat(words, word, sizeof words - strlen(words) - 1);
  }
  text_wrap(stdout, 68, b->num_nics == 0 ? "-" : words);
}

static void print_ranks(const struct text_style *style, const struct topo_sheet *sheet) {
  printf("\n%s%d rank%s", style->bold, sheet->table.num_ranks * sheet->num_hosts,
         plural(sheet->table.num_ranks * sheet->num_hosts));
  if (sheet->num_hosts > 1) {
    printf(", %d on each of %d such hosts; of the first", sheet->table.num_ranks, sheet->num_hosts);
  }
  printf("%s\n%s  rank  GPU  cores  %-*s  memory  threads  nearest NICs%s\n", style->end,
         style->dim, CPUS_COLUMNS, "hardware threads", style->end);
  for (int32_t r = 0; r < sheet->table.num_ranks; ++r) {
    print_rank(sheet, r);
  }
}

static void print_settings(const struct text_style *style, const struct topo_sheet *sheet) {
  printf("\n%sVariables that this machine calls for%s\n", style->bold, style->end);
  for (int32_t i = 0; i < sheet->num_settings; ++i) {
    const struct environment_setting *setting = &sheet->settings[i];
    printf("  %s=%s\n      %s", setting->name, setting->value, style->dim);
    text_wrap(stdout, 6, setting->reason);
    printf("%s", style->end);
  }
}

void topo_print_text(const struct topo_sheet *sheet) {
  const struct text_style style = text_style_of_stdout();
  print_machine(&style, sheet);
  print_ranks(&style, sheet);
  print_settings(&style, sheet);
  if (sheet->num_findings > 0) {
    printf("\n%sFound%s\n", style.bold, style.end);
  }
  for (int32_t i = 0; i < sheet->num_findings; ++i) {
    printf("  ");
    text_wrap(stdout, 2, sheet->findings[i]);
  }
}

/* ---- JSON ----------------------------------------------------------------------------------- */

static json_t *gpus_json(const struct machine *machine) {
  json_t *list = json_array();
  for (int32_t i = 0; i < machine->num_gpus; ++i) {
    const struct machine_gpu *gpu = &machine->gpus[i];
    json_array_append_new(list, json_pack("{s:i, s:s, s:s, s:s}", "index", (int)i, "pci", gpu->pci,
                                          "name", gpu->name, "uuid", gpu->uuid));
  }
  return list;
}

static json_t *nics_json(const struct machine *machine) {
  json_t *list = json_array();
  for (int32_t i = 0; i < machine->num_nics; ++i) {
    const struct machine_nic *nic = &machine->nics[i];
    json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:b}", "pci", nic->pci, "hca", nic->hca,
                                          "interface", nic->interface, "down", (int)nic->is_down));
  }
  return list;
}

static json_t *rank_json(const struct topo_sheet *sheet, int32_t rank) {
  const struct binding *b = &sheet->table.ranks[rank % sheet->table.num_ranks];
  char cpus[1024];
  char nodes[1024];
  json_t *nics = json_array();
  for (int32_t n = 0; n < b->num_nics; ++n) {
    json_array_append_new(nics, json_string(topo_nic_name(&sheet->machine->nics[b->nics[n]])));
  }
  return json_pack("{s:i, s:i, s:i, s:i, s:s, s:i, s:s, s:i, s:b, s:o}", "rank", (int)rank, "host",
                   (int)(rank / sheet->table.num_ranks), "gpu", (int)b->gpu, "cuda_device",
                   (int)b->device, "hardware_threads", bind_list_text(cpus, sizeof cpus, b->cpus),
                   "cores", (int)b->num_cores, "memory_nodes",
                   bind_list_text(nodes, sizeof nodes, b->nodes), "threads", (int)b->threads,
                   "shares_cores", (int)b->is_shared, "nics", nics);
}

static json_t *lists_json(const struct topo_sheet *sheet) {
  json_t *ranks = json_array();
  json_t *settings = json_array();
  json_t *findings = json_array();
  for (int32_t r = 0; r < sheet->table.num_ranks * sheet->num_hosts; ++r) {
    json_array_append_new(ranks, rank_json(sheet, r));
  }
  for (int32_t i = 0; i < sheet->num_settings; ++i) {
    const struct environment_setting *s = &sheet->settings[i];
    json_array_append_new(settings,
                          json_pack("{s:s, s:s, s:s, s:b}", "name", s->name, "value", s->value,
                                    "reason", s->reason, "set_by_user", (int)s->is_users));
  }
  for (int32_t i = 0; i < sheet->num_findings; ++i) {
    json_array_append_new(findings, json_string(sheet->findings[i]));
  }
  return json_pack("{s:o, s:o, s:o}", "ranks", ranks, "variables", settings, "findings", findings);
}

bool topo_print_json(const struct topo_sheet *sheet) {
  const struct machine *machine = sheet->machine;
  json_t *root = json_pack(
      "{s:s, s:s, s:i, s:i, s:i, s:i, s:I, s:o, s:o, s:i}", "host", topo_host_name(sheet),
      "processor", machine_processor(machine), "packages", count(sheet, HWLOC_OBJ_PACKAGE),
      "usable_cores", (int)sheet->table.num_usable_cores, "hardware_threads",
      count(sheet, HWLOC_OBJ_PU), "numa_nodes", count(sheet, HWLOC_OBJ_NUMANODE), "memory_bytes",
      (json_int_t)topo_memory_bytes(machine), "gpus", gpus_json(machine), "nics",
      nics_json(machine), "hosts", (int)sheet->num_hosts);
  json_t *lists = lists_json(sheet);
  const bool complete = root != NULL && lists != NULL && json_object_update(root, lists) == 0;
  json_decref(lists);
  if (complete) {
    json_dumpf(root, stdout, JSON_INDENT(2)); /* main looks at stdout's error state */
    putchar('\n');
  }
  json_decref(root);
  return complete;
}
