/* Where a job's ranks go: this host, hosts that are named, or an allocation of Slurm's. */
#ifndef LAUNCH_RUN_HOSTS_H
#define LAUNCH_RUN_HOSTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum host_source { HOSTS_HERE, HOSTS_LISTED, HOSTS_FILE, HOSTS_SLURM };

struct hosts {
  enum host_source source;
  const char *text;  /* the list, the file's path, or Slurm's node list; NULL here */
  int64_t num_hosts; /* of Slurm: as it says */
  int64_t num_slots; /* ranks that the hosts have room for; 0: they do not say */
};

#define HOSTS_ERROR_BYTES 400

/* list and file: what the command line says, or NULL; not both. Otherwise what the environment says
 * of Slurm. False: the sentence says what is wrong. */
bool hosts_find(const char *list, const char *file, struct hosts *hosts_out,
                char error[HOSTS_ERROR_BYTES]);

#endif
