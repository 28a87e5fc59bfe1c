#!/bin/sh
# From a fresh Debian 12 to a running map: installs what is missing, builds, and puts all of Unicode on disk.
#
# Besides the packages it installs, everything it makes is in build/quickstart. Run it again: the map is still there.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
build=$root/build/quickstart
map=$build/unicode.map
data=/usr/share/unicode/UnicodeData.txt
log=$build/quickstart.log
mkdir -p "$build"
: > "$log"

step() {
    printf '\n%s\n' "$1"
}

# Runs a command silently; if it fails, shows what it printed and stops.
quietly() {
    "$@" > "$log" 2>&1 && return 0
    cat "$log" >&2
    echo "quickstart: this failed: $*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        quietly env DEBIAN_FRONTEND=noninteractive "$@"
    elif command -v sudo > /dev/null; then
        sudo -v # Asks for the password here, where it is seen.
        quietly sudo env DEBIAN_FRONTEND=noninteractive "$@"
    else
        echo "quickstart: root is needed to install:$missing" >&2
        exit 1
    fi
}

install_missing() {
    missing=
    command -v cmake > /dev/null || missing="$missing cmake"
    command -v make > /dev/null || missing="$missing make"
    command -v gcc > /dev/null || missing="$missing gcc"
    command -v pkg-config > /dev/null || missing="$missing pkg-config"
    [ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
    [ -e /usr/include/xxhash.h ] || missing="$missing libxxhash-dev"
    [ -e "$data" ] || missing="$missing unicode-data"
    command -v luajit > /dev/null || missing="$missing luajit"
    command -v node > /dev/null || missing="$missing nodejs"
    [ -e /usr/include/node/node_api.h ] || missing="$missing libnode-dev"
    if [ -z "$missing" ]; then
        echo "   nothing is missing"
        return 0
    fi
    if ! command -v apt-get > /dev/null; then
        echo "quickstart: this system has no apt-get; install the counterparts of:$missing" >&2
        exit 1
    fi
    echo "   installing:$missing"
    as_root apt-get update
    # Without word splitting there would be one package with blanks in its name.
    # shellcheck disable=SC2086
    as_root apt-get install --yes --no-install-recommends $missing
}

build_program() {
    # Make, not the preset's Ninja: one package less to install. Warnings of a newer compiler should not stop anybody here.
    quietly cmake -S "$root" --preset release -B "$build" -G "Unix Makefiles" -DCMAKE_COMPILE_WARNING_AS_ERROR=OFF \
        -DOPENDISKMAP_BUILD_TESTS=OFF -DOPENDISKMAP_BUILD_BENCH=OFF -DOPENDISKMAP_BUILD_EXAMPLES=ON
    quietly cmake --build "$build" --target example_unicode --target node_package --parallel "$(nproc)"
    unicode=$build/examples/unicode
    echo "   library, example program and package for Node.js are in ${build#"$root"/}"
}

# Each of these is a process of its own: what one of them finds, another one has left on disk.
unicode() {
    "$unicode" -m "$map" -f "$data" "$@"
}

# Left out where there is no Go that is new enough: Debian 12 itself has none.
go_on_the_same_maps() {
    if ! command -v go > /dev/null || ! go env GOVERSION | grep -Eq '^go1\.(2[4-9]|[3-9][0-9])'; then
        echo "   left out: Go 1.24 or newer is not installed"
        return 0
    fi
    quietly cmake --build "$build" --target opendiskmap_static --parallel "$(nproc)"
    rm -f "$build/unicode_go" # Go would not see that the library is another one.
    quietly env -C "$root/examples/go" CGO_LDFLAGS="-L$build/core" GOTOOLCHAIN=local \
        go build -buildvcs=false -o "$build/unicode_go" ./unicode
    "$build/unicode_go" "$map" U+1F600 SNOWMAN 'greek small letter omega'
    "$build/unicode_go" "$map"
    "$build/unicode_go" "$map" watch > "$build/watch.log" &
    until [ -s "$build/watch.log" ]; do sleep 0.05; done
    unicode live > /dev/null # The C program writes, once more.
    wait
    cat "$build/watch.log"
}

echo "opendiskmap: a hash map that is a directory on disk"

step "1. Packages"
install_missing

step "2. Build"
build_program

step "3. Put all named characters of Unicode into two maps"
unicode load

step "4. That program has ended. Another one looks some up, by code point and by name"
unicode U+1F600 SNOWMAN 'greek small letter omega' U+D55C BELL

step "5. One process writes, another one reads, on one map at the same time; and LuaJIT, too"
unicode_lua() {
    LUA_PATH="$root/bindings/luajit/?.lua" LUA_CPATH="$build/core/?.so" luajit "$root/examples/luajit/unicode.lua" "$map" "$@"
}
: > "$build/lua.log"
unicode_lua live > "$build/lua.log" &
lua=$!
until grep -q ready "$build/lua.log"; do
    kill -0 $lua || exit 1
    sleep 0.1
done
unicode live
while kill -0 $lua 2> /dev/null; do # All of it took less than a millisecond: perhaps the reader had no processor just then.
    unicode live > /dev/null
done
wait $lua
grep seen "$build/lua.log"
unicode_lua U+1F680 'BLACK CHESS KNIGHT'

step "6. Every entry compared with the file, and what it cost"
unicode cost

step "7. Go, live on the same maps"
go_on_the_same_maps

step "8. Node.js on the same maps: what it writes, C reads, and the other way round"
NODE_PATH=$build/node_modules
export NODE_PATH
in_node() {
    node "$root/examples/node/unicode.js" "$map" "$@"
}
in_node lookup U+1F600 snowman
in_node name U+F8FF 'WRITTEN BY NODE.JS'
unicode U+F8FF
in_node forget U+F8FF
in_node cost

step "9. Four workers of Node.js answer from one map; beside it, what a copy in each would take"
node "$root/examples/node/workers.js" "$build/pages.map" | sed 's/^/   /'

step "10. What next, in $root"
program=${unicode#"$root"/}
directory=${map#"$root"/}
cat <<EOF
   look something up      $program -m $directory "black chess queen" U+2655
   run this again         the maps are there already, and are only opened
   start afresh           rm -r $directory
   read the program       examples/unicode/unicode.c, and the short ones in examples/c
   use it in Node.js      bindings/node/README.md, examples/node; NODE_PATH=build/quickstart/node_modules finds the package
   run all tests          sh tests/run.sh
   use it in C            README.md, and include/opendiskmap.h, which documents every function
   use it in LuaJIT       bindings/luajit/README.md
   use it in Go           bindings/go/README.md, and the programs in examples/go
EOF
