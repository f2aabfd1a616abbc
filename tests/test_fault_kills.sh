#!/bin/sh
# Kills at random moments: test_fault_kills.sh <switchyard-run> <fault_rank> <how many> [seed]
#
# Each round starts a job of three ranks and sends SIGKILL, between its start and its end, to one
# process of it: a rank, a keeper, mpirun, the supervisor or the warden. The job must end in time, with
# right results or an error, and nothing left behind. Prints a tally.
run=$1 rank=$2 rounds=$3 seed=${4:-1}
. "$(dirname "$0")/test_fault_support.sh"
export SY_FAULT_TIMEOUT_MS=4000 SY_FAULT_STEPS=200 SY_FAULT_PAUSE_MS=5 SY_TEST_TIMEOUT_S=600
deadline=10
in_time=$(((deadline + 20) * 1000)) # from the kill
longest=0
: >"$scratch/tally"

# How long a job takes that nobody disturbs: kills are spread over that.
run_job "$run" -n 3 --deadline $deadline "$rank"
expect_code 0
undisturbed=$ms

# Three random numbers for each round.
draws=$(awk -v seed="$seed" -v n="$rounds" -v ms="$undisturbed" 'BEGIN {
  srand(seed)
  for (i = 0; i < n; ++i) printf "%d:%d:%d ", int(rand() * ms), int(rand() * 8), int(rand() * 3)
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
  for kind in "$2" mpirun supervisor; do # whoever is there yet
    victim=$(of_kind "$kind" | sed -n "$(($3 + 1))p")
    [ -n "$victim" ] || victim=$(of_kind "$kind" | head -n 1)
    [ -z "$victim" ] || break
  done
  set -- "$1" "$kind"
  ran="round $round: $2 killed after $1 ms"
  begin=$(date +%s%N)
  if [ -z "$victim" ] || ! kill -9 "$victim" 2>/dev/null; then
    set -- "$1" nobody # all is over
  fi
  finish_job >/dev/null 2>&1
  case $2:$code in
    nobody:0 | warden:0) ms=0 ;; # the job went on to its end
    supervisor:137 | mpirun:137 | rank:137 | keeper:4 | keeper:137) ;;
    rank:0 | keeper:0 | mpirun:0) late=$((late + 1)) ;;        # its work was done
    rank:4 | keeper:1 | mpirun:1 | mpirun:143 | mpirun:4) ;;   # before it could be heard
    *) fail "exit code $code"; grep -v '^ ' "$scratch/err" | tail -n 15 ;;
  esac
  [ "$ms" -le "$longest" ] || longest=$ms
  [ "$ms" -le $in_time ] || fail "took $ms ms"
  grep -q 'differ' "$scratch/err" && fail "wrong results"
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
echo "longest from kill to end: $longest ms; killed when all work was done: $late; failures: $failures"
finish
