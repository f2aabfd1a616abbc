#!/bin/sh
# Builds and runs the consumer with what pkg-config says:
# pkg_config.sh <folder of the .pc files> <scratch folder> <C compiler> <C++ compiler> <package>
set -eu
export PKG_CONFIG_PATH="$1"
scratch=$2
cc=$3
cxx=$4
package=$5
source=$(dirname "$0")/consumer.c

definition=
[ "$package" = switchyard ] || definition=-DCONSUMER_MPI
flags="-Wall -Wextra -Werror $definition $(pkg-config --cflags "$package")"
libs=$(pkg-config --libs "$package")
pkg-config --exact-version="$(pkg-config --modversion switchyard)" "$package"

# In C++ -Wextra warns of every initialiser that leaves the rest to be zero.
# shellcheck disable=SC2086 # words, not one argument each
{
  "$cc" -std=c11 $flags "$source" $libs -o "$scratch/$package-c11"
  "$cxx" -std=c++17 $flags -Wno-missing-field-initializers -x c++ "$source" -x none $libs -o "$scratch/$package-cxx17"
}
"$scratch/$package-c11"
"$scratch/$package-cxx17"
