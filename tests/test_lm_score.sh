#!/bin/sh
# Bits per byte, against figures of an independent implementation and between numbers of ranks.
. "$(dirname "$0")/test_lm_support.sh"

# score <world> <arguments...>: leaves the figure in $figure.
score() {
  world=$1
  shift
  run_lm "$world" score --model "$model" --text "$model/sample.txt" --json "$@"
  expect_code 0
  figure=$(json_value bits_per_byte)
  echo "world $world, $*: $figure"
}

# worlds_agree <mode> <windows> <reference> <tolerance> <world...>: per_slot, to the last digit.
worlds_agree() {
  mode=$1 windows=$2 reference=$3 tolerance=$4
  shift 4
  score 0 --quant "$mode" --combine per_slot --max-windows "$windows"
  alone=$figure
  expect_near "$alone" "$reference" "$tolerance" "$mode, $windows windows"
  expect_equal "$(json_value windows)" "$windows" "windows"
  for world in "$@"; do
    score "$world" --quant "$mode" --combine per_slot --max-windows "$windows"
    expect_equal "$figure" "$alone" "$mode, world $world"
    expect_equal "$(json_value world)" "$world" "world"
  done
}

# per_rank_is_near <mode> <windows> <world...>: within 0.0005 of one rank alone. (With rows that
# return as bf16 it would be 0.002 for w4a4: their rounding, which depends on the number of ranks,
# flips codes of the next layer.)
per_rank_is_near() {
  mode=$1 windows=$2
  shift 2
  score 1 --quant "$mode" --combine per_rank --max-windows "$windows"
  alone=$figure
  for world in "$@"; do
    score "$world" --quant "$mode" --combine per_rank --max-windows "$windows"
    expect_near "$figure" "$alone" 0.0005 "$mode per_rank, world $world"
  done
}

# How tokens travel, and in what portions, changes no digit. Four windows on three ranks: one rank
# has two, and in the last step two ranks have none.
ways_agree() {
  windows=4
  score 1 --quant w4a4 --max-windows $windows
  alone=$figure
  for way in '--strategy auto' '--strategy exact' '--strategy fixed' '--strategy gather' \
    '--wave-tokens 100' '--wave-tokens 7 --strategy fixed' '--chunk-rows 33' \
    '--wave-tokens 63 --chunk-rows 5 --strategy gather' '--threads 3'; do
    score 3 --quant w4a4 --max-windows $windows $way
    expect_equal "$figure" "$alone" "world 3, $way"
  done
}

# What the table says fits together: 2 windows, 4 layers, top-4; all ranks of one layer own all 32
# experts.
table_adds_up() {
  run_lm 3 score --model "$model" --text "$model/sample.txt" --json --max-windows 2 --strategy exact
  expect_code 0
  expect_equal "$(json_sum tokens)" $((2 * 256 * 4)) "tokens of all ranks"
  expect_equal "$(json_sum routed_rows)" $((2 * 256 * 4 * 4)) "routed rows of all ranks"
  expect_equal "$(json_sum local_experts)" $((32 * 4)) "local experts of all ranks, over layers"
  expect_equal "$(json_sum bytes_sent)" "$(json_sum bytes_received)" "bytes sent and received"
  [ "$(json_sum bytes_sent)" -gt 0 ] || fail "no bytes were sent"
  expect_equal "$(json_value strategy)" '"exact"' "strategy"
  expect_equal "$(json_value quant)" '"w4a4"' "quant"

  run_lm 3 score --model "$model" --text "$model/sample.txt" --max-windows 2
  expect_code 0
  expect_equal "$(grep -c '^   [0-2] ' "$scratch/out")" 3 "lines of the table"
  expect_equal "$(grep -c 'bits per byte' "$scratch/out")" 1 "lines with the figure"
  grep -q '^loading: 10.6 of 10.6 MB, ' "$scratch/err" || fail "no line says what was loaded"
}

# A bar where standard error is a terminal; there alone.
progress_suits_its_reader() {
  arguments="score --model $model --text $model/sample.txt --max-windows 1"
  script -qec "$lm $arguments" /dev/null </dev/null >"$scratch/terminal"
  tr '\r' '\n' <"$scratch/terminal" | grep -Eq '^loading \[#{40}\] 100 %  27\.1 MB  [0-9]+ MB/s' ||
    fail "no full bar on a terminal"
  run_lm 2 $arguments
  expect_code 0
  grep -q '\[' "$scratch/err" && fail "a bar in a pipe"
  expect_equal "$(grep -c '^loading: 14.5 of 14.5 MB, [0-9]* MB/s$' "$scratch/err")" 1 "lines of rank 0"
}

"$@"
finish
