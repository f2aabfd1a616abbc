#!/bin/sh
# What is wrong is named, once, and gives the exit code that --help documents.
. "$(dirname "$0")/test_lm_support.sh"

# refuses <code> <sentence> <arguments of lm...>: says that and nothing else.
refuses() {
  expected=$1 sentence=$2
  shift 2
  run_lm 0 "$@"
  expect_code "$expected"
  expect_error_once "$sentence"
  [ ! -s "$scratch/out" ] || fail "$ran: something is on standard output"
}

wrong_flags() {
  m="--model $model" t="--text $model/sample.txt"
  refuses 2 "a command is missing: generate or score"
  refuses 2 "'chat' is not a command: generate or score" chat
  refuses 2 "'--frob' is not an option" score --frob
  refuses 2 "'-q' is not an option" score -q
  refuses 2 "'lm score' needs --model DIR" score $t
  refuses 2 "'lm score' needs --text FILE" score $m
  refuses 2 "'lm generate' needs --model DIR" generate
  refuses 2 "--model: its value is missing" generate --model
  refuses 2 "--json takes no value" score $m $t --json=yes
  refuses 2 "--text is an option of 'lm score'" generate $m $t
  refuses 2 "--prompt is an option of 'lm generate'" score $m $t --prompt x
  refuses 2 "'stray' is out of place: prompts follow --prompt" generate $m stray
  refuses 2 "'stray' is out of place: nothing may follow '--'" generate $m --prompt x -- stray
  refuses 2 "--top-p needs --temperature above 0" generate $m --top-p 0.9
}

wrong_values() {
  m="--model $model" t="--text $model/sample.txt"
  refuses 2 "--quant: 'fp8' is not one of w4a4, w4a16, bf16, w4a4-mxfp4, w4a16-mxfp4" score $m $t --quant fp8
  refuses 2 "--combine: 'sum' is not one of per_rank, per_slot" score $m $t --combine sum
  refuses 2 "--return: 'f16' is not one of bf16, f32" score $m $t --return f16
  refuses 2 "--strategy: 'x' is not one of auto, exact, fixed, gather" score $m $t --strategy x
  refuses 2 "--max-windows: '0' is not a whole number from 1 to 2147483647" score $m $t --max-windows 0
  refuses 2 "--wave-tokens: '-4' is not a whole number from 1 to" score $m $t --wave-tokens -4
  refuses 2 "--chunk-rows: '1e3' is not a whole number from 1 to" score $m $t --chunk-rows 1e3
  refuses 2 "--threads: '1025' is not a whole number from 1 to 1024" score $m $t --threads 1025
  refuses 2 "--timeout: '' is not a whole number from 1 to 86400" score $m $t --timeout ''
  refuses 2 "--max-tokens: '1048577' is not a whole number from 1 to 1048576" generate $m --max-tokens 1048577
  refuses 2 "--temperature: '-0.5' is not a number from 0 to 100" generate $m --temperature -0.5
  refuses 2 "--temperature: 'nan' is not a number from 0 to 100" generate $m --temperature nan
  refuses 2 "--top-p: '0' is not a number above 0, up to 1" generate $m --temperature 1 --top-p 0
  refuses 2 "--seed: '18446744073709551616' is not a whole number" generate $m --seed 18446744073709551616
  refuses 2 "--prompt: '' is empty" generate $m --prompt ''
}

wrong_files() {
  refuses 3 "/no/such/folder" score --model /no/such/folder --text "$model/sample.txt"
  refuses 3 "--text: '/no/such/file' cannot be read" score --model "$model" --text /no/such/file
  refuses 3 "--text: '$scratch' is not a file" score --model "$model" --text "$scratch"
  printf '%0256d' 0 >"$scratch/short.txt"
  refuses 3 "short.txt' has 256 bytes; one window needs 257" score --model "$model" --text "$scratch/short.txt"
}

# A copy of the checkpoint in which one line of config.json differs.
wrong_config() {
  ln -s "$model/model.safetensors" "$scratch/model.safetensors"
  while IFS='|' read -r key value sentence; do
    sed "s/\"$key\": [^,]*/\"$key\": $value/" "$model/config.json" >"$scratch/config.json"
    cmp -s "$model/config.json" "$scratch/config.json" && fail "config.json has no $key"
    refuses 3 "$sentence" generate --model "$scratch" --prompt x
  done <<'CASES'
vocab_size|151936|vocab_size is 151936; this program needs 256
attention_bias|true|attention_bias is 1; this program needs 0
num_attention_heads|0|num_attention_heads is 0; the allowed range is 1 to 1024
num_key_value_heads|3|num_key_value_heads is 3; it must divide num_attention_heads, 4
head_dim|63|head_dim is 63; rotary embedding needs an even number
head_dim|32|self_attn.q_proj.weight is BF16 \[256, 256\]; expected BF16 \[128, 256\]
rope_theta|"x"|rope_theta
max_position_embeddings|0.5|max_position_embeddings is 0.5; the allowed range is 1 to
CASES
}

# damage <sed program>: a copy of the checkpoint whose tensors' file sed has changed, byte for byte.
damage() {
  cp "$model/config.json" "$scratch/config.json"
  LC_ALL=C sed "$1" "$model/model.safetensors" >"$scratch/model.safetensors"
  cmp -s "$model/model.safetensors" "$scratch/model.safetensors" && fail "sed changes nothing: $1"
}

# spoil <expert>: writes a NaN into the first weight of its up projection in layer 2.
spoil() {
  name="model.layers.2.mlp.experts.$1.up_proj.weight"
  begin=$(LC_ALL=C grep -ao "\"$name\":{[^}]*" "$model/model.safetensors" |
    sed 's/.*"data_offsets":\[\([0-9]*\),.*/\1/')
  header=$(od -An -tu8 -N8 "$model/model.safetensors" | tr -d ' ')
  printf '\377\377' | dd of="$scratch/model.safetensors" bs=1 seek=$((8 + header + begin)) \
    conv=notrunc 2>/dev/null
}

# refuses_on_three <sentence>: code 3, and that is all that three ranks say.
refuses_on_three() {
  run_lm 3 generate --model "$scratch" --prompt x
  expect_code 3
  expect_error_once "$1"
  expect_equal "$(grep -c '^lm: ' "$scratch/err")" 1 "errors in all"
}

# A checkpoint that is wrong for all ranks, for one, or for each in another way: one sentence.
wrong_tensors() {
  damage 's/layers.3.mlp.experts.31.down_proj/layers.3.mlp.experts.31.down_prok/'
  refuses_on_three "^lm: checking the model: .*tensor 'model.layers.3.mlp.experts.31.down_proj.weight' is missing"
  damage 's/\(layers.1.mlp.experts.[0-9]*.up_proj.weight":{"dtype":\)"BF16"/\1"F16" /g'
  refuses_on_three "^lm: checking the model: .*'model.layers.1.mlp.experts.0.up_proj.weight': dtype is F16; expected BF16"
  damage 's/layers.0.self_attn.q_proj/layers.0.self_attn.q_prok/'
  refuses_on_three "^lm: loading the model: .*'model.layers.0.self_attn.q_proj.weight' is missing"
  head -c 27000000 "$model/model.safetensors" >"$scratch/model.safetensors"
  refuses_on_three "^lm: opening the model: .*'data_offsets' end at .* it is cut short"
  printf '\377\377\377\377\377\377\377\177{}' >"$scratch/model.safetensors"
  refuses_on_three "^lm: opening the model: .*header length 9223372036854775807; expected at most 2"
  cp "$model/model.safetensors" "$scratch/model.safetensors"
  spoil 31
  refuses_on_three "^lm: rank 2: loading the experts: .*'model.layers.2.mlp.experts.31.up_proj.weight'.*up\[0, 0\].*finite"
  spoil 1
  spoil 15
  refuses_on_three "^lm: rank 0: loading the experts: .*experts.1.up_proj.*finite.* (2 other ranks failed too)"
}

# What a config claims costs no memory before the tensors have been seen to be as large.
config_costs_nothing() {
  ln -s "$model/model.safetensors" "$scratch/model.safetensors"
  sed -e 's/"hidden_size": [^,]*/"hidden_size": 1048576/' \
    -e 's/"moe_intermediate_size": [^,]*/"moe_intermediate_size": 1048576/' \
    -e 's/"num_experts": [^,]*/"num_experts": 65534/' "$model/config.json" >"$scratch/config.json"
  ulimit -v 8388608
  run_lm 0 generate --model "$scratch" --prompt x
  expect_code 3
  expect_error_once "shape is \[128, 256\]; expected \[1048576, 1048576\]"
}

# Ranks that find the same error say it once, without a rank; and all leave.
ranks_speak_with_one_voice() {
  run_lm 3 score --model "$model" --text "$model/sample.txt" --quant fp8
  expect_code 2
  expect_error_once "^lm: --quant: 'fp8'"
  run_lm 3 generate --model /no/such/folder
  expect_code 3
  expect_error_once "^lm: .*/no/such/folder"
  run_lm 3 --version
  expect_code 0
  expect_equal "$(wc -l <"$scratch/out")" 1 "lines of --version"
  run_lm 3 --help
  expect_code 0
  expect_equal "$(grep -c '^Exit codes' "$scratch/out")" 1 "times that --help is printed"
}

# Rank 2 alone cannot read the text: it says so, with its rank, and all ranks leave.
one_rank_fails() {
  cp "$model/sample.txt" "$scratch/text2"
  printf 'short' >"$scratch/text"
  cat >"$scratch/start" <<SCRIPT
#!/bin/sh
text=$scratch/text2
[ "\$OMPI_COMM_WORLD_RANK" -ne 2 ] || text=$scratch/text
exec "$lm" score --model "$model" --text "\$text"
SCRIPT
  chmod +x "$scratch/start"
  lm=$scratch/start
  run_lm 4
  expect_code 3
  expect_error_once "^lm: rank 2: --text: .* has 5 bytes; one window needs 257"
  expect_equal "$(grep -c '^lm: ' "$scratch/err")" 1 "errors in all"
}

# ranks_differ <sentence> <arguments of ranks 0 and 1> : <of rank 2>: all leave, at once, and one says it.
ranks_differ() {
  sentence=$1
  shift
  run_lm 2 "$@"
  expect_code 2
  expect_error_once "$sentence"
}

# What shapes the run must be the same on all ranks; how a rank does its part need not.
ranks_with_different_options_do_not_hang() {
  score="score --model $model --text $model/sample.txt"
  generate="generate --model $model --max-tokens 2"
  other=": -n 1 $lm"
  ranks_differ "^lm: rank 2 has other options than rank 0" $score $other $generate
  ranks_differ "^lm: rank 2 has other options than rank 0" $score --max-windows 3 $other $score --max-windows 2
  ranks_differ "^lm: rank 2 has other options than rank 0" $generate $other $generate --prompt Sela
  ranks_differ "^lm: rank 2 has other options than rank 0" $generate $other $generate --temperature 1
  head -c 2000 "$model/sample.txt" >"$scratch/text"
  ranks_differ "^lm: rank 2 has another text than rank 0" $score $other score --model "$model" --text "$scratch/text"
  mkdir "$scratch/other" # of the same shape, with one byte of a weight changed
  cp "$model/config.json" "$model/model.safetensors" "$scratch/other"
  printf '\001' | dd of="$scratch/other/model.safetensors" bs=1 seek=900000 conv=notrunc 2>/dev/null
  ranks_differ "^lm: rank 2 has another checkpoint than rank 0" $score $other score --model "$scratch/other" --text "$model/sample.txt"
  run_lm 2 $score --max-windows 1 --threads 2 $other $score --max-windows 1 --chunk-rows 9 --timeout 60
  expect_code 0
}

# A rank that stops in mid-run is named within the timeout, and nobody waits for ever.
stopped_rank_is_named() {
  cat >"$scratch/start" <<SCRIPT
#!/bin/sh
echo \$\$ >"$scratch/pid.\$OMPI_COMM_WORLD_RANK"
exec "$lm" generate --model "$model" --prompt 'In the ' --max-tokens 500 --timeout 5
SCRIPT
  chmod +x "$scratch/start"
  : >"$scratch/out" # the loop below may look before mpirun's redirection makes it
  $mpirun 3 "$scratch/start" >"$scratch/out" 2>"$scratch/err" </dev/null &
  job=$!
  ran="world 3, rank 1 stopped"
  tries=0
  while [ "$(wc -c <"$scratch/out")" -lt 60 ] && [ $tries -lt 600 ]; do
    sleep 0.05
    tries=$((tries + 1))
  done
  kill -STOP "$(cat "$scratch/pid.1")" || fail "rank 1 had ended before it could be stopped"
  wait $job
  code=$?
  expect_code 4
  grep -q '^lm: rank [02]: .*rank 1' "$scratch/err" || {
    fail "nobody names rank 1"
    cat "$scratch/err"
  }
}

"$@"
finish
