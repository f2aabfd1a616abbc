/* The README's lines for ranks that nobody but a server starts, in a program that knows only the
 * installed headers and library. A world of one needs no other rank; where there is no GPU the
 * sentence says so. */
#include <stdio.h>
#include <stdlib.h>

#include <switchyard_nccl.h>

/* A number that the server has put into this process's environment; -1: it is not there. */
static int32_t number_of(const char *name) {
  const char *text = getenv(name);
  return text == NULL ? -1 : (int32_t)strtol(text, NULL, 10);
}

static sy_status join(sy_group **group_out) {
  sy_group_desc desc = SY_GROUP_DESC_INIT; /* device -1: a host's ranks take its GPUs in turn */
  desc.load_timeout_ms = 60000;            /* by then all have come, or who has not is named */
  return sy_group_create_nccl_tcp(getenv("EXPERTS_ADDRESS"), number_of("EXPERTS_RANK"),
                                  number_of("EXPERTS_WORLD"), &desc, group_out);
}

int main(void) {
  sy_group *group = NULL;
  const sy_status unnamed = join(&group);
  if (unnamed != SY_ERR_ARGUMENT) {
    fprintf(stderr, "without an environment: %s\n", sy_status_text(unnamed));
    return 1;
  }
  setenv("EXPERTS_ADDRESS", "127.0.0.1:0", 1);
  setenv("EXPERTS_RANK", "0", 1);
  setenv("EXPERTS_WORLD", "1", 1);
  const sy_status status = join(&group);
  if (status != SY_OK) {
    fprintf(stderr, "%s\n", sy_last_error(NULL));
  }
  sy_group_destroy(group);
  return status == SY_OK || status == SY_ERR_DEVICE ? 0 : 1;
}
