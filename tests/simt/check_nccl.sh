#!/bin/sh
# comm/nccl.c against the real headers and libraries: compiles without warnings, and leaves nothing
# unresolved that NCCL and CUDA must give: check_nccl.sh <repository> <C compiler> <folder for outputs>.
# Skipped, and says so, where they are not installed. NCCL_HOME and CUDA_HOME may say where they are.
set -eu
repository=$1 compiler=$2 folder=$3

# The first of the folders that has this file.
find_in() {
  name=$1
  shift
  for candidate; do
    if [ -e "$candidate/$name" ]; then
      echo "$candidate"
      return
    fi
  done
}
cuda=${CUDA_HOME:-/usr/local/cuda} nccl=${NCCL_HOME:-}
cuda_include=$(find_in cuda_runtime_api.h "$cuda/include" /usr/include)
cuda_lib=$(find_in libcudart.so "$cuda/lib64" "$cuda/lib" /usr/lib/x86_64-linux-gnu)
nccl_include=$(find_in nccl.h ${nccl:+"$nccl/include"} "$cuda/include" /usr/include /usr/local/include)
nccl_lib=$(find_in libnccl.so.2 ${nccl:+"$nccl/lib"} "$cuda/lib64" "$cuda/lib" /usr/lib/x86_64-linux-gnu)
for found in "CUDA's headers:$cuda_include" "CUDA's runtime:$cuda_lib" "NCCL's header:$nccl_include" \
  "NCCL's library:$nccl_lib"; do
  if [ -z "${found#*:}" ]; then
    echo "skipped: ${found%:*} is not on this machine"
    exit 77
  fi
done
version=$(sed -n 's/^#define NCCL_VERSION_CODE *//p' "$nccl_include/nccl.h")
if [ "$version" -lt 22800 ]; then
  echo "skipped: NCCL here is version $version; 22800 or later is needed"
  exit 77
fi

mkdir -p "$folder"
$compiler -std=c11 -D_DEFAULT_SOURCE -fPIC -O2 -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow \
  -Werror -I "$repository" -isystem "$nccl_include" -isystem "$cuda_include" \
  -c "$repository/comm/nccl.c" -o "$folder/nccl.o"
$compiler -shared "$folder/nccl.o" -o "$folder/libnccl_transport.so" "$nccl_lib/libnccl.so.2" \
  "$cuda_lib/libcudart.so"
missing=$(nm -D --undefined-only "$folder/libnccl_transport.so" | sed -n 's/.* U \(nccl\|cuda\)/\1/p' |
  sed 's/@.*//' | while read -r symbol; do
    nm -D --defined-only "$nccl_lib/libnccl.so.2" "$cuda_lib/libcudart.so" |
      grep -qE " [TWVi] $symbol(@.*)?\$" || echo "$symbol"
  done)
if [ -n "$missing" ]; then
  echo "neither NCCL nor CUDA has: $missing"
  exit 1
fi
echo "comm/nccl.c links against NCCL $version"
