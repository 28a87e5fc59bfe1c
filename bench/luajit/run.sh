#!/bin/sh
# What the LuaJIT binding costs: builds the library with -O2 and runs bench.lua over it, in a folder that is removed.
#
#   sh bench/luajit/run.sh [--dir PATH] [ENTRIES [SLICES]]      default: 10,000 and then 1,000,000 entries
#
# Needs luajit, cmake and a C compiler; LMDB (liblmdb0) is left out where it is not installed.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
build=$root/build/bench
parent=${TMPDIR:-/tmp}
if [ "${1:-}" = --dir ]; then
    parent=$2
    shift 2
fi
# A map is not made on the writable layer of a container unless one insists. /dev/shm is none.
case $(stat -f -c %T "$parent") in
    overlay*) if [ -w /dev/shm ]; then parent=/dev/shm; fi ;;
esac

{
    cmake -S "$root" -B "$build" -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE="-O2 -DNDEBUG"
    cmake --build "$build" --target opendiskmap
} >&2

export LUA_PATH="$root/bindings/luajit/?.lua" LUA_CPATH="$build/core/?.so"
run() {
    directory=$(mktemp -d "$parent/odm_bench.XXXXXX")
    trap 'rm -rf "$directory"' EXIT
    trap 'exit 1' HUP INT TERM
    luajit "$root/bench/luajit/bench.lua" "$directory" "$@"
    rm -rf "$directory"
}
if [ $# -gt 0 ]; then
    run "$@"
else
    run 10000
    echo
    run 1000000
fi
