#!/bin/sh
# Builds the package for Node.js and runs bench/node/run.js: opendiskmap, lmdb-js, classic-level, better-sqlite3 and Map.
#
#   sh bench/node/run.sh [--count 1000000] [--rounds 3] [--engines odm,lmdb,...] [--seed 1] [--dir /tmp]
#                         [--clock wall|cpu] [--warm 2048]
#
# The others come from npm, into build/bench-node. better-sqlite3 has no binary in its package and is compiled there.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
others=$root/build/bench-node

if [ ! -e "$others/node_modules" ]; then
    mkdir -p "$others"
    cp "$root/bench/node/package.json" "$others"
    npm install --prefix "$others" --ignore-scripts --no-audit --no-fund >&2
    npm_config_nodedir=${npm_config_nodedir:-/usr} npm rebuild --prefix "$others" --build-from-source better-sqlite3 >&2
fi
cmake -S "$root" -B "$root/build/release" --preset release > /dev/null
cmake --build "$root/build/release" --target node_package > /dev/null
NODE_PATH=$root/build/release/node_modules:$others/node_modules exec node "$root/bench/node/run.js" "$@"
