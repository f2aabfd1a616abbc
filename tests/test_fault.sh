#!/bin/sh
# What happens to one rank is said by the others, and ends the job in time with nothing left behind:
#   test_fault.sh <switchyard-run> <fault_rank> "<mpirun ... -n>" <case> [arguments of the case]
run=$1 rank=$2 mpirun=$3
shift 3
. "$(dirname "$0")/test_fault_support.sh"

# Of fault_rank: an exchange waits for 2 s, set-up and loading for 4 s. Of the job: 6 s.
export SY_FAULT_TIMEOUT_MS=2000 SY_TEST_TIMEOUT_S=110
deadline=6
in_time=$(((deadline + 20) * 1000)) # with a busy machine's start and end

run_ranks() { start "$run" -n 3 --deadline $deadline "$@" "$rank"; }

# killed <point> <who reports: nobody, or a sentence's beginning>: rank 1, under switchyard-run.
killed() {
  SY_FAULT="1:$1:kill" run_job "$run" -n 3 --deadline $deadline "$rank"
  expect_code 137
  expect_within $in_time
  expect_said '^switchyard-run: rank 1 on .*: ended by signal 9 (Killed)$'
  if [ "$2" != nobody ]; then
    expect_times 2 "$2"
    expect_said '^switchyard-run: rank 0, 2 on .*: left with exit code 4$'
  fi
  expect_nothing_left
}

# Plain mpirun kills the others itself, in its own words.
killed_under_mpirun() {
  SY_FAULT="1:$1:kill" run_job $mpirun 3 "$rank"
  [ "$code" -ne 0 ] || fail "mpirun says that all went well"
  expect_within 25000 # 2.4 s on a quiet machine
  expect_said 'exited on signal 9\|the job has been aborted'
  expect_nothing_left
}

# Stopped for less than the timeout: late, and right to the bit.
halted_in_time() {
  SY_FAULT=1:experts:halt:700 run_job "$run" -n 3 --deadline $deadline "$rank"
  expect_code 0
  expect_times 1 '^fault_rank: halt'
  expect_nothing_left
}

# Continued too late: the others have named it and left, and it finds nobody.
halted_too_long() {
  SY_FAULT=1:experts:halt:4000 run_job "$run" -n 3 --deadline $deadline "$rank"
  expect_code 4
  expect_within $in_time
  expect_times 2 'SY_ERR_PEER: .*return: nothing heard in time from rank 1; the group is dead'
  expect_said '^switchyard-run: rank 0, 1, 2 on .*: left with exit code 4$'
  expect_nothing_left
}

# Never continued: the job's deadline ends it.
stopped() {
  SY_FAULT=1:dispatch:stop run_job "$run" -n 3 --deadline 5 "$rank"
  expect_code 4
  expect_within $in_time
  expect_times 2 'SY_ERR_PEER: .*dispatch: nothing heard in time from rank 1; the group is dead'
  expect_said '^switchyard-run: rank 0, 2 on .*: left with exit code 4$'
  expect_nothing_left
}

# Memory runs out on one rank: all say so and leave.
out_of_memory() {
  SY_FAULT=1:reserve:memory run_job "$run" -n 3 --deadline $deadline "$rank"
  expect_code 4
  expect_within $in_time
  expect_times 3 'gave 20, expected 0; last error: "rank 1'
  expect_said '^switchyard-run: rank 0, 1, 2 on .*: left with exit code 4$'
  expect_nothing_left
}

# A rank that leaves by itself, without a word.
left() {
  SY_FAULT=1:combine:leave run_job "$run" -n 3 --deadline $deadline "$rank"
  expect_code 3
  expect_within $in_time
  expect_said '^switchyard-run: rank 1 on .*: left with exit code 3$'
  expect_said '^switchyard-run: rank 0, 2 on .*: left with exit code 4$'
  expect_nothing_left
}

# Waits until all three ranks have begun.
until_ranks_run() {
  tries=0
  while [ "$(rank_processes "$(readlink -f "$rank")" | wc -l)" -lt 3 ] && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
  [ $tries -lt 100 ] || fail "the ranks do not begin"
}

# Ctrl-C, SIGTERM, and the launcher itself killed; mpirun, or a keeper, killed beneath it.
interrupted() {
  SY_FAULT_STEPS=100000000 run_ranks
  until_ranks_run
  kill -"$1" $job
  finish_job
  expect_code "$2"
  expect_within $in_time
  expect_nothing_left
}

child_of() { grep -lsx "PPid:[[:space:]]*$1" /proc/[0-9]*/status | cut -d/ -f3; }
mpirun_of_job() {
  for pid in $(child_of $job); do
    [ "$(cat "/proc/$pid/comm")" != switchyard-ward ] && echo "$pid"
  done
}

mpirun_killed() {
  SY_FAULT_STEPS=100000000 run_ranks
  until_ranks_run
  kill -9 $(mpirun_of_job)
  finish_job
  expect_code 137
  expect_within $in_time
  expect_said '^switchyard-run: mpirun was ended by signal 9'
  expect_nothing_left
}

keeper_killed() {
  SY_FAULT_STEPS=100000000 run_ranks
  until_ranks_run
  kill -9 "$(child_of $(mpirun_of_job) | head -n 1)"
  finish_job
  expect_code 4
  expect_within $in_time
  expect_times 2 'nothing heard in time from rank'
  expect_nothing_left
}

# What cannot be started is said once, and in time.
not_there() {
  run_job "$run" -n 2 --deadline $deadline "$scratch/no-such-program"
  expect_code 127
  expect_said "no-such-program' cannot be started: No such file"
  expect_nothing_left
}

# A full disk: the output is cut, and the exit code says so.
full_disk() {
  ran="$run, standard output full"
  begin=$(date +%s%N)
  "$run" -n 2 --deadline $deadline seq 1 1000000 >/dev/full 2>"$scratch/err" </dev/null
  code=$?
  ms=$((($(date +%s%N) - begin) / 1000000))
  expect_code 1
  expect_within $in_time
  expect_said '^switchyard-run: standard output cannot be written: No space left on device$'
  expect_nothing_left
}

# The folders of a job cannot be made: said at once, and nothing begins.
no_folder() {
  TMPDIR=/proc run_job "$run" -n 2 "$rank"
  expect_code 1
  expect_said '^switchyard-run: /proc/switchyard-job'
  expect_nothing_left
}

"$@"
finish
