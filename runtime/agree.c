#include "runtime/agree.h"

#include <stdio.h>
#include <string.h>

#include "runtime/memory.h"
#include "runtime/status.h"

/* Appends, as far as it fits. */
static void add_text(char *text, size_t bytes, const char *more) {
  const size_t used = strlen(text);
  snprintf(text + used, bytes - used, "%s", more);
}

static bool is_missing(const struct sy_agreement *a, int32_t peer) {
  return a->side != NULL ? a->side->ops->missing(a->side, peer)
                         : a->transport->ops->missing(a->transport, peer);
}

sy_status sy_agree_gather(const struct sy_agreement *a, const void *mine, size_t bytes, void *all) {
  const sy_status status =
      a->side != NULL
          ? a->side->ops->allgather(a->side, mine, bytes, all, a->deadline_ns)
          : a->transport->ops->allgather(a->transport, mine, bytes, all, a->deadline_ns);
  if (status != SY_ERR_PEER) {
    return status;
  }
  char ranks[256] = "";
  for (int32_t peer = 0; peer < a->world; ++peer) {
    if (is_missing(a, peer)) {
      char name[16];
      snprintf(name, sizeof name, "%s%d", ranks[0] != '\0' ? ", " : "", (int)peer);
      add_text(ranks, sizeof ranks, name);
    }
  }
  return ranks[0] != '\0'
             ? sy_fail(status, "%s: rank %d heard nothing in time from rank %s", a->call,
                       (int)a->rank, ranks)
             : sy_fail(status, "%s: rank %d did not hear from all in time: %s", a->call,
                       (int)a->rank, a->transport->ops->error_text(a->transport));
}

struct version_note {
  char version[32];
};

sy_status sy_agree_on_version(const struct sy_agreement *a) {
  struct version_note mine = {""};
  struct version_note *all = sy_alloc((size_t)a->world * sizeof *all);
  if (all == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory to greet %d ranks", a->call, (int)a->world);
  }
  snprintf(mine.version, sizeof mine.version, "%s", sy_version());
  sy_status status = sy_agree_gather(a, &mine, sizeof mine, all);
  char others[256] = "";
  for (int32_t peer = 0; peer < a->world && status == SY_OK; ++peer) {
    struct version_note *theirs = &all[peer];
    theirs->version[sizeof theirs->version - 1] = '\0';
    if (strcmp(theirs->version, all[0].version) != 0) {
      char other[64];
      snprintf(other, sizeof other, ", rank %d has %s", (int)peer, theirs->version);
      add_text(others, sizeof others, other);
    }
  }
  if (others[0] != '\0') {
    status = sy_fail(SY_ERR_MISMATCH, "versions of Switchyard differ: rank 0 has %s%s",
                     all[0].version, others);
  }
  sy_free(all);
  return status;
}

sy_status sy_agree_on_status(const struct sy_agreement *a, sy_status own) {
  const int32_t mine = (int32_t)own;
  int32_t *all = sy_alloc((size_t)a->world * sizeof *all);
  if (all == NULL) {
    return sy_fail(SY_ERR_MEMORY, "%s: no memory to hear from %d ranks", a->call, (int)a->world);
  }
  char sentence[SY_ERROR_TEXT_BYTES];
  snprintf(sentence, sizeof sentence, "%s", sy_last_error(NULL)); /* of `own`, before others come */
  sy_status status = sy_agree_gather(a, &mine, sizeof mine, all);
  if (status == SY_OK && own != SY_OK) {
    status = sy_fail(own, "%s", sentence);
  }
  for (int32_t peer = 0; peer < a->world && status == SY_OK; ++peer) {
    if (all[peer] != SY_OK) {
      status = sy_fail((sy_status)all[peer], "%s: rank %d: %s", a->call, (int)peer,
                       sy_status_text((sy_status)all[peer]));
    }
  }
  sy_free(all);
  return status;
}
