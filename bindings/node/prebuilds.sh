#!/bin/sh
# Compiles the binaries of the npm package for linux x64 and arm64, each for glibc 2.17 or newer and for musl, and packs it.
#
#   sh bindings/node/prebuilds.sh
#
# The compiler is the package ziglang of PyPI (100 MB), which is installed into build/zig. Ends with the path of the .tgz.
set -eu
cd "$(dirname "$0")/../.."

if [ ! -x build/zig/bin/python ]; then
    python3 -m venv build/zig
    build/zig/bin/pip install --quiet ziglang
fi
cmake --preset release > /dev/null
cmake --build --preset release --target node_package > /dev/null
package=build/npm/opendiskmap # A copy: the tests go on with the binary of this machine.
rm -rf build/npm
mkdir -p build/npm
cp -R build/release/node_modules/opendiskmap "$package"
headers=$(sed -n 's/^NODE_API_INCLUDE_DIR:PATH=//p' build/release/CMakeCache.txt)

rm -f "$package"/prebuilds/*
while read -r target name; do
    # As bindings/node/CMakeLists.txt tells, of the link options too.
    build/zig/bin/python -m ziglang cc -target "$target" -std=gnu11 -O2 -DNDEBUG -fPIC -fvisibility=hidden -shared -s -pthread \
        -Wl,-Bsymbolic -Wl,-z,nodelete -I "$package/src" -isystem "$headers" \
        "$package/src/addon.c" "$package/src/opendiskmap.c" -o "$package/prebuilds/$name.node"
    echo "$name"
done << END
x86_64-linux-gnu.2.17 linux-x64-glibc
x86_64-linux-musl linux-x64-musl
aarch64-linux-gnu.2.17 linux-arm64-glibc
aarch64-linux-musl linux-arm64-musl
END

# Nothing may need a younger C library than it says.
for binary in "$package"/prebuilds/*-glibc.node; do
    youngest=$(objdump -T "$binary" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1)
    case $(printf '%s\nGLIBC_2.17\n' "$youngest" | sort -V | tail -n 1) in
        GLIBC_2.17) ;;
        *) echo "$binary needs $youngest" >&2; exit 1 ;;
    esac
done
(cd "$package" && npm pack --silent --pack-destination ..) > /dev/null
ls build/npm/opendiskmap-*.tgz
