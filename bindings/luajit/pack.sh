#!/bin/sh
# Packs a source rock: the Lua files, the engine as one C file, and xxhash.h. LuaRocks builds it anywhere with a C compiler.
#
#   sh pack.sh OUTPUT_FOLDER [CMAKE]        writes opendiskmap-VERSION-1.rockspec and .src.rock there
set -eu

output=$(mkdir -p "$1" && cd "$1" && pwd)
cmake=${2:-cmake}
here=$(cd "$(dirname "$0")" && pwd)
root=$here/../..

version=$(sed -n 's/^#define ODM_VERSION_STRING "\(.*\)"$/\1/p' "$root/include/opendiskmap.h")
name=opendiskmap-$version
rockspec=$name-1.rockspec

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/$name/opendiskmap"
"$cmake" -D OUTPUT="$work/$name" -P "$root/core/amalgamate.cmake" > /dev/null
cp "$here/README.md" "$here/opendiskmap.lua" "$work/$name"
cp "$here"/opendiskmap/*.lua "$work/$name/opendiskmap"

# A rock names its source by the archive beside the rockspec: nothing is fetched when it is installed.
sed -e "/-- pack.sh\$/ {
    s|^version = .*|version = \"$version-1\"|
    s|^source = .*|source = { url = \"$name.tar.gz\", dir = \"$name\" }|
    s|^local lua_folder = .*|local lua_folder = \"\"|
    s|^local c_files = .*|local c_files = \"-I. opendiskmap.c\"|
}" -e '1,2d' "$here/opendiskmap-scm-1.rockspec" > "$work/$rockspec"
if grep -q scm "$work/$rockspec"; then
    echo "pack.sh: a line of the rockspec was not replaced" >&2
    exit 1
fi

cd "$work"
tar -czf "$name.tar.gz" --owner=0 --group=0 --sort=name --mtime=@0 "$name"
rm -f "$output/$name-1.src.rock"
zip -q "$output/$name-1.src.rock" "$rockspec" "$name.tar.gz"
cp "$rockspec" "$output"
