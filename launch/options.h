/* Long options from one table, which parses them, names every mistake with the allowed range, and
 * prints them as help. Names are written in full: no abbreviations, so that a new option never
 * changes what an old command line means. --help is understood everywhere. */
#ifndef LAUNCH_OPTIONS_H
#define LAUNCH_OPTIONS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "launch/session.h"
#include "launch/values.h"

enum option_kind {
  OPTION_HEADING,  /* of the options that follow, in help */
  OPTION_SWITCH,   /* bool; takes no value */
  OPTION_INTEGER,  /* int64_t in [min, max], a multiple of `multiple` unless that is 0 */
  OPTION_BYTES,    /* int64_t in [min, max]; may end in KiB, MiB or GiB */
  OPTION_INTEGERS, /* struct value_list, each in [min, max] */
  OPTION_NUMBER,   /* double in [low, high] */
  OPTION_CHOICE,   /* int: one of choices */
  OPTION_TEXT,     /* const char *: not empty; NULL says that there is no default */
};

struct option_choice {
  const char *name; /* NULL ends the list */
  int value;
};

/* What an option sets lies at `offset` of the command's own struct, and holds the default before;
 * a default outside the range says that there is none. */
struct option_spec {
  enum option_kind kind;
  char letter;       /* a short name too: -n; 0: none */
  const char *name;  /* without dashes; of a heading: its text */
  const char *value; /* what help calls the value */
  const char *help;
  size_t offset;
  int64_t min, max, multiple;
  double low, high;
  const struct option_choice *choices;
};

struct option_page {
  const char *about;    /* what the command does */
  const char *examples; /* whole lines */
  const char *operands; /* what help calls the words behind the options; NULL: none are allowed */
  const char *exits;    /* whole lines about exit codes; NULL: those of enum cli_code */
  const struct option_spec *specs;
  size_t num_specs;
};

#define OPTIONS_CAPACITY 40

/* Parses argv[1 ..] into values; num_specs < OPTIONS_CAPACITY. CLI_OK; CLI_DONE when --help was
 * given and printed; CLI_USAGE. Options end before the first word that is none; operands begin at
 * argv[optind]. */
int options_parse(struct session *session, const struct option_page *page, int argc, char **argv,
                  void *values);

/* The name that belongs to a value; "?" if none does. */
const char *option_choice_name(const struct option_choice *choices, int value);

/* Which of count names was probably meant; -1: none is near. */
int option_nearest(const char *found, const char *const *names, size_t count);

/* "plan, info": what a choice may be. Returns text. */
char *option_list_choices(const struct option_choice *choices, char *text, size_t bytes);

#endif
