#!/bin/sh
# The device code of the tests compiles for a GPU, with every warning an error and no spills:
#
#   check_nvcc.sh <repository> <nvcc> <architecture, as in compute_> [sources...]
#   check_nvcc.sh <repository> <nvcc> refused [sources...]   for targets that lack the instructions
#
# Skipped (77), and said so, where nvcc is "" or absent.
set -eu
repository=$1
nvcc=$2
architecture=$3
shift 3

if ! command -v "$nvcc" >/dev/null 2>&1; then
  echo "skipped: nvcc, which compiles for GPUs, is not on this machine"
  exit 77
fi

cd "$repository"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# compile <gencode> <source>: into $log
compile() {
  "$nvcc" -std=c++17 -I . -gencode "$1" -fmad=false -Werror all-warnings \
    -Xptxas -v,-warn-spills,-warn-lmem-usage -Xcompiler -Wall,-Wextra \
    -cubin -o /dev/null "$2" >"$log" 2>&1
}

failed=0
for source in "$@"; do
  if [ "$architecture" = refused ]; then
    for gencode in arch=compute_120,code=sm_120 arch=compute_120,code=sm_120a; do
      if compile "$gencode" "$source" || ! grep -q 'Compile for the family' "$log"; then
        echo "$source: $gencode should be refused, and the family named:"
        cat "$log"
        failed=1
      fi
    done
    continue
  fi
  if ! compile "arch=compute_$architecture,code=sm_$architecture" "$source"; then
    echo "$source does not compile for $architecture:"
    cat "$log"
    failed=1
    continue
  fi
  kernels=$(grep -c 'Compiling entry function' "$log" || true)
  if [ "$kernels" -eq 0 ]; then
    echo "$source: nvcc reports no kernel; is its report another one now?"
    cat "$log"
    failed=1
  elif grep 'bytes spill' "$log" | grep -vq ' 0 bytes spill stores, 0 bytes spill loads'; then
    echo "$source: spills on $architecture:"
    grep -B 2 'bytes spill' "$log"
    failed=1
  else
    echo "$source: $kernels kernels for $architecture, at most" \
      "$(sed -n 's/.*Used \([0-9]*\) registers.*/\1/p' "$log" | sort -n | tail -1) registers, no spills"
  fi
done
exit $failed
