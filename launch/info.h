/* What `switchyard info` shows: gathered by info.c, printed by info_print.c. */
#ifndef LAUNCH_INFO_H
#define LAUNCH_INFO_H

#include "launch/bind.h"
#include "launch/gpus.h"
#include "launch/host.h"

/* One rank's part. Sent between ranks as it is: plain values only. */
struct rank_facts {
  struct host_facts host;
  char backend[512];              /* sy_backend() there */
  char place[LAUNCH_ERROR_BYTES]; /* what became of its binding, and why */
};

struct info_sheet {
  int world;
  const struct rank_facts *ranks; /* [world] */
  int num_hosts;
  const char *mpi_library; /* NULL: built without MPI */
  const struct gpus *gpus; /* of rank 0's host */
};

void info_print_text(const struct info_sheet *sheet);

/* False: out of memory, or a text is not UTF-8. */
bool info_print_json(const struct info_sheet *sheet);

#endif
