# Sourced by test_fault_*.sh: a job to which something happens, and what it may leave behind.
#
# Every process of a job has SY_JOB=<scratch folder> in its environment, by which stragglers are
# found; nobody else's processes are looked at.
set -u
export SY_JOB=
scratch=$(mktemp -d)
SY_JOB=$scratch
export TMPDIR="$scratch/tmp"
mkdir "$TMPDIR"
failures=0

fail() {
  echo "FAILED: $ran: $*"
  failures=$((failures + 1))
}

# Process ids of the job that are alive, this script and its subshells left out; a zombie is not.
job_processes() {
  for environment in /proc/[0-9]*/environ; do
    pid=${environment#/proc/}
    pid=${pid%/environ}
    if grep -qzsx "SY_JOB=$scratch" "$environment" &&
      grep -qs '^State:[[:space:]]*[^Z[:space:]]' "/proc/$pid/status" &&
      ! grep -qsz 'test_fault' "/proc/$pid/cmdline"; then
      echo "$pid"
    fi
  done
}

# The process ids of the ranks: those that run the program $1, in no order.
rank_processes() {
  for pid in $(job_processes); do
    [ "$(readlink "/proc/$pid/exe")" = "$1" ] && echo "$pid"
  done
}

# start <command...>: in the background; leaves $job and $ran.
start() {
  ran=$*
  begin=$(date +%s%N)
  "$@" >"$scratch/out" 2>"$scratch/err" </dev/null &
  job=$!
}

# Its end: leaves $code and $ms.
finish_job() {
  wait "$job"
  code=$?
  ms=$((($(date +%s%N) - begin) / 1000000))
}

run_job() {
  start "$@"
  finish_job
}

expect_code() {
  for expected in "$@"; do
    [ "$code" -ne "$expected" ] || return 0
  done
  fail "exit code $code, expected $*"
  tail -n 25 "$scratch/err"
}

# expect_within <ms>: of the start.
expect_within() {
  echo "ended after $ms ms"
  [ "$ms" -le "$1" ] || fail "took $ms ms, allowed $1"
}

expect_said() {
  grep -q -- "$1" "$scratch/err" || {
    fail "nobody says '$1'"
    grep -v '^ ' "$scratch/err" | tail -n 25
  }
}

expect_times() {
  count=$(grep -c -- "$2" "$scratch/err")
  [ "$count" -eq "$1" ] || {
    fail "'$2' is said $count times, expected $1"
    grep -v '^ ' "$scratch/err" | tail -n 25
  }
}

# No process, no folder, no shared segment; processes have a moment to go.
expect_nothing_left() {
  tries=0
  while left=$(job_processes) && [ -n "$left" ] && [ $tries -lt 100 ]; do
    tries=$((tries + 1))
    sleep 0.1
  done
  [ -z "$left" ] || {
    fail "processes are left: $(echo "$left" | tr '\n' ' ')"
    for pid in $left; do
      tr '\0' ' ' <"/proc/$pid/cmdline"
      echo
      kill -9 "$pid"
    done
  }
  files=$(find "$TMPDIR" -mindepth 1)
  [ -z "$files" ] || fail "left in TMPDIR: $(echo "$files" | head -n 5)"
  for id in $(grep -o 'switchyard-job\.[0-9a-f]*' "$scratch/err" | sort -u); do
    [ ! -e "/dev/shm/$id" ] || fail "left: /dev/shm/$id"
  done
}

# Where this script is ended in the middle of a job, it takes all of the job with it, the warden too.
clean_up() {
  for pid in $(job_processes); do
    kill -9 "$pid"
  done
  for id in $(grep -so 'switchyard-job\.[0-9a-f]*' "$scratch/err" | sort -u); do
    rm -rf "/dev/shm/$id"
  done
  rm -rf "$scratch"
}
trap clean_up EXIT
trap 'exit 1' HUP INT TERM

# The last line of every script.
finish() {
  [ "$failures" -eq 0 ] || echo "$failures checks failed"
  exit $((failures > 0))
}
