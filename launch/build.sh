#!/bin/sh
# Sets up, configures and builds: launch/build.sh [preset [target...]]; release, all targets unless
# named. A second run skips what is done.
set -eu
cd "$(dirname "$0")/.."
preset=${1:-release}
[ $# -eq 0 ] || shift

launch/setup.sh
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset" --target "${@:-all}"
