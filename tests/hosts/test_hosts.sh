#!/bin/sh
# Ranks on several hosts, started as in_a_box test_hosts.sh <folder of the programs> <model> <case>.
bin=$1 model=$2
shift 2
. "$(dirname "$0")/../test_fault_support.sh"
. "$(dirname "$0")/hosts.sh"
run=$bin/switchyard-run lm=$bin/lm rank=$bin/fault_rank
deadline=5
in_time=$(((deadline + 30) * 1000))

# faulty <variable=value...>: the program and its settings, which reach every host this way.
faulty() { echo env SY_TEST_TIMEOUT_S=170 SY_FAULT_TIMEOUT_MS=2000 "$@" "$rank"; }

# The figures that one host computes and several must repeat, to the bit.
score() { "$@" "$lm" score --model "$model" --text "$model/sample.txt" --max-windows 2 --json; }
bits_of() { sed -n 's/^ *"bits_per_byte": \(.*[^,]\),*$/\1/p' "$1"; }
text() { "$@" "$lm" generate --model "$model" --prompt 'In the ' 'And ' 'The ' --max-tokens 24 --json; }
text_of() { grep -E '"(prompt|text)":' "$1"; }

expect_equal() { [ -n "$1" ] && [ "$1" = "$2" ] || fail "$3: found '$1', expected '$2'"; }

run_score() {
  score run_job on h1 "$run" --deadline 60 --hosts "$1"
  expect_code 0
  bits=$(bits_of "$scratch/out")
}
expect_score() {
  score >"$scratch/alone"
  expect_equal "$bits" "$(bits_of "$scratch/alone")" "bits per byte"
}

# Names differ, memory is not shared: what is under test is really there.
hosts_are_apart() {
  make_hosts 3
  printf 'h1 slots=1\nh2 slots=1\nh3 # one\n' >"$scratch/hosts.txt"
  run_job on h1 "$run" --hostfile "$scratch/hosts.txt" sh -c \
    "hostname; : >/dev/shm/seen-\$(hostname); ls /dev/shm | grep -c seen"
  expect_code 0
  expect_equal "$(grep '^h' "$scratch/out" | sort | tr '\n' ' ')" "h1 h2 h3 " "host names"
  expect_equal "$(grep '^[0-9]' "$scratch/out" | tr '\n' ' ')" "1 1 1 " "files in shared memory"
  expect_nothing_left
}

forward_tests_pass() {
  make_hosts 2
  ran="test_forward_mpi on two hosts"
  on h1 mpirun --allow-run-as-root --host h1:2,h2:2 -n 4 --oversubscribe --bind-to none \
    "$bin/test_forward_mpi" >"$scratch/out" 2>"$scratch/err" </dev/null
  code=$?
  expect_code 0
  expect_equal "$(grep -c ': passed (seed .*, 4 ranks)' "$scratch/out")" \
    "$(grep -c '^TEST' "$hosts_folder/../test_forward_mpi.c")" "cases passed"
}

model_gives_the_same_bits() {
  make_hosts 2
  run_score h1:2,h2:2
  expect_score
  text run_job on h1 "$run" --hosts h1:1,h2:2
  expect_code 0
  text >"$scratch/alone"
  expect_equal "$(text_of "$scratch/out")" "$(text_of "$scratch/alone")" "texts"
  expect_nothing_left
}

# Within an allocation mpirun finds the hosts, and starts its daemons by srun, which is ours.
slurm_allocation_is_used() {
  make_hosts 3
  unset OMPI_MCA_plm_rsh_agent
  run_job on h1 env PATH="$hosts_folder:$PATH" SLURM_JOB_ID=17 SLURM_JOBID=17 SLURM_NTASKS=4 \
    SLURM_JOB_NODELIST='h[1-2]' SLURM_NODELIST='h[1-2]' SLURM_JOB_NUM_NODES=2 SLURM_NNODES=2 \
    SLURM_TASKS_PER_NODE='2(x2)' SLURM_JOB_CPUS_PER_NODE='2(x2)' SLURM_NODEID=0 SLURM_PROCID=0 \
    "$run" --deadline $deadline $(faulty SY_FAULT=3:return:kill)
  expect_code 137
  expect_said "^4 ranks in Slurm's allocation of h\[1-2\]"
  expect_said '^switchyard-run: rank 3 on h2: ended by signal 9 (Killed)$'
  expect_said '^switchyard-run: rank 0, 1 on h1: left with exit code 4$'
  expect_nothing_left
}

slow_and_lossy_links_change_nothing() {
  make_hosts 3
  slow_down h2 40mbit || fail "tbf"
  drop h3 20 || fail "nftables"
  run_score h1:1,h2:1,h3:2
  expect_score
  lost=$(num_dropped h3)
  [ "${lost:-0}" -gt 0 ] || fail "no packet was dropped"
  expect_nothing_left
}

# One of four hosts has a slow cable: the slowest pair that doctor finds is one of that host's.
doctor_names_the_slow_host() {
  make_hosts 4
  slow_down h2 1mbit || fail "tbf"
  run_job on h1 "$run" --hosts h1:1,h2:1,h3:1,h4:1 "$bin/switchyard" doctor --model tiny-moe
  expect_code 0
  slowest=$(tr -s ' \n' '  ' <"$scratch/out" | sed 's/.*the slowest: \(rank . on .. and rank . on ..\).*/\1/')
  case $slowest in
    *'on h2'*) ;;
    *) fail "doctor says: $(head -n 12 "$scratch/out")" ;;
  esac
  expect_nothing_left
}

delay_changes_nothing() {
  make_hosts 2
  tc qdisc add dev cable2 root netem delay 5ms 2>/dev/null || {
    echo "skipped: this kernel has no netem to delay packets by"
    exit 77
  }
  run_score h1:1,h2:1
  expect_score
}

# begin_ranks <setting...>: four of them on two hosts; returns when all are there.
begin_ranks() {
  start on h1 "$run" --deadline $deadline --hosts h1:2,h2:2 $(faulty "$@")
  tries=0
  until [ "$(rank_processes "$rank" | wc -l)" -eq 4 ] || [ $((tries += 1)) -gt 200 ]; do
    sleep 0.1
  done
  [ $tries -le 200 ] || fail "the ranks do not begin"
  sleep 1 # on with their work, most likely; nothing depends on it
}

# TCP sends again what was lost: shorter than the timeout, a cut is only slow.
short_cut_is_mended() {
  make_hosts 2
  begin_ranks SY_FAULT_TIMEOUT_MS=30000 SY_FAULT_STEPS=250 SY_FAULT_PAUSE_MS=10
  cut_cable h2
  sleep 1.5
  mend_cable h2
  finish_job
  expect_code 0
  expect_nothing_left
}

# Both sides name those that they do not hear, and leave; nothing waits for the cable.
long_cut_ends_the_job() {
  make_hosts 2
  begin_ranks SY_FAULT_STEPS=100000000
  cut_cable h2
  begin=$(date +%s%N)
  finish_job
  expect_code 4
  expect_within $in_time
  expect_said 'nothing heard in time from rank [23].*; the group is dead'
  expect_said '^switchyard-run: rank 0, 1 on h1: left with exit code 4$'
  expect_said '^switchyard-run: rank 2, 3 on h2: not heard to have ended$'
  expect_nothing_left_on h2
  expect_nothing_left
  mend_cable h2
}

host_lost() {
  make_hosts 2
  begin_ranks SY_FAULT_STEPS=100000000
  lose_host h2
  begin=$(date +%s%N)
  finish_job
  expect_code 4
  expect_within $in_time
  expect_said '^switchyard-run: rank 0, 1 on h1: left with exit code 4$'
  expect_said '^switchyard-run: rank 2, 3 on h2: not heard to have ended$'
  expect_nothing_left
}

# A rank of another host is killed: its exit code comes home.
remote_rank_killed() {
  make_hosts 2
  run_job on h1 "$run" --deadline $deadline --hosts h1:2,h2:2 $(faulty SY_FAULT=3:return:kill)
  expect_code 137
  expect_within $in_time
  expect_said '^switchyard-run: rank 3 on h2: ended by signal 9 (Killed)$'
  expect_times 3 'nothing heard in time from rank 3'
  expect_nothing_left
}

launcher_killed() {
  make_hosts 2
  begin_ranks SY_FAULT_STEPS=100000000
  # shellcheck disable=SC2046 # words
  kill -9 $(for pid in $(job_processes); do
    [ "$(readlink "/proc/$pid/exe")" = "$run" ] && ! grep -qz '^--keep$' "/proc/$pid/cmdline" &&
      [ "$(cat "/proc/$pid/comm")" = switchyard-run ] && echo "$pid"
  done)
  finish_job
  expect_code 137
  expect_nothing_left_on h1
  expect_nothing_left_on h2
  expect_nothing_left
}

# A file that does not fit its disk is not there; what lay in its place is.
full_disk_leaves_whole_files() {
  disk=$scratch/disk
  mkdir "$disk"
  mount -t tmpfs -o size=8k none "$disk"
  echo before >"$disk/old"
  head -c 65536 /dev/zero >"$disk/fill" 2>/dev/null
  for what in "topo --svg" "topo --export" "plan --model mixtral --world 1..8 --svg" \
    "doctor --model tiny-moe --write-link"; do
    for file in new old; do
      run_job "$bin/switchyard" $what "$disk/$file"
      expect_code 1
      expect_said "$file' cannot be written: No space left on device"
    done
  done
  expect_equal "$(cd "$disk" && ls | tr '\n' ' ')" "fill old " "files on the disk"
  expect_equal "$(cat "$disk/old")" before "the file that was there"
  rm "$disk/fill"
  mount -o remount,size=1m "$disk"
  run_job "$bin/switchyard" topo --svg "$disk/old"
  expect_code 0
  expect_equal "$(cd "$disk" && ls)" old "files on the disk"
  expect_equal "$(tail -c 7 "$disk/old")" "</svg>" "the end of the new file"
  umount "$disk"
}

# The host's own folders, within the deadline and a moment.
expect_nothing_left_on() {
  tries=0
  while found=$(on "$1" find /var/tmp /dev/shm -mindepth 1) && [ -n "$found" ] &&
    [ $((tries += 1)) -lt 300 ]; do
    sleep 0.1
  done
  [ -z "$found" ] || fail "left on $1: $(echo "$found" | head -n 5)"
}

"$@"
finish
