#include "launch/options.h"

#include <assert.h>
#include <getopt.h>
#include <inttypes.h>
#include <string.h>

#include "launch/text.h"

#define ALLOWED_BYTES 320
#define FIRST_VALUE 256 /* of getopt_long: beyond every character */
#define HELP_INDENT 26

const char *option_choice_name(const struct option_choice *choices, int value) {
  for (; choices->name != NULL; ++choices) {
    if (choices->value == value) {
      return choices->name;
    }
  }
  return "?";
}

char *option_list_choices(const struct option_choice *choices, char *text, size_t bytes) {
  size_t used = 0;
  text[0] = '\0';
  for (const struct option_choice *c = choices; c->name != NULL && used < bytes; ++c) {
    used += (size_t)snprintf(text + used, bytes - used, "%s%s", c == choices ? "" : ", ", c->name);
  }
  return text;
}

/* Edit distance, bounded by 3; long names differ from everything. */
static int distance(const char *a, const char *b) {
  enum { LIMIT = 31, FAR = 3 };
  const size_t a_length = strlen(a);
  const size_t b_length = strlen(b);
  if (a_length > LIMIT || b_length > LIMIT) {
    return FAR;
  }
  int row[LIMIT + 1];
  for (size_t j = 0; j <= b_length; ++j) {
    row[j] = (int)j;
  }
  for (size_t i = 1; i <= a_length; ++i) {
    int diagonal = row[0];
    row[0] = (int)i;
    for (size_t j = 1; j <= b_length; ++j) {
      const int replaced = diagonal + (a[i - 1] != b[j - 1]);
      const int shifted = 1 + (row[j] < row[j - 1] ? row[j] : row[j - 1]);
      diagonal = row[j];
      row[j] = replaced < shifted ? replaced : shifted;
    }
  }
  return row[b_length] < FAR ? row[b_length] : FAR;
}

int option_nearest(const char *found, const char *const *names, size_t count) {
  int best = -1;
  int best_distance = 3;
  for (size_t i = 0; i < count; ++i) {
    const bool is_start = found[0] != '\0' && strncmp(names[i], found, strlen(found)) == 0;
    const int d = is_start ? 1 : distance(found, names[i]);
    if (d < best_distance) {
      best_distance = d;
      best = (int)i;
    }
  }
  return best;
}

static bool takes_value(const struct option_spec *spec) { return spec->kind != OPTION_SWITCH; }

/* The allowed range, in words; empty for a switch. */
static void allowed(const struct option_spec *spec, char text[ALLOWED_BYTES]) {
  text[0] = '\0';
  switch (spec->kind) {
  case OPTION_HEADING:
  case OPTION_SWITCH:
    break;
  case OPTION_INTEGER:
    if (spec->multiple != 0) {
      snprintf(text, ALLOWED_BYTES, "multiples of %" PRId64 " in %" PRId64 "..%" PRId64,
               spec->multiple, spec->min, spec->max);
    } else {
      snprintf(text, ALLOWED_BYTES, "%" PRId64 "..%" PRId64, spec->min, spec->max);
    }
    break;
  case OPTION_BYTES:
    snprintf(text, ALLOWED_BYTES, "%" PRId64 "..%" PRId64 "GiB, as bytes or with KiB, MiB or GiB",
             spec->min, spec->max >> 30);
    break;
  case OPTION_INTEGERS:
    snprintf(text, ALLOWED_BYTES,
             "N, a range A..B or a list N,N,... of at most %d values in %" PRId64 "..%" PRId64,
             VALUE_LIST_CAPACITY, spec->min, spec->max);
    break;
  case OPTION_NUMBER:
    snprintf(text, ALLOWED_BYTES, "%g..%g", spec->low, spec->high);
    break;
  case OPTION_CHOICE:
    option_list_choices(spec->choices, text, ALLOWED_BYTES);
    break;
  case OPTION_TEXT:
    break;
  }
}

/* The default as it would be typed; empty when there is none. */
static void default_value(const struct option_spec *spec, const void *values, char text[64]) {
  const void *value = (const char *)values + spec->offset;
  const char *const units[] = {"", "KiB", "MiB", "GiB"};
  int64_t integer = 0;
  size_t unit = 0;
  text[0] = '\0';
  switch (spec->kind) {
  case OPTION_HEADING:
  case OPTION_SWITCH:
    break;
  case OPTION_BYTES:
  case OPTION_INTEGER:
    integer = *(const int64_t *)value;
    if (integer < spec->min || integer > spec->max) {
      break;
    }
    for (; spec->kind == OPTION_BYTES && unit < 3 && integer % 1024 == 0; ++unit) {
      integer /= 1024;
    }
    snprintf(text, 64, "%" PRId64 "%s", integer, units[unit]);
    break;
  case OPTION_INTEGERS:
    if (((const struct value_list *)value)->count == 1) {
      snprintf(text, 64, "%" PRId64, ((const struct value_list *)value)->values[0]);
    }
    break;
  case OPTION_NUMBER:
    snprintf(text, 64, "%g", *(const double *)value);
    break;
  case OPTION_CHOICE:
    if (*(const int *)value >= 0) {
      snprintf(text, 64, "%s", option_choice_name(spec->choices, *(const int *)value));
    }
    break;
  case OPTION_TEXT:
    if (*(const char *const *)value != NULL) {
      snprintf(text, 64, "%s", *(const char *const *)value);
    }
    break;
  }
}

static void print_option(FILE *out, const struct option_spec *spec, const void *values) {
  char range[ALLOWED_BYTES];
  char standard[64];
  char words[ALLOWED_BYTES + 400];
  char name[64];
  allowed(spec, range);
  default_value(spec, values, standard);
  const char letter[] = {'-', spec->letter, ',', ' ', '\0'};
  snprintf(name, sizeof name, "  %s--%s %s", spec->letter != '\0' ? letter : "", spec->name,
           takes_value(spec) ? spec->value : "");
  const bool has_default = standard[0] != '\0';
  const bool has_range = range[0] != '\0';
  snprintf(words, sizeof words, "%s%s%s%s%s%s", spec->help, has_range ? " [" : "", range,
           has_default ? "; default " : "", standard, has_range ? "]" : "");
  fprintf(out, "%-*s", HELP_INDENT, name);
  if (strlen(name) >= HELP_INDENT) {
    fprintf(out, "\n%*s", HELP_INDENT, "");
  }
  text_wrap(out, HELP_INDENT, words);
}

static void print_help(FILE *out, const struct session *session, const struct option_page *page,
                       const void *values) {
  const struct option_spec help = {.kind = OPTION_SWITCH, .name = "help", .help = "print this"};
  fprintf(out, "Usage: %s [OPTION]...%s%s\n\n", session->command, page->operands != NULL ? " " : "",
          page->operands != NULL ? page->operands : "");
  text_wrap(out, 0, page->about);
  for (size_t i = 0; i < page->num_specs; ++i) {
    if (page->specs[i].kind == OPTION_HEADING) {
      fprintf(out, "\n%s:\n", page->specs[i].name);
    } else {
      print_option(out, &page->specs[i], values);
    }
  }
  print_option(out, &help, values);
  fprintf(out, "\nExamples:\n%s", page->examples);
  if (page->exits != NULL) {
    fprintf(out, "\nExit codes:\n%s", page->exits);
  } else {
    session_print_exit_codes(out);
  }
}

static int fail_value(struct session *session, const struct option_spec *spec, const char *text,
                      const char *problem) {
  char range[ALLOWED_BYTES];
  allowed(spec, range);
  return session_fail(session, CLI_USAGE, "--%s '%.100s' %s; allowed: %s", spec->name, text,
                      problem, range);
}

static int store_integer(struct session *session, const struct option_spec *spec, const char *text,
                         void *target) {
  const bool is_bytes = spec->kind == OPTION_BYTES;
  int64_t value = 0;
  const enum value_result result =
      is_bytes ? value_bytes(text, &value) : value_integer(text, &value);
  if (result == VALUE_MALFORMED) {
    return fail_value(session, spec, text, is_bytes ? "is not a size" : "is not an integer");
  }
  if (result == VALUE_OUTSIDE || value < spec->min || value > spec->max) {
    return fail_value(session, spec, text, "is out of range");
  }
  if (spec->multiple != 0 && value % spec->multiple != 0) {
    char problem[64];
    snprintf(problem, sizeof problem, "is not a multiple of %" PRId64, spec->multiple);
    return fail_value(session, spec, text, problem);
  }
  *(int64_t *)target = value;
  return CLI_OK;
}

static int store_number(struct session *session, const struct option_spec *spec, const char *text,
                        void *target) {
  double value = 0.0;
  const enum value_result result = value_number(text, &value);
  if (result == VALUE_MALFORMED) {
    return fail_value(session, spec, text, "is not a number");
  }
  if (result == VALUE_OUTSIDE || value < spec->low || value > spec->high) {
    return fail_value(session, spec, text, "is out of range");
  }
  *(double *)target = value;
  return CLI_OK;
}

static int store_integers(struct session *session, const struct option_spec *spec, const char *text,
                          void *target) {
  const enum value_result result = value_list_parse(text, spec->min, spec->max, target);
  return result == VALUE_OK ? CLI_OK
                            : fail_value(session, spec, text,
                                         result == VALUE_MALFORMED ? "is not a list of integers"
                                                                   : "is out of range");
}

static int store_choice(struct session *session, const struct option_spec *spec, const char *text,
                        void *target) {
  for (const struct option_choice *choice = spec->choices; choice->name != NULL; ++choice) {
    if (strcmp(choice->name, text) == 0) {
      *(int *)target = choice->value;
      return CLI_OK;
    }
  }
  return fail_value(session, spec, text, "is not known");
}

static int store(struct session *session, const struct option_spec *spec, const char *text,
                 void *values) {
  void *target = (char *)values + spec->offset;
  switch (spec->kind) {
  case OPTION_HEADING:
    break;
  case OPTION_SWITCH:
    *(bool *)target = true;
    return CLI_OK;
  case OPTION_INTEGER:
  case OPTION_BYTES:
    return store_integer(session, spec, text, target);
  case OPTION_INTEGERS:
    return store_integers(session, spec, text, target);
  case OPTION_NUMBER:
    return store_number(session, spec, text, target);
  case OPTION_CHOICE:
    return store_choice(session, spec, text, target);
  case OPTION_TEXT:
    *(const char **)target = text;
    return text[0] != '\0' ? CLI_OK
                           : session_fail(session, CLI_USAGE, "--%s '' is empty", spec->name);
  }
  return CLI_OK;
}

static int fail_unknown(struct session *session, const struct option *known, size_t count,
                        const char *written) {
  const char *names[OPTIONS_CAPACITY];
  char name[64];
  for (size_t i = 0; i < count; ++i) {
    names[i] = known[i].name;
  }
  snprintf(name, sizeof name, "%.*s", (int)strcspn(written, "="), written);
  const int near = option_nearest(name + strspn(name, "-"), names, count);
  return session_fail(session, CLI_USAGE, "%s is not an option of %s%s%s%s", name, session->command,
                      near >= 0 ? "; did you mean --" : "", near >= 0 ? names[near] : "",
                      near >= 0 ? "?" : "");
}

/* Fills `known` from the page; the last one is --help. Returns how many. */
static size_t list_known(const struct option_page *page, struct option *known) {
  size_t count = 0;
  for (size_t i = 0; i < page->num_specs; ++i) {
    if (page->specs[i].kind != OPTION_HEADING) {
      known[count++] = (struct option){
          .name = page->specs[i].name,
          .has_arg = takes_value(&page->specs[i]) ? required_argument : no_argument,
          .val = FIRST_VALUE + (int)i,
      };
    }
  }
  known[count++] = (struct option){.name = "help", .val = FIRST_VALUE + (int)page->num_specs};
  return count;
}

/* getopt's short names: argv is not reordered ("+"), a missing value is told apart (":"). */
static void list_letters(const struct option_page *page, char letters[2 * OPTIONS_CAPACITY + 3]) {
  size_t used = 0;
  letters[used++] = '+';
  letters[used++] = ':';
  for (size_t i = 0; i < page->num_specs; ++i) {
    if (page->specs[i].letter != '\0') {
      letters[used++] = page->specs[i].letter;
      if (takes_value(&page->specs[i])) {
        letters[used++] = ':';
      }
    }
  }
  letters[used] = '\0';
}

/* What getopt found as if it had been a long name; '?' and ':' stay. */
static int long_of(const struct option_page *page, int found) {
  for (size_t i = 0; i < page->num_specs; ++i) {
    if (found != '\0' && page->specs[i].letter == found) {
      return FIRST_VALUE + (int)i;
    }
  }
  return found;
}

static int fail_spelling(struct session *session, const struct option_page *page, int found,
                         const struct option *known, size_t count, const char *written) {
  const int option = long_of(page, optopt);
  if (option < FIRST_VALUE) {
    return fail_unknown(session, known, count, written);
  }
  const size_t index = (size_t)(option - FIRST_VALUE);
  char range[ALLOWED_BYTES] = "";
  if (found == ':') {
    allowed(&page->specs[index], range);
    return session_fail(session, CLI_USAGE, "--%s needs a value%s%s", page->specs[index].name,
                        range[0] != '\0' ? "; allowed: " : "", range);
  }
  return session_fail(session, CLI_USAGE, "--%s takes no value, but '%.100s' was given",
                      index < page->num_specs ? page->specs[index].name : "help", written);
}

int options_parse(struct session *session, const struct option_page *page, int argc, char **argv,
                  void *values) {
  struct option known[OPTIONS_CAPACITY + 1] = {{.name = NULL}};
  assert(page->num_specs < OPTIONS_CAPACITY);
  const size_t count = list_known(page, known);
  char letters[2 * OPTIONS_CAPACITY + 3];
  list_letters(page, letters);
  opterr = 0;
  optind = 1;
  for (;;) {
    const int at = optind; /* argv is not reordered, so this holds the option's name */
    int index = -1;
    const int found = long_of(page, getopt_long(argc, argv, letters, known, &index));
    if (found == -1) {
      break;
    }
    if (found < FIRST_VALUE) {
      return fail_spelling(session, page, found, known, count, argv[at]);
    }
    if (index >= 0 && strcspn(argv[at] + 2, "=") != strlen(known[index].name)) {
      return fail_unknown(session, known, count, argv[at]);
    }
    if (found == FIRST_VALUE + (int)page->num_specs) {
      if (session->rank == 0) {
        print_help(stdout, session, page, values);
      }
      return CLI_DONE;
    }
    const int code = store(session, &page->specs[found - FIRST_VALUE], optarg, values);
    if (code != CLI_OK) {
      return code;
    }
  }
  if (optind < argc && page->operands == NULL) {
    return session_fail(session, CLI_USAGE, "unexpected argument '%.100s': %s takes options only",
                        argv[optind], session->command);
  }
  return CLI_OK;
}
