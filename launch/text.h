/* Text for people: sizes, styles, wrapped lines. */
#ifndef LAUNCH_TEXT_H
#define LAUNCH_TEXT_H

#include <stdint.h>
#include <stdio.h>

/* Lines for people end before this column. */
#define TEXT_COLUMNS 100

#define TEXT_SIZE 24

/* "512 B", "1.5 KiB", "412 MiB"; returns text. */
char *text_bytes(char text[TEXT_SIZE], uint64_t bytes);

/* "12.3 us", "4.5 ms", "6.789 s"; returns text. */
char *text_time(char text[TEXT_SIZE], double us);

/* Escape sequences, all empty unless stdout is a terminal that wants them (NO_COLOR, TERM). */
struct text_style {
  const char *bold, *dim, *end;
};
struct text_style text_style_of_stdout(void);

/* Prints words where column `indent` has been reached, broken before TEXT_COLUMNS and continued at
 * `indent`; ends the line. */
void text_wrap(FILE *out, int indent, const char *words);

#endif
