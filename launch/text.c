#include "launch/text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

char *text_bytes(char text[TEXT_SIZE], uint64_t bytes) {
  static const char *const units[] = {"KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  if (bytes < 1024) {
    snprintf(text, TEXT_SIZE, "%u B", (unsigned)bytes);
    return text;
  }
  double value = (double)bytes / 1024.0;
  size_t unit = 0;
  /* 1023.5 would print as 1024. */
  while (value >= 1023.5 && unit + 1 < sizeof units / sizeof units[0]) {
    value /= 1024.0;
    ++unit;
  }
  snprintf(text, TEXT_SIZE, "%.*f %s", value < 99.95 ? 1 : 0, value, units[unit]);
  return text;
}

char *text_time(char text[TEXT_SIZE], double us) {
  if (us < 999.95) {
    snprintf(text, TEXT_SIZE, "%.1f us", us);
  } else if (us < 999.95e3) {
    snprintf(text, TEXT_SIZE, "%.1f ms", us / 1e3);
  } else {
    snprintf(text, TEXT_SIZE, "%.4g s", us / 1e6);
  }
  return text;
}

struct text_style text_style_of_stdout(void) {
  const char *no_color = getenv("NO_COLOR");
  const char *term = getenv("TERM");
  /* Open MPI gives its ranks a terminal whatever mpirun's own output is. */
  const bool is_terminal = isatty(STDOUT_FILENO) == 1 && getenv("OMPI_COMM_WORLD_SIZE") == NULL;
  if (!is_terminal || (no_color != NULL && no_color[0] != '\0') || term == NULL ||
      strcmp(term, "dumb") == 0) {
    return (struct text_style){"", "", ""};
  }
  return (struct text_style){"\033[1m", "\033[2m", "\033[0m"};
}

void text_wrap(FILE *out, int indent, const char *words) {
  int column = indent;
  for (const char *word = words + strspn(words, " "); *word != '\0'; word += strspn(word, " ")) {
    const int length = (int)strcspn(word, " ");
    if (column > indent && column + 1 + length >= TEXT_COLUMNS) {
      fprintf(out, "\n%*s", indent, "");
      column = indent;
    } else if (column > indent) {
      fputc(' ', out);
      ++column;
    }
    fprintf(out, "%.*s", length, word);
    column += length;
    word += length;
  }
  fputc('\n', out);
}
