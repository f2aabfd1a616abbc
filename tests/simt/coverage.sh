#!/bin/sh
# Which lines of the GPU path the emulator's tests run: tests/simt/coverage.sh [build folder]. Builds with
# gcov's counters, runs the tests labelled simt, and prints a table; fails below 95 %. Not counted are
# bodies for nvcc (PTX), which are in another branch of an #if and run on a GPU only.
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build/coverage}

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS="--coverage -O1 -w" \
  -DCMAKE_CXX_FLAGS="--coverage -O1 -w" -DCMAKE_EXE_LINKER_FLAGS=--coverage >/dev/null
targets=$(ninja -C "$build" -t targets all |
  sed -n 's#^bin/\([a-z0-9_]*_simt\|test_simt_[a-z_]*\|test_ptx_[a-z0-9_]*\): .*#\1#p' | grep -v asan)
# shellcheck disable=SC2086 # one word each
cmake --build "$build" --target $targets -- --quiet
find "$build" -name '*.gcda' -delete
ctest --test-dir "$build" -L simt -LE slow -E '_asan\.|^nvcc|^nccl' -j "$(nproc)" </dev/null ||
  echo "some tests failed: lines that they would have run are missing below"
python3 tests/simt/coverage_report.py . "$build"
