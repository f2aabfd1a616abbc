/* switchyard: the command line. */
#include <string.h>

#include "launch/command.h"
#include "launch/options.h"

#define PROGRAM "switchyard"

static const struct command commands[] = {
    {"plan", "work out every buffer, wave and chunk of a shape at any world size", false,
     plan_command},
    {"doctor", "see whether a job would run on these ranks, and measure their links", true,
     doctor_command},
    {"topo", "show which cores, GPU and adapters each rank of a host gets, also as a picture",
     false, topo_command},
    {"info", "show versions, backends, this host, and the ranks under mpirun", true, info_command},
    {"inspect", "show what a checkpoint holds, and what of it would not load", false,
     inspect_command},
    {"convert", "write a checkpoint whose experts are FP4 already; parallel under mpirun", true,
     convert_command},
    {"bench", "measure the CPU backend against the limits of this machine", true, bench_command},
};
enum { NUM_COMMANDS = sizeof commands / sizeof commands[0] };

static void print_help(void) {
  printf("Usage: " PROGRAM " COMMAND [OPTION]...\n\n"
         "Expert-parallel inference of mixture-of-experts layers.\n\n"
         "Commands:\n");
  for (int i = 0; i < NUM_COMMANDS; ++i) {
    printf("  %-8s %s\n", commands[i].name, commands[i].summary);
  }
  printf("\nOptions:\n"
         "  --help     print this; '" PROGRAM " COMMAND --help' explains a command\n"
         "  --version  print the version\n"
         "\nUnder mpirun rank 0 prints for all; an error says which rank it comes from.\n"
         "\nExamples:\n"
         "  " PROGRAM " plan --model qwen3-30b --world 1..8\n"
         "  mpirun -n 4 " PROGRAM " info\n"
         "  " PROGRAM " bench experts --model qwen3-30b\n");
  session_print_exit_codes(stdout);
}

static const struct command *find(const char *name) {
  for (int i = 0; i < NUM_COMMANDS; ++i) {
    if (strcmp(commands[i].name, name) == 0) {
      return &commands[i];
    }
  }
  return NULL;
}

static int fail_unknown(struct session *session, const char *found) {
  const char *names[NUM_COMMANDS + 2] = {"--help", "--version"};
  char list[200] = "";
  for (int i = 0; i < NUM_COMMANDS; ++i) {
    names[i + 2] = commands[i].name;
    strncat(list, i == 0 ? "" : ", ", sizeof list - strlen(list) - 1);
    strncat(list, commands[i].name, sizeof list - strlen(list) - 1);
  }
  const int near = option_nearest(found, names, NUM_COMMANDS + 2);
  return session_fail(session, CLI_USAGE, "'%.100s' is not %s of " PROGRAM "; allowed: %s%s%s%s",
                      found, found[0] == '-' ? "an option" : "a command",
                      found[0] == '-' ? "--help, --version, or a command" : list,
                      near >= 0 ? "; did you mean " : "", near >= 0 ? names[near] : "",
                      near >= 0 ? "?" : "");
}

/* What the program itself understands: everything before a command. */
static int run_program(struct session *session, const char *first) {
  if (first == NULL) {
    return session_fail(session, CLI_USAGE, "a command is missing, such as '%s'", commands[0].name);
  }
  if (strcmp(first, "--help") != 0 && strcmp(first, "--version") != 0) {
    return fail_unknown(session, first);
  }
  if (session->rank == 0) {
    if (strcmp(first, "--help") == 0) {
      print_help();
    } else {
      printf(PROGRAM " %s\n", sy_version());
    }
  }
  return CLI_DONE;
}

static int run(struct session *session, const struct command *command, int argc, char **argv) {
  if (command == NULL) {
    return session_agree(session, run_program(session, argc > 1 ? argv[1] : NULL));
  }
  snprintf(session->command, sizeof session->command, PROGRAM " %s", command->name);
  return command->run(session, argc - 1, argv + 1);
}

int main(int argc, char **argv) {
  struct session session;
  const struct command *command = argc > 1 ? find(argv[1]) : NULL;
  int code = session_open(&session, PROGRAM, command != NULL && command->takes_place);
  if (code == CLI_OK) {
    code = run(&session, command, argc, argv);
  } else if (code == CLI_USAGE) {
    code = session_agree(&session, code);
  }
  if ((fflush(stdout) != 0 || ferror(stdout) != 0) && code <= CLI_OK) {
    code = session_fail(&session, CLI_FAILED, "standard output cannot be written");
  }
  return session_close(&session, code);
}
