#!/bin/sh
# Programs that embed the library compile without CUDA's or NCCL's headers: check_no_cuda.sh <C compiler>
# <repository> [flags...]
set -eu
cc=$1
repository=$2
shift 2
failed=0
for source in "$repository"/examples/embed/*.c "$repository"/examples/lm/*.c \
  "$repository"/launch/gpus_cuda.c; do
  included=$("$cc" -std=c11 -D_DEFAULT_SOURCE -fopenmp -M -I"$repository" -I"$repository/runtime" "$@" "$source")
  if echo "$included" | tr ' ' '\n' | grep -E '/(cuda[a-z_]*|nccl|driver_types|vector_types)\.h$'; then
    echo "$source includes these"
    failed=1
  fi
done
exit $failed
