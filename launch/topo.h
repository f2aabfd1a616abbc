/* What `switchyard topo` shows: worked out by topo.c, printed by topo_print.c, drawn by topo_svg.c.
 */
#ifndef LAUNCH_TOPO_H
#define LAUNCH_TOPO_H

#include "launch/environment.h"
#include "launch/session.h"

#define TOPO_MAX_FINDINGS 8

struct topo_sheet {
  const struct machine *machine;
  struct binding_table table; /* of one host */
  int32_t num_hosts;          /* all like this machine; rank r is on host r / table.num_ranks */
  int32_t num_settings;
  struct environment_setting settings[ENVIRONMENT_CAPACITY];
  int32_t num_findings; /* what the user, a launcher or the system has set */
  char findings[TOPO_MAX_FINDINGS][LAUNCH_ERROR_BYTES];
};

/* The machine's name; empty where the topology does not say it. */
const char *topo_host_name(const struct topo_sheet *sheet);

/* "mlx5_0", or the interface of a NIC without RDMA. */
const char *topo_nic_name(const struct machine_nic *nic);

/* Of the whole machine. */
uint64_t topo_memory_bytes(const struct machine *machine);

void topo_print_text(const struct topo_sheet *sheet);

/* False: out of memory. */
bool topo_print_json(const struct topo_sheet *sheet);

/* A picture of the machine with its ranks. False: the file's error state tells. */
bool topo_draw(const struct topo_sheet *sheet, FILE *out);

#endif
