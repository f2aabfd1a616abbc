/* The picture of a machine: a panel for each NUMA node with its cores, a square each, and below it
 * what hangs on its PCIe lanes. A rank has one colour in all of it. */
#include <stdlib.h>
#include <string.h>

#include "launch/text.h"
#include "launch/topo.h"

/* Pixels. */
enum {
  MARGIN = 28,
  HEAD = 76,   /* of the page */
  GAP = 14,    /* between boxes */
  PAD = 12,    /* inside boxes */
  TITLE = 26,  /* line of a box's title */
  CORE = 22,   /* a core's square */
  PITCH = 26,  /* from one square to the next */
  ROW = 8,     /* squares in a row, at most */
  GROUP = 232, /* width of what hangs on one PCIe port */
  GPU_CARD = 58,
  NIC_CARD = 40,
  CARD_GAP = 8,
  NODE = 2 * GROUP + GAP + 2 * PAD,
};

#define MAX_GROUPS (2 * MACHINE_MAX_DEVICES)

static const char *const colours[] = {"#4269d0", "#e8833a", "#3ca951", "#d6456b", "#0f9bb4",
                                      "#9463d6", "#b08500", "#8a5a44", "#ff6db6", "#5c6b7a"};
enum { NUM_COLOURS = sizeof colours / sizeof colours[0] };

/* Devices under one port of a root complex. */
struct group {
  hwloc_obj_t port;
  hwloc_obj_t node; /* NULL: of no single NUMA node */
  bool is_switch;
  int32_t num_gpus, num_nics;
  int32_t gpus[MACHINE_MAX_DEVICES], nics[MACHINE_MAX_DEVICES];
};

struct picture {
  const struct topo_sheet *sheet;
  FILE *out; /* NULL: measures only */
  int32_t num_groups;
  struct group groups[MAX_GROUPS];
};

/* ---- Marks ---------------------------------------------------------------------------------- */

static const char *colour_of(int32_t rank) { return colours[rank % NUM_COLOURS]; }

static void put_text(const struct picture *p, int x, int y, const char *style, const char *text) {
  if (p->out == NULL) {
    return;
  }
  fprintf(p->out, "<text x=\"%d\" y=\"%d\" class=\"%s\">", x, y, style);
  for (const char *c = text; *c != '\0'; ++c) {
    const char *entity = *c == '&' ? "&amp;" : *c == '<' ? "&lt;" : *c == '>' ? "&gt;" : NULL;
    if (entity != NULL) {
      fputs(entity, p->out);
    } else {
      fputc((unsigned char)*c < ' ' ? ' ' : *c, p->out);
    }
  }
  fputs("</text>\n", p->out);
}

static void put_box(const struct picture *p, int x, int y, int width, int height, int radius,
                    const char *style) {
  if (p->out != NULL) {
    fprintf(p->out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"%d\" class=\"%s\"/>\n",
            x, y, width, height, radius, style);
  }
}

static void put_fill(const struct picture *p, int x, int y, int width, int height, int radius,
                     const char *fill) {
  if (p->out != NULL) {
    fprintf(p->out, "<rect x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\" rx=\"%d\" fill=\"%s\"/>\n",
            x, y, width, height, radius, fill);
  }
}

static void put_line(const struct picture *p, int x, int y, int x2, int y2) {
  if (p->out != NULL) {
    fprintf(p->out, "<path d=\"M%d %dL%d %d\" class=\"wire\"/>\n", x, y, x2, y2);
  }
}

/* ---- Cores ---------------------------------------------------------------------------------- */

/* The rank that has the core alone; -1: none, or several. */
static int32_t owner_of(const struct topo_sheet *sheet, hwloc_obj_t core) {
  for (int32_t r = 0; r < sheet->table.num_ranks; ++r) {
    if (!sheet->table.ranks[r].is_shared &&
        hwloc_bitmap_intersects(sheet->table.ranks[r].cpus, core->cpuset)) {
      return r;
    }
  }
  return -1;
}

static void draw_core(const struct picture *p, hwloc_obj_t core, int x, int y) {
  const int32_t rank = owner_of(p->sheet, core);
  char label[16] = "";
  if (rank < 0) {
    put_box(p, x, y, CORE, CORE, 5, p->sheet->table.ranks[0].is_shared ? "shared" : "idle");
    return;
  }
  snprintf(label, sizeof label, "%d", rank);
  put_fill(p, x, y, CORE, CORE, 5, colour_of(rank));
  put_text(p, x + CORE / 2, y + CORE / 2 + 4, "core", label);
}

static hwloc_obj_type_t core_type(hwloc_topology_t topology) {
  return hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE) > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
}

/* The squares of a cpuset in rows of equal length. Returns the height; *width_out its width. */
static int draw_cores(const struct picture *p, hwloc_const_cpuset_t cpus, int x, int y,
                      int *width_out) {
  hwloc_topology_t topology = p->sheet->machine->topology;
  const hwloc_obj_type_t type = core_type(topology);
  const int count = hwloc_get_nbobjs_inside_cpuset_by_type(topology, cpus, type);
  const int rows = count > 0 ? (count + ROW - 1) / ROW : 1;
  const int columns = count > 0 ? (count + rows - 1) / rows : 1;
  for (int i = 0; i < count; ++i) {
    hwloc_obj_t core = hwloc_get_obj_inside_cpuset_by_type(topology, cpus, type, (unsigned)i);
    draw_core(p, core, x + i % columns * PITCH, y + i / columns * PITCH);
  }
  *width_out = columns * PITCH - (PITCH - CORE);
  return rows * PITCH - (PITCH - CORE);
}

/* Cores that share a cache of level 3 lie in a box. Returns the height. */
static int draw_caches(const struct picture *p, hwloc_obj_t node, int x, int y) {
  hwloc_topology_t topology = p->sheet->machine->topology;
  const int caches =
      hwloc_get_nbobjs_inside_cpuset_by_type(topology, node->cpuset, HWLOC_OBJ_L3CACHE);
  int width = 0;
  int height = 0;
  int at = x;
  int bottom = y;
  for (int i = 0; i < caches; ++i) {
    hwloc_obj_t cache =
        hwloc_get_obj_inside_cpuset_by_type(topology, node->cpuset, HWLOC_OBJ_L3CACHE, (unsigned)i);
    char bytes[TEXT_SIZE];
    char title[64];
    const struct picture measure = {.sheet = p->sheet};
    height = draw_cores(&measure, cache->cpuset, 0, 0, &width);
    if (at > x && at + width + 2 * PAD > x + NODE - 2 * PAD) {
      at = x;
      y = bottom + GAP;
    }
    put_box(p, at, y, width + 2 * PAD, height + TITLE + PAD, 9, "cache");
    snprintf(title, sizeof title, "L3 %s", text_bytes(bytes, cache->attr->cache.size));
    put_text(p, at + PAD, y + 17, "small", title);
    draw_cores(p, cache->cpuset, at + PAD, y + TITLE, &width);
    bottom = y + height + TITLE + PAD;
    at += width + 2 * PAD + GAP;
  }
  return caches > 0 ? bottom : y + draw_cores(p, node->cpuset, x, y, &width);
}

/* ---- Devices -------------------------------------------------------------------------------- */

static hwloc_obj_t root_port(hwloc_obj_t device) {
  while (device->parent->type == HWLOC_OBJ_BRIDGE &&
         device->parent->attr->bridge.upstream_type == HWLOC_OBJ_BRIDGE_PCI) {
    device = device->parent;
  }
  return device;
}

static struct group *group_of(struct picture *p, hwloc_obj_t device) {
  hwloc_topology_t topology = p->sheet->machine->topology;
  hwloc_obj_t port = root_port(device);
  hwloc_obj_t home = hwloc_get_non_io_ancestor_obj(topology, device);
  for (int32_t i = 0; i < p->num_groups; ++i) {
    if (p->groups[i].port == port) {
      return &p->groups[i];
    }
  }
  struct group *group = &p->groups[p->num_groups++];
  *group = (struct group){.port = port};
  if (hwloc_bitmap_weight(home->nodeset) == 1) {
    group->node =
        hwloc_get_numanode_obj_by_os_index(topology, (unsigned)hwloc_bitmap_first(home->nodeset));
  }
  return group;
}

static void find_groups(struct picture *p) {
  const struct machine *machine = p->sheet->machine;
  for (int32_t i = 0; i < machine->num_gpus; ++i) {
    struct group *group = group_of(p, machine->gpus[i].object);
    group->is_switch = group->is_switch || machine->gpus[i].object->parent != group->port;
    group->gpus[group->num_gpus++] = i;
  }
  for (int32_t i = 0; i < machine->num_nics; ++i) {
    struct group *group = group_of(p, machine->nics[i].object);
    group->is_switch =
        group->is_switch || (group->num_gpus > 0 && machine->nics[i].object->parent != group->port);
    group->nics[group->num_nics++] = i;
  }
}

static bool has_nic(const struct binding *binding, int32_t nic) {
  for (int32_t n = 0; n < binding->num_nics; ++n) {
    if (binding->nics[n] == nic) {
      return true;
    }
  }
  return false;
}

static bool uses(const struct binding *binding, bool is_gpu, int32_t device) {
  return is_gpu ? binding->gpu == device : has_nic(binding, device);
}

/* A dot for each rank that uses the device, from the right edge leftwards. */
static void draw_users(const struct picture *p, bool is_gpu, int32_t device, int right, int y) {
  const struct binding_table *table = &p->sheet->table;
  int32_t count = 0;
  for (int32_t r = 0; r < table->num_ranks; ++r) {
    count += uses(&table->ranks[r], is_gpu, device) ? 1 : 0;
  }
  int x = right - (count < 6 ? count : 6) * 21;
  int32_t drawn = 0;
  for (int32_t r = 0; r < table->num_ranks && drawn < 6; ++r) {
    if (!uses(&table->ranks[r], is_gpu, device)) {
      continue;
    }
    char label[16];
    snprintf(label, sizeof label, "%d", r);
    const bool is_last = ++drawn == 6 && count > 6;
    put_fill(p, x, y, 18, 18, 9, is_last ? "#94a3b8" : colour_of(r));
    put_text(p, x + 9, y + 13, "core", is_last ? "+" : label);
    x += 21;
  }
}

/* What stands in brackets is the name that people know; cut where the card ends. */
static void short_name(char text[40], const char *name) {
  const char *open = strchr(name, '[');
  const char *begin = open != NULL ? open + 1 : name;
  const size_t length = open != NULL ? strcspn(begin, "]") : strlen(begin);
  snprintf(text, 40, "%.*s%s", (int)(length < 30 ? length : 28), begin, length < 30 ? "" : "...");
}

static int draw_gpu(const struct picture *p, int32_t index, int x, int y) {
  const struct machine_gpu *gpu = &p->sheet->machine->gpus[index];
  char title[24];
  char name[40];
  int32_t first = -1;
  for (int32_t r = p->sheet->table.num_ranks - 1; r >= 0; --r) {
    first = p->sheet->table.ranks[r].gpu == index ? r : first;
  }
  const int width = GROUP - 2 * PAD;
  put_box(p, x, y, width, GPU_CARD, 8, "card");
  put_fill(p, x, y + 8, 5, GPU_CARD - 16, 2, first >= 0 ? colour_of(first) : "#cbd5e1");
  snprintf(title, sizeof title, "GPU %d", index);
  short_name(name, gpu->name);
  put_text(p, x + 15, y + 20, "label", title);
  put_text(p, x + 15, y + 35, "small", name);
  put_text(p, x + 15, y + 49, "faint", gpu->pci);
  draw_users(p, true, index, x + width - 8, y + 8);
  return GPU_CARD;
}

static int draw_nic(const struct picture *p, int32_t index, int x, int y) {
  const struct machine_nic *nic = &p->sheet->machine->nics[index];
  const int width = GROUP - 2 * PAD;
  char line[96];
  put_box(p, x, y, width, NIC_CARD, 8, nic->is_down ? "card down" : "card");
  put_text(p, x + 15, y + 17, nic->is_down ? "faint" : "label", topo_nic_name(nic));
  snprintf(line, sizeof line, "%s%s%s", nic->hca[0] != '\0' ? nic->interface : nic->pci,
           nic->hca[0] != '\0' && nic->interface[0] != '\0' ? "  " : "",
           nic->is_down          ? "down"
           : nic->hca[0] != '\0' ? "RDMA"
                                 : "");
  put_text(p, x + 15, y + 31, "faint", line);
  draw_users(p, false, index, x + width - 8, y + 11);
  return NIC_CARD;
}

static int draw_group(const struct picture *p, const struct group *group, int x, int y) {
  int bottom = y + TITLE;
  for (int32_t i = 0; i < group->num_gpus; ++i) {
    bottom += GPU_CARD + CARD_GAP;
  }
  for (int32_t i = 0; i < group->num_nics; ++i) {
    bottom += NIC_CARD + CARD_GAP;
  }
  bottom += PAD - CARD_GAP;
  put_box(p, x, y, GROUP, bottom - y, 10, "group");
  put_text(p, x + PAD, y + 17, "small", group->is_switch ? "PCIe switch" : "PCIe");
  int at = y + TITLE;
  for (int32_t i = 0; i < group->num_gpus; ++i) {
    at += draw_gpu(p, group->gpus[i], x + PAD, at) + CARD_GAP;
  }
  for (int32_t i = 0; i < group->num_nics; ++i) {
    at += draw_nic(p, group->nics[i], x + PAD, at) + CARD_GAP;
  }
  return bottom;
}

/* The groups of a node (NULL: of none) in two columns, each below the shorter one. Returns the
 * bottom. */
static int draw_groups(const struct picture *p, hwloc_obj_t node, int x, int y) {
  int columns[2] = {y, y};
  for (int32_t i = 0; i < p->num_groups; ++i) {
    if (p->groups[i].node == node) {
      const int c = columns[1] < columns[0] ? 1 : 0;
      const int left = x + c * (GROUP + GAP);
      if (columns[c] == y) {
        put_line(p, left + GROUP / 2, y - GAP, left + GROUP / 2, y);
      }
      columns[c] = draw_group(p, &p->groups[i], left, columns[c]) + GAP;
    }
  }
  const int bottom = columns[0] > columns[1] ? columns[0] : columns[1];
  return bottom > y ? bottom - GAP : y - GAP;
}

/* ---- The page ------------------------------------------------------------------------------- */

static struct picture measuring(const struct picture *p) {
  struct picture measure = *p;
  measure.out = NULL;
  return measure;
}

/* Returns the bottom of the panel. */
static int draw_node(const struct picture *p, hwloc_obj_t node, int x, int y) {
  char title[96];
  char bytes[TEXT_SIZE];
  if (p->out != NULL) {
    const struct picture measure = measuring(p);
    put_box(p, x, y, NODE, draw_node(&measure, node, x, y) - y, 14, "node");
  }
  snprintf(title, sizeof title, "NUMA node %u", node->os_index);
  put_text(p, x + PAD, y + 24, "title", title);
  snprintf(title, sizeof title, "%s", text_bytes(bytes, node->attr->numanode.local_memory));
  put_text(p, x + NODE - PAD, y + 24, "right", title);
  const int caches = draw_caches(p, node, x + PAD, y + 38);
  return draw_groups(p, node, x + PAD, caches + 2 * GAP) + PAD;
}

static void put_head(const struct picture *p, int width, int height) {
  const struct topo_sheet *sheet = p->sheet;
  char line[300];
  char bytes[TEXT_SIZE];
  if (p->out == NULL) {
    return;
  }
  fprintf(p->out,
          "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" "
          "viewBox=\"0 0 %d %d\" font-family=\"Inter, 'Helvetica Neue', Arial, sans-serif\">\n"
          "<style>"
          ".page{fill:#fff}.node{fill:#f6f8fb;stroke:#d5dde8}.cache{fill:#fff;stroke:#e3e9f1}"
          ".group{fill:#eaf0f7;stroke:#d5dde8}.card{fill:#fff;stroke:#d5dde8}"
          ".down{stroke-dasharray:4 3}.idle{fill:#fff;stroke:#cbd5e1}"
          ".shared{fill:#dbe3ee;stroke:#94a3b8}.wire{stroke:#b6c3d3;stroke-width:2;fill:none}"
          "text{fill:#1e293b;font-size:12px}.head{font-size:20px;font-weight:600}"
          ".title{font-size:14px;font-weight:600}.label{font-size:12.5px;font-weight:600}"
          ".small{font-size:11px;fill:#475569}.faint{font-size:10.5px;fill:#8291a5}"
          ".right{font-size:12px;fill:#475569;text-anchor:end}.sub{font-size:13px;fill:#475569}"
          ".core{font-size:10px;font-weight:600;fill:#fff;text-anchor:middle}"
          "</style>\n",
          width, height, width, height);
  put_box(p, 0, 0, width, height, 16, "page");
  const char *name = topo_host_name(sheet);
  const int32_t ranks = sheet->table.num_ranks * sheet->num_hosts;
  if (sheet->num_hosts > 1) {
    snprintf(line, sizeof line, "%d ranks on %d machines like %s", ranks, sheet->num_hosts,
             name[0] != '\0' ? name : "this one");
  } else {
    snprintf(line, sizeof line, "%d rank%s on %s", ranks, ranks == 1 ? "" : "s",
             name[0] != '\0' ? name : "this machine");
  }
  put_text(p, MARGIN, 40, "head", line);
  snprintf(line, sizeof line, "%.80s%s%d usable cores  \xc2\xb7  %s%s%.100s",
           machine_processor(sheet->machine),
           machine_processor(sheet->machine)[0] != '\0' ? "  \xc2\xb7  " : "",
           sheet->table.num_usable_cores, text_bytes(bytes, topo_memory_bytes(sheet->machine)),
           sheet->table.ranks[0].is_shared ? "  \xc2\xb7  " : "",
           sheet->table.ranks[0].is_shared ? sheet->table.note : "");
  put_text(p, MARGIN, 62, "sub", line);
}

/* Draws all; returns the bottom. Panels stand two in a row. */
static int draw_page(const struct picture *p) {
  hwloc_topology_t topology = p->sheet->machine->topology;
  hwloc_obj_t node = NULL;
  int y = HEAD;
  int bottom = y;
  int column = 0;
  while ((node = hwloc_get_next_obj_by_type(topology, HWLOC_OBJ_NUMANODE, node)) != NULL) {
    if (column == 2) {
      column = 0;
      y = bottom + GAP;
    }
    const int end = draw_node(p, node, MARGIN + column * (NODE + GAP), y);
    bottom = end > bottom ? end : bottom;
    ++column;
  }
  const int rest = draw_groups(p, NULL, MARGIN + PAD, bottom + 2 * GAP);
  bottom = rest > bottom + GAP ? rest : bottom;
  put_text(p, MARGIN, bottom + 28, "small",
           "Each number and colour is a rank: its cores, its GPU, the adapters nearest to it.");
  return bottom + 28;
}

bool topo_draw(const struct topo_sheet *sheet, FILE *out) {
  struct picture *p = calloc(1, sizeof *p);
  if (p == NULL) {
    return false;
  }
  p->sheet = sheet;
  find_groups(p);
  const int nodes = hwloc_get_nbobjs_by_type(sheet->machine->topology, HWLOC_OBJ_NUMANODE);
  const int height = draw_page(p) + 20;
  p->out = out;
  put_head(p, 2 * MARGIN + NODE + (nodes > 1 ? NODE + GAP : 0), height);
  draw_page(p);
  fputs("</svg>\n", out);
  free(p);
  return ferror(out) == 0;
}
