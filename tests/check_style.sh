#!/bin/sh
# The rules of the house that no other tool checks: check_style.sh <repository> size|comments
#
#   size      functions <= 70 lines, files <= 800 lines
#   comments  the comment before each public function has every slot
#
# Both lean on clang-format's layout: a function's body ends with a brace in the first column.
set -eu
cd "$1"

case "$2" in
  size)
    find runtime comm kernels launch tests examples -name '*.[ch]' | sort | xargs awk '
      function complain(text) { print FILENAME ":" FNR ": " text; bad = 1 }
      FNR == 1         { inside = 0 }
      FNR == 801       { complain("the file is longer than 800 lines") }
      /^[^ #\/].*\(/   { head = FNR }          # where a signature may begin
      /\) \{$/ && !inside && !/^ *(if|for|while|switch) / { inside = 1; begin = head; functions++ }
      /^}/ && inside   {
        inside = 0
        if (FNR - begin + 1 > 70) complain("the function of line " begin " has " FNR - begin + 1 " lines, at most 70")
      }
      END {
        if (functions < 10) { print "only " functions " functions found: the check is broken"; bad = 1 }
        exit bad
      }'
    ;;
  comments)
    awk '
      /\/\*/           { text = ""; open = 1 }
      open             { text = text " " $0 }
      /\*\//           { open = 0 }
      /^SY_API/        {
        functions++
        for (i = 1; i <= n; i++) {
          if (text !~ "[^a-z]" slot[i] "[^a-z.;]*[:,]") {
            print FILENAME ":" FNR ": the comment has no slot \"" slot[i] ":\""; bad = 1
          }
        }
      }
      BEGIN { n = split("shapes memory units ownership order scope threads errors", slot, " ") }
      END {
        if (functions < 10) { print "only " functions " functions found: the check is broken"; bad = 1 }
        exit bad
      }' runtime/switchyard*.h
    ;;
esac
