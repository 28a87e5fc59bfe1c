#!/bin/sh
# Prints how many instructions one get and one put take: two runs under callgrind with different numbers of calls, and
# the difference of their counts divided by that of the calls. Unlike a time it is the same on every run.
#
#   sh bench/instructions.sh [PROGRAM]    default: bench_get_cost of the build that bench/run.sh made
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
program=${1:-$root/build/bench/bench/bench_get_cost}
few=20000
many=120000

if [ ! -x "$program" ]; then
    echo "there is no $program: run bench/run.sh first" >&2
    exit 1
fi
if ! command -v valgrind > /dev/null; then
    sudo=
    if [ "$(id -u)" -ne 0 ]; then sudo=sudo; fi
    $sudo apt-get install -q -y --no-install-recommends valgrind >&2
fi

directory=$(mktemp -d "${TMPDIR:-/tmp}/odm_instructions.XXXXXX")
trap 'rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM

# instructions OPTION N: all instructions of a run with N calls
instructions() {
    rm -rf "$directory/map"
    mkdir "$directory/map"
    if ! valgrind --tool=callgrind --callgrind-out-file="$directory/out" \
        "$program" --dir "$directory/map" "$1" "$2" > "$directory/log" 2>&1; then
        cat "$directory/log" >&2
        exit 1
    fi
    sed -n 's/^\(summary\|totals\): *\([0-9]*\).*/\2/p' "$directory/out" | head -n 1
}

for call in get put; do
    low=$(instructions "--${call}s" $few)
    high=$(instructions "--${call}s" $many)
    awk -v call=$call -v low="$low" -v high="$high" -v calls=$((many - few)) \
        'BEGIN { printf "%s: %.1f instructions\n", call, (high - low) / calls }'
done
