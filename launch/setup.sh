#!/bin/sh
# Makes sure that the Debian packages are there which the project needs.
#
#   launch/setup.sh          to build, run and test
#   launch/setup.sh ci       and what .ci/run needs beyond that
#
# Installs what is missing when root; otherwise prints the command that does, and fails. Touches
# nothing else. When nothing is missing it takes a moment.
set -eu

packages="gcc g++ libc6-dev cmake ninja-build pkg-config libjansson-dev libhwloc-dev"
packages="$packages libopenmpi-dev openmpi-bin libboost-context-dev iproute2 nftables"

case "${1:-}" in
  "") ;;
  ci)
    packages="$packages clang clang-format clang-tidy libomp-dev"
    packages="$packages gcc-aarch64-linux-gnu qemu-user"
    ;;
  *)
    echo "launch/setup.sh: \"$1\" is not a set of packages: give none, or ci" >&2
    exit 2
    ;;
esac

if ! command -v dpkg-query >/dev/null 2>&1; then
  echo "launch/setup.sh: this is not Debian; going on in the hope that these are there: $packages" >&2
  exit 0
fi

missing=
for package in $packages; do
  state=$(dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null || true)
  case "$state" in
    ii*) ;;
    *) missing="$missing $package" ;;
  esac
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
  echo "These packages are missing; this installs them:" >&2
  echo "  sudo apt-get update" >&2
  echo "  sudo apt-get install -y --no-install-recommends$missing" >&2
  exit 1
fi

echo "Installing:$missing"
export DEBIAN_FRONTEND=noninteractive
apt_get() { apt-get -qq -o DPkg::Lock::Timeout=300 "$@" </dev/null >/dev/null; }
apt_get update || echo "Going on: what is already known may do." >&2
# shellcheck disable=SC2086 # words, not one argument
apt_get install -y --no-install-recommends $missing
