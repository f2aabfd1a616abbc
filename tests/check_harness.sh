#!/bin/sh
# The harness notices failures: check_harness.sh <command that starts harness_subject...>
set -u
output=$(mktemp)
trap 'rm -f "$output"' EXIT
bad=0

complain() {
  echo "$1; it printed:"
  cat "$output"
  bad=1
}

# expect <exit code> <command...>: what it prints is looked at by the prints that follow.
expect() {
  code=$1
  shift
  "$@" >"$output" 2>&1
  found=$?
  [ "$found" -eq "$code" ] || complain "$*: exit code $found, expected $code"
}

prints() {
  grep -qF "$1" "$output" || complain "\"$1\" is missing"
}

SY_TEST_SEED=0x10 expect 0 "$@" passes
prints 'passes: passed (seed 16,'
expect 1 "$@" passes fails_on_the_last_rank
prints 'passes: passed (seed 1,'
prints 'is 41, 42 is 42'
prints 'fails_on_the_last_rank: FAILED'
expect 1 "$@" fails_in_every_check
prints 'not so: sy_test_world() == 0'
prints '1 is 1, 2 is 2'
prints 'NULL is "(null)"'
prints 'first at byte 2: 0x63 and 0x64'
prints 'has no "rank 4"'
prints 'further apart than 1'
prints 'SY_ERR_PEER gave 50, expected 0'
prints 'the case went on to its end'
SY_TEST_TIMEOUT_S=1 expect 1 "$@" is_stuck_on_the_last_rank
prints 'case is_stuck_on_the_last_rank is stuck'
expect 77 "$@" skips
prints 'skipped: there is nothing to test'
expect 0 "$@" skips passes
expect 1 "$@" passes no_such_case
prints '2 cases were named, 1 of them exist'
exit $bad
