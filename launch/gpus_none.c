#include <string.h>

#include "launch/gpus.h"

void gpus_discover(struct gpus *gpus_out) { memset(gpus_out, 0, sizeof *gpus_out); }
