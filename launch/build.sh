#!/bin/sh
# Sets up, configures and builds one preset: launch/build.sh [preset], release unless named.
# A second run skips what is done.
set -eu
cd "$(dirname "$0")/.."
preset=${1:-release}

launch/setup.sh
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset"
