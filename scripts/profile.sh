#!/usr/bin/env bash
# Where the time of `true` on a connected host goes, in the hub: perf where the machine allows it, else callgrind's
# counts of instructions. What is shown on top is not the time of a run: both slow the hub down.
#   scripts/profile.sh DIR   the directory of the programs, built with symbols
set -euo pipefail

programs="${1:?name the directory of the programs}"
out="$(mktemp -d "${TMPDIR:-/tmp}/dc-profile-XXXXXX")"

if command -v perf >/dev/null 2>&1 && perf record -q -o "$out/probe" -- true >/dev/null 2>&1; then
  under="perf record -q -g -o $out/hub.perf --"
else
  # The whole tree is followed, so that a hub that starts another process is counted too.
  under="valgrind --quiet --tool=callgrind --callgrind-out-file=$out/hub.callgrind"
fi
"$programs/datacentered-bench" --quick --only command --programs "$programs" --hub-under "$under"

if [ -s "$out/hub.perf" ]; then
  perf report -i "$out/hub.perf" --no-children --stdio --percent-limit 1 2>/dev/null | head -n 80
elif [ -s "$out/hub.callgrind" ]; then
  callgrind_annotate "$out/hub.callgrind" | head -n 60
else
  echo "the profiler left nothing behind in $out" >&2
  exit 1
fi
echo "all of it: $out"
