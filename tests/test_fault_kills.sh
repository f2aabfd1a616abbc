#!/bin/sh
# Kills at random moments: test_fault_kills.sh <switchyard-run> <fault_rank> <how many> [seed]
#
# Each round starts a job of three ranks and sends SIGKILL, between its start and its end, to one
# process of it: a rank, a keeper, mpirun, the supervisor or the warden. The job must end in time, with
# right results or an error, and nothing left behind. Prints a tally.
run=$1 rank=$2 rounds=$3 seed=${4:-1}
. "$(dirname "$0")/test_fault_support.sh"
export SY_FAULT_TIMEOUT_MS=2000 SY_FAULT_STEPS=6000
deadline=6
in_time=$(((deadline + 24) * 1000))
longest=0
: >"$scratch/tally"

# Numbers 0 .. $1 - 1, one after the other in each round.
draws=$(awk -v seed="$seed" -v n="$rounds" 'BEGIN {
  srand(seed)
  for (i = 0; i < n; ++i) printf "%d:%d:%d ", int(rand() * 2500), int(rand() * 8), int(rand() * 3)
}')

of_kind() {
  for pid in $(job_processes); do
    exe=$(readlink "/proc/$pid/exe")
    case $1 in
      rank) [ "$exe" = "$(readlink -f "$rank")" ] ;;
      keeper) [ "$exe" = "$(readlink -f "$run")" ] && grep -qzsx -- --keep "/proc/$pid/cmdline" &&
        ! grep -qs switchyard-ward "/proc/$pid/comm" ;;
      mpirun) grep -qsx 'mpirun\|orterun\|mpiexec' "/proc/$pid/comm" ;;
      warden) grep -qsx switchyard-ward "/proc/$pid/comm" ;;
      supervisor) [ "$pid" = "$job" ] ;;
    esac && echo "$pid"
  done
}

# Of eight rounds four kill a rank.
kind_of() {
  case $1 in
    0 | 1 | 2 | 3) echo rank ;;
    4) echo keeper ;;
    5) echo mpirun ;;
    6) echo supervisor ;;
    7) echo warden ;;
  esac
}

# one_round <ms> <kind> <which of them>
one_round() {
  start "$run" -n 3 --deadline $deadline "$rank"
  sleep "$(awk -v ms="$1" 'BEGIN { print ms / 1000 }')"
  victim=$(of_kind "$2" | sed -n "$(($3 + 1))p")
  [ -n "$victim" ] || victim=$(of_kind "$2" | head -n 1)
  ran="round $round: $2 killed after $1 ms"
  if [ -z "$victim" ] || ! kill -9 "$victim" 2>/dev/null; then
    set -- "$1" nobody 0 # not begun yet, or over already
  fi
  finish_job >/dev/null 2>&1
  [ "$ms" -le "$longest" ] || longest=$ms
  expect_within $in_time >/dev/null
  [ "$ms" -le $in_time ] || fail "took $ms ms"
  case $2:$code in
    nobody:0 | warden:0 | supervisor:137 | mpirun:137) ;;
    rank:137 | keeper:4 | keeper:137) ;;
    rank:0 | keeper:0 | mpirun:0) late=$((late + 1)) ;; # its work was done
    rank:4 | keeper:1 | mpirun:1 | mpirun:143) ;;       # before it could be heard
    *) fail "exit code $code"; grep -v '^ ' "$scratch/err" | tail -n 15 ;;
  esac
  grep -q 'not the bits\|differ' "$scratch/err" && fail "wrong results"
  expect_nothing_left
  echo "$2 $code" >>"$scratch/tally"
}

round=0 late=0
for draw in $draws; do
  round=$((round + 1))
  rest=${draw#*:}
  one_round "${draw%%:*}" "$(kind_of "${rest%%:*}")" "${rest#*:}"
done
echo "$rounds rounds, seed $seed; who was killed, and the exit code of switchyard-run:"
sort "$scratch/tally" | uniq -c
echo "longest round: $longest ms; killed when all work was done: $late; failures: $failures"
finish
