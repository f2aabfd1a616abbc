/* The warden: one process per host that outlives everything else of a job there.
 *
 * It watches the guardian, which is the supervisor on its own host and mpirun's daemon elsewhere.
 * Once that has ended, however it ended, the warden ends what is left of the job on its host and
 * removes the job's folders. After a rank of its host has failed, and none is left, a daemon has
 * the job's deadline to end too: after a cut link it would stay for minutes. */
#ifndef LAUNCH_RUN_WARDEN_H
#define LAUNCH_RUN_WARDEN_H

#include "launch/run/job.h"

/* Starts the host's warden, unless there is one: its process id, 0 if there is one already, -1 (see
 * errno). limited: the deadline holds for this guardian. To be called before job_join: the warden
 * must not be a member. */
pid_t warden_start(const struct job *job, pid_t guardian, bool limited);

/* The caller has cleaned up itself: ends the warden that it started. */
void warden_stop(pid_t warden);

#endif
