#!/usr/bin/env bash
# Where the time of `true` on a connected host goes, in the hub: perf where the machine allows it, else callgrind's
# counts of instructions. Both slow the hub down: what the benchmark says meanwhile is no measurement.
#   scripts/profile.sh DIR                       DIR: the programs, built with symbols
#   PROFILER=callgrind scripts/profile.sh DIR    counts instead of samples
set -euo pipefail

programs="${1:?name the directory of the programs}"
out="$(mktemp -d "${TMPDIR:-/tmp}/dc-profile-XXXXXX")"

profiler="${PROFILER:-}"
if [ -z "$profiler" ]; then
  profiler=callgrind
  if command -v perf >/dev/null 2>&1 && perf record -q -o "$out/probe" -- true >/dev/null 2>&1; then
    profiler=perf
  fi
fi
case "$profiler" in
  perf) under="perf record -q -g -o $out/hub.perf --" ;;
  callgrind) under="valgrind --quiet --tool=callgrind --callgrind-out-file=$out/hub.callgrind" ;;
  *) echo "PROFILER is perf or callgrind, not '$profiler'" >&2; exit 2 ;;
esac
echo "the hub runs under $profiler: the times that follow are no measurement"
"$programs/datacentered-bench" --quick --only command --programs "$programs" --hub-under "$under"

# sed reads to the end, so that nothing before it fails on a closed pipe.
if [ -s "$out/hub.perf" ]; then
  perf report -i "$out/hub.perf" --no-children -g none --stdio --percent-limit 0.5 2>/dev/null | sed -n 1,80p
elif [ -s "$out/hub.callgrind" ]; then
  callgrind_annotate "$out/hub.callgrind" | sed -n 1,70p
else
  echo "the profiler left nothing behind in $out" >&2
  exit 1
fi
echo "all of it: $out"
