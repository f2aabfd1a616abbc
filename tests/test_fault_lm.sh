#!/bin/sh
# One rank of a whole program runs out of memory: it is named, with what there was no room for, and
# all ranks end at once:
#   test_fault_lm.sh <switchyard-run> <lm> <folder of a checkpoint> "<mpirun ... -n>" <case>
run=$1 lm=$2 checkpoint=$3 mpirun=$4
shift 4
. "$(dirname "$0")/test_fault_support.sh"
MiB=1048576

# A model of one layer whose weights are holes in a file: write_model <hidden> <intermediate>.
# Eighteen experts; of the rest only what lm reads first.
write_model() {
  mkdir -p "$scratch/model"
  cat >"$scratch/model/config.json" <<JSON
{"model_type": "qwen3_moe", "hidden_size": $1, "moe_intermediate_size": $2, "num_experts": 18,
 "num_experts_per_tok": 2, "num_hidden_layers": 1, "vocab_size": 256, "num_attention_heads": 1,
 "num_key_value_heads": 1, "head_dim": 64, "hidden_act": "silu", "rms_norm_eps": 1e-6,
 "rope_theta": 10000, "max_position_embeddings": 64, "norm_topk_prob": true,
 "tie_word_embeddings": true, "attention_bias": false}
JSON
  at=0 header=
  add_tensor model.embed_tokens "256,$1" $((512 * $1))
  add_tensor model.norm "$1" $((2 * $1))
  for expert in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17; do
    add_tensor model.layers.0.mlp.experts.$expert.gate_proj "$2,$1" $((2 * $1 * $2))
    add_tensor model.layers.0.mlp.experts.$expert.up_proj "$2,$1" $((2 * $1 * $2))
    add_tensor model.layers.0.mlp.experts.$expert.down_proj "$1,$2" $((2 * $1 * $2))
  done
  header="{${header#,}}"
  {
    printf "\\$(printf %o $((${#header} % 256)))\\$(printf %o $((${#header} / 256)))\0\0\0\0\0\0"
    printf %s "$header"
  } >"$scratch/model/model.safetensors"
  truncate -s $((8 + ${#header} + at)) "$scratch/model/model.safetensors"
}

# add_tensor <name> <shape> <bytes>
add_tensor() {
  end=$((at + $3))
  header="$header,\"$1.weight\":{\"dtype\":\"BF16\",\"shape\":[$2],\"data_offsets\":[$at,$end]}"
  at=$end
}

# Leaves in $limit the address space that a rank needs without a large model, in bytes.
measure_rank() {
  cat >"$scratch/measured" <<'SH'
#!/bin/sh
"$@" &
while peak=$(grep VmPeak: "/proc/$!/status" 2>&1); do echo "$peak" && sleep 0.02; done >&2
wait $!
SH
  chmod +x "$scratch/measured"
  run_job $mpirun 2 "$scratch/measured" "$lm" generate --model "$checkpoint" --prompt x --max-tokens 20
  expect_code 0
  limit=$(awk '/^VmPeak:/ && $2 > most { most = $2 } END { printf "%.0f", most * 1024 }' "$scratch/err")
  [ "$limit" -gt 0 ] || fail "no address space was measured"
  if [ "$limit" -gt $((1 << 40)) ]; then
    echo "SKIP: a sanitizer's shadow is larger than any limit"
    exit 77
  fi
}

# starved <bytes> <what rank 1 says>: it has so much room.
starved() {
  cat >"$scratch/starved" <<'SH'
#!/bin/sh
limit=$1
shift
[ "$OMPI_COMM_WORLD_RANK" -ne 1 ] || ulimit -v $((limit / 1024)) || exit 99
exec "$@"
SH
  chmod +x "$scratch/starved"
  for launcher in "$run --deadline 40 -n" "$mpirun"; do
    run_job $launcher 3 "$scratch/starved" "$1" "$lm" generate --model "$scratch/model" --prompt x \
      --quant bf16
    expect_code 1
    expect_within 30000 # 1 s on a quiet machine
    expect_times 1 '^lm: '
    expect_said "^lm: rank 1: $2"
    [ ! -s "$scratch/out" ] || fail "something is on standard output"
    expect_nothing_left
  done
}

# Six experts of 384 MiB: more than the limit by themselves, whatever else the rank needs.
create() {
  measure_rank
  write_model 1024 65536
  starved $((limit + 2048 * MiB)) 'making room for the experts: [0-9]* bytes .* cannot be allocated$'
}

# There is room for the experts, 72 MiB, and not for the embedding: 64 MiB, and twice that as f32.
load() {
  measure_rank
  write_model 131072 16
  starved $((limit + 168 * MiB)) 'loading the model: out of memory for model.embed_tokens'
}

"$@"
finish
