# Installs into an empty folder, then builds and runs a program against it: by CMake and by pkg-config, shared and static.
#
#   sh consumer.sh <build folder> <cmake> <C compiler>

set -eu
build=$1
cmake=$2
compiler=$3
source=$(cd "$(dirname "$0")/consumer" && pwd)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Moved afterwards: nothing that is installed may know where it was put.
"$cmake" --install "$build" --prefix "$work/first" > /dev/null
mv "$work/first" "$work/prefix"

"$cmake" -S "$source" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_C_COMPILER="$compiler" > /dev/null
"$cmake" --build "$work/build" > /dev/null
"$work/build/shared"
"$work/build/static"

PKG_CONFIG_PATH=$(dirname "$(find "$work/prefix" -name opendiskmap.pc)")
export PKG_CONFIG_PATH
# shellcheck disable=SC2046 # pkg-config answers with several words.
"$compiler" "$source/consumer.c" -o "$work/shared" $(pkg-config --cflags --libs opendiskmap)
LD_LIBRARY_PATH=$(pkg-config --variable=libdir opendiskmap) "$work/shared"
# shellcheck disable=SC2046
"$compiler" -static "$source/consumer.c" -o "$work/static" $(pkg-config --static --cflags --libs opendiskmap)
"$work/static"
