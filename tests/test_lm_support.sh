# Sourced by test_lm_*.sh, which CTest starts as
#   test_lm_<what>.sh <lm> <folder of the checkpoint> "<mpirun ... -n>" <case> [arguments of the case]
set -u
lm=$1 model=$2 mpirun=$3
shift 3
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

fail() {
  echo "FAILED: $*"
  failures=$((failures + 1))
}

# run_lm <world> <arguments of lm...>: leaves $code, $scratch/out and $scratch/err. World 0: without
# mpirun.
run_lm() {
  ran="world $1: lm $(echo "$*" | cut -d' ' -f2-)"
  if [ "$1" -eq 0 ]; then
    shift
    "$lm" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
  else
    world=$1
    shift
    $mpirun "$world" "$lm" "$@" >"$scratch/out" 2>"$scratch/err" </dev/null
  fi
  code=$?
}

expect_code() {
  [ "$code" -eq "$1" ] || {
    fail "$ran: exit code $code, expected $1"
    tail -n 20 "$scratch/err"
  }
}

# The sentence must be there, once: ranks do not repeat each other.
expect_error_once() {
  count=$(grep -c -- "$1" "$scratch/err")
  [ "$count" -eq 1 ] || {
    fail "$ran: '$1' is printed $count times, expected once"
    cat "$scratch/err"
  }
}

# The value of a key of the JSON on standard output; where ranks have the key too, the first alone.
json_value() { sed -n "s/^ *\"$1\": \(.*[^,]\),*\$/\1/p" "$scratch/out" | head -n 1; }

# The sum of a key over all ranks.
json_sum() {
  sed -n "s/^ *\"$1\": \([0-9]*\),*\$/\1/p" "$scratch/out" | awk '{ sum += $1 } END { printf "%.0f", sum }'
}

# expect_near <found> <expected> <tolerance> <what>: nothing, and NaN, is not near.
expect_near() {
  awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN {
    d = a - b; if (d < 0) d = -d
    exit !(a ~ /^[0-9.e+-]+$/ && d <= t + 0)
  }' || fail "$4: found '$1', expected $2 within $3"
}

expect_equal() { [ -n "$1" ] && [ "$1" = "$2" ] || fail "$3: found '$1', expected '$2'"; }

# The last line of every script.
finish() {
  [ "$failures" -eq 0 ] || echo "$failures checks failed"
  exit $((failures > 0))
}
