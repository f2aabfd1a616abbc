/* A subcommand: one file, one entry in main.c's table. */
#ifndef LAUNCH_COMMAND_H
#define LAUNCH_COMMAND_H

#include "launch/session.h"

struct command {
  const char *name;
  const char *summary;
  bool takes_place; /* computes, or shows what does: bound to its cores before MPI starts */
  /* argv[0] is the subcommand's name. Returns an enum cli_code, after session_agree. */
  int (*run)(struct session *session, int argc, char **argv);
};

int plan_command(struct session *session, int argc, char **argv);
int convert_command(struct session *session, int argc, char **argv);
int inspect_command(struct session *session, int argc, char **argv);
int doctor_command(struct session *session, int argc, char **argv);
int topo_command(struct session *session, int argc, char **argv);
int info_command(struct session *session, int argc, char **argv);
int bench_command(struct session *session, int argc, char **argv);

#endif
