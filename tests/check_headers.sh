#!/bin/sh
# Each header compiles alone: check_headers.sh <repository> c|cxx <compiler> [flags]
#
#   c     every header, as C11
#   cxx   the public headers, as C++17
set -eu
cd "$1"
language=$2
compiler=$3
shift 3

case "$language" in
  c) set -- -x c -std=c11 -D_DEFAULT_SOURCE -Wstrict-prototypes "$@" ;;
  cxx) set -- -x c++ -std=c++17 "$@" ;;
esac

headers=$(ls runtime/switchyard*.h)
[ "$language" = cxx ] || headers=$(find runtime comm kernels launch tests examples -name '*.h' | sort)

failed=0
for header in $headers; do
  # As users include it: not as the main file, where some warnings behave otherwise.
  echo "#include \"$header\"" |
    "$compiler" "$@" -Wall -Wextra -Wundef -Werror -pedantic -fsyntax-only -I . -I runtime - ||
    { echo "$header does not compile alone" >&2; failed=1; }
done
exit $failed
