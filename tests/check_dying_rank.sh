#!/bin/sh
# A rank that dies ends the whole job: check_dying_rank.sh <ranks> <mpirun ... dying_rank>
#
# mpirun must fail within seconds, and leave none of the ranks behind.
set -u
ranks=$1
shift

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
export SY_TEST_DIR="$dir"

complain() {
  echo "check_dying_rank: $*" >&2
  cat "$dir/log" >&2
  exit 1
}

is_alive() { # a zombie is not
  state=$(sed -n 's/^State:[[:space:]]*\([A-Z]\).*/\1/p' "/proc/$1/status" 2>/dev/null)
  [ -n "$state" ] && [ "$state" != Z ]
}

begin=$(date +%s)
timeout 40 "$@" >"$dir/log" 2>&1 </dev/null
status=$?
seconds=$(($(date +%s) - begin))

[ "$status" -ne 0 ] || complain "mpirun says that all went well"
[ "$status" -ne 124 ] || complain "mpirun was still waiting after $seconds s"
[ "$seconds" -le 20 ] || complain "mpirun took $seconds s"
[ "$(cat "$dir"/pid.* | wc -l)" -eq "$ranks" ] || complain "not all $ranks ranks have begun"
[ -s "$dir/dying.1" ] || complain "rank 1 has not come to its death"
grep -q 'passed' "$dir/log" && complain "the case passed"

for pid in $(cat "$dir"/pid.*); do
  tries=0
  while is_alive "$pid"; do
    tries=$((tries + 1))
    [ "$tries" -le 50 ] || complain "process $pid is left behind"
    sleep 0.1
  done
done
echo "mpirun ended after $seconds s with status $status and left nobody behind"
