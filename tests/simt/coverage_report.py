"""Lines of kernels/cuda and comm/nccl.c that a build with gcov's counters ran: coverage_report.py
<repository> <build folder>. Prints a table with the lines that never ran; fails below 95 % of all."""
import collections
import json
import os
import subprocess
import sys

root, build = (os.path.realpath(path) for path in sys.argv[1:3])
lines = collections.defaultdict(lambda: collections.defaultdict(int))
for folder, _, names in os.walk(build):
    for name in names:
        if not name.endswith(".gcda"):
            continue
        text = subprocess.run(["gcov", "--json-format", "--stdout", os.path.join(folder, name)],
                              cwd=build, check=True, capture_output=True, text=True).stdout
        for report in text.splitlines():
            for unit in json.loads(report)["files"]:
                path = os.path.realpath(os.path.join(build, unit["file"]))
                source = os.path.relpath(path, root)
                if source.startswith("kernels/cuda/") or source == "comm/nccl.c":
                    for line in unit["lines"]:
                        lines[source][line["line_number"]] += line["count"]
total = ran = 0
for source in sorted(lines):
    never = sorted(number for number, count in lines[source].items() if count == 0)
    here = len(lines[source])
    total += here
    ran += here - len(never)
    tail = "  never: " + ", ".join(map(str, never)) if never else ""
    print(f"{100 * (here - len(never)) / here:6.1f} %  {here:4d} lines  {source}{tail}")
print(f"{100 * ran / max(total, 1):6.1f} %  {total:4d} lines  all")
sys.exit(total == 0 or ran < 0.95 * total)
