/* The variables that a topology calls for when ranks are started on it, each with its reason: a
 * pure function. What the user has set already is listed, and stays. */
#ifndef LAUNCH_ENVIRONMENT_H
#define LAUNCH_ENVIRONMENT_H

#include "launch/binding.h"
#include "launch/surroundings.h"

struct environment_request {
  int32_t num_hosts; /* >= 1; all are taken to be like this machine */
  bool use_gpus;
  environment_lookup lookup; /* of the user's own settings */
  void *user;                /* passed to it */
};

struct environment_setting {
  char name[48];
  char value[512];
  char reason[256];
  bool is_users; /* set already: value is the user's */
};

#define ENVIRONMENT_CAPACITY 16

/* Fills settings_out; returns how many there are. */
int32_t environment_list(const struct machine *machine, const struct binding_table *table,
                         const struct environment_request *request,
                         struct environment_setting settings_out[ENVIRONMENT_CAPACITY]);

#endif
