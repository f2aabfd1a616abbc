#!/bin/sh
# Which lines of the GPU path the emulator's tests run: tests/simt/coverage.sh [build folder]. Builds with
# gcov's counters, runs the tests labelled simt that are not slow, and prints a table: lines, and those
# that never ran. Fails below 95 % of all.
#
# Not counted, since no emulator runs them: bodies for nvcc, which are in another branch of an #if.
set -eu
cd "$(dirname "$0")/../.."
build=${1:-build/coverage}
export CCACHE_DISABLE=1

cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Debug -DCMAKE_C_FLAGS="--coverage -O1" \
  -DCMAKE_CXX_FLAGS="--coverage -O1" -DCMAKE_EXE_LINKER_FLAGS=--coverage >/dev/null
targets=$(ninja -C "$build" -t targets all |
  sed -n 's#^bin/\([a-z0-9_]*_simt\|test_simt_[a-z_]*\|test_ptx_[a-z0-9_]*\): .*#\1#p' | grep -v asan)
cmake --build "$build" --target $targets -- --quiet
find "$build" -name '*.gcda' -delete
ctest --test-dir "$build" -L simt -LE slow -E '_asan\.|nvcc|shared' -j "$(nproc)" --output-on-failure \
  </dev/null || echo "some tests failed: lines that they would have run are missing below"

find "$build" -name '*.gcda' | xargs gcov --json-format --stdout 2>/dev/null | python3 -c '
import collections, json, os, sys

lines = collections.defaultdict(lambda: collections.defaultdict(int))
for text in sys.stdin:
    for unit in json.loads(text)["files"]:
        name = os.path.relpath(os.path.join(sys.argv[1], unit["file"]), sys.argv[1])
        name = os.path.relpath(os.path.realpath(os.path.join(sys.argv[2], unit["file"])), sys.argv[1])
        if name.startswith("kernels/cuda/") or name == "comm/nccl.c":
            for line in unit["lines"]:
                lines[name][line["line_number"]] += line["count"]
total = ran = 0
for name in sorted(lines):
    never = sorted(n for n, count in lines[name].items() if count == 0)
    total += len(lines[name])
    ran += len(lines[name]) - len(never)
    share = 100.0 * (len(lines[name]) - len(never)) / len(lines[name])
    print("%6.1f %%  %4d lines  %s%s" % (share, len(lines[name]), name,
          "  never: " + ", ".join(map(str, never)) if never else ""))
print("%6.1f %%  %4d lines  all" % (100.0 * ran / total, total))
sys.exit(ran < 0.95 * total)
' "$PWD" "$PWD/$build"
