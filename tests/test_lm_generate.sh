#!/bin/sh
# Text does not depend on the number of ranks, nor on chance.
. "$(dirname "$0")/test_lm_support.sh"

# generate <world> <arguments...>: leaves prompts and texts in $texts.
generate() {
  world=$1
  shift
  run_lm "$world" generate --model "$model" --json "$@"
  expect_code 0
  texts=$(grep -E '"(prompt|text)":' "$scratch/out")
  [ -n "$texts" ] || fail "world $world: no text"
}

prompts() { generate "$@" --max-tokens 24 --prompt 'In the beginning ' 'A' 'And God ' --prompt 'Sela' 'he '; }

greedy_is_the_same_on_every_world() {
  prompts 0
  alone=$texts
  expect_equal "$(echo "$alone" | grep -c '"text"')" 5 "texts"
  for world in 1 4; do
    prompts $world
    expect_equal "$texts" "$alone" "greedy, world $world"
  done
  expect_equal "$(grep -c '"rank": 0' "$scratch/out")" 3 "texts of rank 0, and its line of the table"
}

drawn_is_the_same_on_every_world() {
  prompts 1 --temperature 0.8 --top-p 0.95 --seed 11
  alone=$texts
  prompts 4 --temperature 0.8 --top-p 0.95 --seed 11
  expect_equal "$texts" "$alone" "drawn, world 4"
  prompts 4 --temperature 0.8 --top-p 0.95 --seed 12
  [ "$texts" != "$alone" ] || fail "another seed gives the same text"
  prompts 1
  greedy=$texts
  prompts 1 --temperature 0.8 --top-p 1e-9 --seed 11
  expect_equal "$texts" "$greedy" "a top-p that leaves one byte is greedy"
}

# A prompt read at once goes on as the same text read and written byte by byte.
prefill_and_decode_agree() {
  generate 2 --prompt 'In the ' --max-tokens 40
  whole=$(json_value text | tr -d '"')
  # What is up to the first line end needs no escapes.
  begin=$(printf '%s' "$whole" | cut -c1-8)
  case $begin in *\\*) fail "the text begins with an escape: '$begin'" ;; esac
  generate 2 --prompt "In the $begin" --max-tokens 32
  expect_equal "$begin$(json_value text | tr -d '"')" "$whole" "the rest of the text"
}

# Ranks without prompts take part; text goes to standard output, the table to standard error.
fewer_prompts_than_ranks() {
  run_lm 4 generate --model "$model" --prompt 'And the LORD ' --prompt 'Moses ' --max-tokens 12
  expect_code 0
  expect_equal "$(sed -n 1p "$scratch/out")" '--- prompt 1 of 2, rank 0 ---' "first heading"
  grep -q '^--- prompt 2 of 2, rank 1 ---$' "$scratch/out" || fail "no second heading"
  grep -q '^And the LORD ' "$scratch/out" || fail "no first text"
  grep -q 'rows' "$scratch/out" && fail "the table is among the text"
  expect_equal "$(grep -c '^   [0-3] ' "$scratch/err")" 4 "lines of the table"
}

# The model's last position can be used, and no more.
positions_end() {
  prompt=$(printf '%0500d' 0)
  run_lm 2 generate --model "$model" --prompt "$prompt" --max-tokens 13 --json
  expect_code 0
  run_lm 2 generate --model "$model" --prompt "$prompt" --json
  expect_code 0
  expect_equal "$(json_value text | tr -d '"' | sed 's/\\n/ /g' | wc -c)" 14 "bytes by default, and a line end"
  run_lm 2 generate --model "$model" --prompt "$prompt" --max-tokens 14
  expect_code 2
  expect_error_once '--max-tokens: 14 is too much after prompt 1 of 500 bytes; .* 1 to 13'
  run_lm 2 generate --model "$model" --prompt "$prompt$prompt"
  expect_code 2
  expect_error_once '--prompt: prompt 1 has 1000 bytes; .* 1 to 512'
}

"$@"
finish
