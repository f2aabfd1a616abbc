#!/bin/sh
# lm on emulated GPUs: check_lm.sh <lm> <model> <mpirun...> -n score | falls_back
set -eu
lm=$1
model=$2
shift 2
mpirun=
while [ $# -gt 1 ]; do
  mpirun="$mpirun $1"
  shift
done
text=$(mktemp)
log=$(mktemp)
trap 'rm -f "$text" "$log"' EXIT
export SY_TEST_TIMEOUT_S=3600

# score <world> <device>: leaves bits per byte in $figure, and what lm says besides in $log.
score() {
  # shellcheck disable=SC2086 # words, not one argument
  figure=$($mpirun "$1" "$lm" score --model "$model" --text "$text" --quant w4a4 --timeout 600 \
    --device "$2" --json 2>"$log" | sed -n 's/.*"bits_per_byte": *\([0-9.]*\).*/\1/p')
  [ -n "$figure" ] ||
    { cat "$log"; exit 1; }
  echo "world $1, $2: $figure"
}

near() {
  awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; exit !(d <= 0.001 && d >= -0.001) }' ||
    { echo "$3: $1 is not within 0.001 of $2"; exit 1; }
}

case $1 in
score)
  head -c 257 "$model/sample.txt" >"$text"
  score 1 cpu
  cpu=$figure
  for world in 1 2 4; do
    score $world cuda
    near "$figure" "$cpu" "world $world on GPUs"
  done
  ;;
falls_back)
  head -c 257 "$model/sample.txt" >"$text"
  export SY_SIMT_DEVICES='no driver'
  score 2 auto
  [ "$(grep -c 'run on the CPU' "$log")" = 1 ] || { echo "one line should say so:"; cat "$log"; exit 1; }
  code=0
  # shellcheck disable=SC2086
  $mpirun 1 "$lm" score --model "$model" --text "$text" --device cuda >"$log" 2>&1 || code=$?
  grep -q -e '--device cuda: .*driver' "$log" && [ $code = 2 ] || { echo "code $code:"; cat "$log"; exit 1; }
  export SY_SIMT_DEVICES=sm90
  score 2 auto # one GPU for two ranks
  grep -q 'another rank has no GPU\|has 1 GPUs for 2' "$log" ||
    { cat "$log"; exit 1; }
  ;;
esac
