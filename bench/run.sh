#!/bin/sh
# Builds the benchmark, runs it, prints a Markdown table; the raw numbers go to a file of JSON lines.
#
#   sh bench/run.sh [--sizes 1000000,10000000] [--workloads seed,u64,counter] [--rounds 3] [--seed 1]
#                   [--engines odm,lmdb,tkrzw,rocksdb,abseil,floor] [--operations 2000000] [--turnovers 2] [--memory 0]
#                   [--phases load,reopen,killed,rebuild,parallel,outgrown,remove,batch] [--under COMMAND]
#                   [--dir PATH] [--json FILE]
#
# --operations  at most so many gets, misses, updates and removes a pass
# --turnovers   how many times everything is written again before the updates in the steady state; 0 leaves these out
# --memory      bytes that a store may use in the phase outgrown; 0 leaves it out
# --under       a command that starts each process that measures, such as "chrt -f 1"
# --dir         where the maps are made, in a directory that is removed at the end (default: $TMPDIR, else /tmp)
# --json        default: results.jsonl in the build directory
#
# What is missing is installed with apt, if there is apt and the right to use it.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/bench
engines=odm,lmdb,tkrzw,rocksdb,abseil,floor
parent=${TMPDIR:-/tmp}
json=$build/results.jsonl

usage() {
    sed -n '2,15s/^# \{0,1\}//p' "$0"
}

# Ours are taken out, all others are the runner's: "$@" is rotated once.
left=$#
while [ "$left" -gt 0 ]; do
    case $1 in
        --help) usage; exit 0 ;;
        --engines | --dir | --json | --sizes | --workloads | --rounds | --operations | --turnovers | --memory | --phases | \
            --under | --seed)
            if [ "$left" -lt 2 ]; then echo "$1 needs a value" >&2; exit 2; fi ;;
        *) usage >&2; exit 2 ;;
    esac
    case $1 in
        --engines) engines=$2 ;;
        --dir) parent=$2 ;;
        --json) json=$2 ;;
        *) set -- "$@" "$1" "$2" ;;
    esac
    shift 2
    left=$((left - 2))
done

# A map is not made on the writable layer of a container unless one insists. /dev/shm is none.
case $(stat -f -c %T "$parent") in
    overlay*)
        if [ -w /dev/shm ]; then
            echo "$parent is a layered file system: using /dev/shm instead" >&2
            parent=/dev/shm
        fi ;;
esac

packages=
need() { # need PACKAGE, then a command that succeeds if it is there
    package=$1
    shift
    "$@" > /dev/null 2>&1 || packages="$packages $package"
}
header() { # header NAME: the compiler finds it
    echo "#include <$1>" | cc -E -x c -
}
need cmake command -v cmake
need ninja-build command -v ninja
need gcc command -v cc
need libc6-dev header stdio.h
need libxxhash-dev header xxhash.h
case ,$engines, in *,lmdb,*) need liblmdb-dev header lmdb.h ;; esac
for peer in tkrzw:tkrzw:libtkrzw-dev rocksdb:rocksdb:librocksdb-dev abseil:absl_flat_hash_map:libabsl-dev; do
    engine=${peer%%:*}
    module=${peer#*:}
    case ,$engines, in
        *,"$engine",*)
            need g++ command -v c++
            need pkg-config command -v pkg-config
            need "${peer##*:}" pkg-config --exists "${module%:*}" ;;
    esac
done
case ,$engines, in *,crate,* | *,sled,* | *,redb,*) need cargo command -v cargo ;; esac
python=/usr/bin/python3 # apt's: another may not see what apt installs
need python3-matplotlib "$python" -c 'import matplotlib'
need python3-tabulate "$python" -c 'import tabulate'
if [ -n "$packages" ]; then
    if command -v apt-get > /dev/null; then
        sudo=
        if [ "$(id -u)" -ne 0 ]; then sudo=sudo; fi
        echo "installing:$packages" >&2
        # shellcheck disable=SC2086 # A list of words.
        { $sudo apt-get update -q && $sudo apt-get install -q -y --no-install-recommends $packages; } >&2 \
            || echo "could not install:$packages" >&2
    else
        echo "missing:$packages" >&2
    fi
fi

# -O2 as most users build; asserts are off in it.
{
    cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE="-O2 -DNDEBUG" \
        -DOPENDISKMAP_BUILD_BENCH=ON -DOPENDISKMAP_BENCH_ENGINES="$(echo "$engines" | tr , ';')"
    cmake --build "$build" --target bench
} >&2

directory=$(mktemp -d "$parent/odm_bench.XXXXXX")
trap 'rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM

plots=${json%.jsonl}-plots
failed=0
"$build/bench/bench_runner" --dir "$directory" --engines "$engines" --json "$json" "$@" || failed=$?
echo "raw numbers: $json" >&2
"$python" "$root/bench/table.py" "$json"
"$python" "$root/bench/plot.py" "$plots" "$json"
echo "plots: $plots" >&2
exit "$failed"
