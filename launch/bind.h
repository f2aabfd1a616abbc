/* This process takes its place: cores and memory as the table of bindings says, before it allocates
 * anything and before MPI starts. What the user, the launcher or the system has set stays as it is;
 * the report says what was found. */
#ifndef LAUNCH_BIND_H
#define LAUNCH_BIND_H

#include "launch/binding.h"
#include "launch/surroundings.h"

struct bind_report {
  bool is_bound;      /* by us */
  int32_t local_rank; /* among the ranks of this host, as the launcher says */
  int32_t local_size;
  int32_t threads; /* that suit the cores; 0: not decided here */
  int32_t device;  /* CUDA's number of this rank's GPU; -1: none */
  char cpus[256];  /* hardware threads that the process may use now: "0-7", cut with "..." */
  char sentence[LAUNCH_ERROR_BYTES]; /* what was done or found */
};

/* near_gpus: where every rank of this host has a GPU for itself, it gets cores near that; CUDA is told
 * to number GPUs as the topology does, unless CUDA_DEVICE_ORDER is set. False, with the sentence in
 * report_out: SWITCHYARD_BIND has an unknown value. Whatever else hinders a binding is reported, and
 * is no error. Call it before other threads exist. */
bool bind_self(bool near_gpus, struct bind_report *report_out);

/* "0-3,8", cut with "..." to bytes; returns text. */
char *bind_list_text(char *text, size_t bytes, hwloc_const_bitmap_t set);

#endif
