/* What tests of the transport over NCCL share: ways to make one, and device memory as cases see it. */
#ifndef SY_TESTS_SUPPORT_NCCL_CASE_H
#define SY_TESTS_SUPPORT_NCCL_CASE_H

#include "comm/nccl_transport.h"
#include "tests/support/transport_cases.h"

/* Over MPI_COMM_WORLD, with its side channel; the cases then reach device memory. */
struct sy_transport *nccl_case_create(void);

/* With a communicator of the test's, or an id; without a side channel. The communicator, when there is
 * one, is the test's to give back: nccl_case_close. */
struct sy_transport *nccl_case_create_bare(void);
struct sy_transport *nccl_case_create_from_id(void);

/* Ends the transport, and the stream that it was given. */
void nccl_case_close(struct sy_transport *t);

/* All that the transport's stream was asked to do is done, or the deadline passes: PEER. As the
 * runtime waits. */
sy_status nccl_case_wait_stream(struct sy_transport *t, int64_t deadline_ns);

#endif
