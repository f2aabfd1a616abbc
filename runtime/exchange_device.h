/* One exchange of the step in flight, ordered on a GPU's stream. Headers are written and read by
 * kernels; message sizes are the same on both sides, so fixed and gather send capacity. */
#ifndef SY_RUNTIME_EXCHANGE_DEVICE_H
#define SY_RUNTIME_EXCHANGE_DEVICE_H

#include "runtime/internal.h"

/* Whether headers travel first and the host waits for them: for the sizes of exact, and with host
 * tensors, whose call the host waits for anyhow; so every rank hears of every rank's fault. A call
 * without a plan is taken for one of these. */
bool sy_device_headers_first(const struct sy_step *step);

/* Headers alone, there and here, into headers[] and gpu->sent_headers; then judges them. Ends the
 * group when a peer does not come in time. */
sy_status sy_device_exchange_headers(sy_group *group);

/* open: places all messages and writes their headers; the rows come behind. send: starts.
 * receive: what is enqueued behind it finds the messages, their headers read. */
sy_status sy_device_open(sy_group *group, enum sy_direction direction);
sy_status sy_device_send(sy_group *group, enum sy_direction direction);
sy_status sy_device_receive(sy_group *group, enum sy_direction direction);

#endif
