# The binding as its users get it, each time in an empty folder: by `luarocks make` from the source tree, by a source rock, and as
# Lua files beside a library that CMake has installed.
#
#   sh test_packages.sh BUILD_FOLDER CMAKE
set -eu

build=$1
cmake=$2
here=$(cd "$(dirname "$0")" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/home" "$work/empty"
export HOME="$work/home" # LuaRocks keeps things there.
unset LUA_PATH LUA_CPATH LD_LIBRARY_PATH

# A map is not made on the writable layer of a container unless one insists. /dev/shm is none.
maps=$work
case $(stat -f -c %T "$work") in
    overlay*) maps=$(mktemp -d /dev/shm/odm_lua.XXXXXX); trap 'rm -rf "$work" "$maps"' EXIT ;;
esac

# use NAME VARIABLE=VALUE...: the second run finds what the first has put.
use() {
    name=$1
    shift
    for run in 1 2; do
        found=$(cd "$work/empty" && env "$@" luajit "$here/spec/consumer.lua" "$maps/$name.map") || exit 1
        [ "$found" = "run $run, $name" ] || { echo "$name: $found"; exit 1; }
    done
    echo "$name: used"
}

quietly() {
    "$@" > "$work/log" 2>&1 || { cat "$work/log"; echo "failed: $*"; exit 1; }
}

cd "$here/../.."
quietly luarocks make --tree "$work/tree" bindings/luajit/opendiskmap-scm-1.rockspec
use tree "LUA_PATH=$work/tree/share/lua/5.1/?.lua" "LUA_CPATH=$work/tree/lib/lua/5.1/?.so"

quietly sh "$here/pack.sh" "$work/rock" "$cmake"
cd "$work/empty"
quietly luarocks install --tree "$work/rocks" "$work"/rock/*.src.rock
use rocks "LUA_PATH=$work/rocks/share/lua/5.1/?.lua" "LUA_CPATH=$work/rocks/lib/lua/5.1/?.so"
[ -f "$(find "$work/rocks" -name LICENSE.xxhash)" ]
exported=$(nm -D --defined-only "$work/rocks/lib/lua/5.1/opendiskmap/native.so" | grep -v ' odm_[a-z]' || true)
[ -z "$exported" ] || { printf 'exported beside the interface:\n%s\n' "$exported"; exit 1; }

quietly "$cmake" --install "$build" --prefix "$work/prefix"
library=$(dirname "$(find "$work/prefix" -name libopendiskmap.so)")
use prefix "LUA_PATH=$here/?.lua" "LUA_CPATH=/nowhere/?.so" "LD_LIBRARY_PATH=$library"
