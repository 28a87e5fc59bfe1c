#!/bin/sh
# Installs what is missing (Debian 12), builds the presets release, asan and tsan, and runs every test of them.
#
#   sh tests/run.sh
#
# Ends with CTest's own report. The exit status is 0 if everything was built and every test passed or was skipped.

set -u
cd "$(dirname "$0")/.." || exit 1

presets='release asan tsan'
packages='cmake ninja-build make gcc g++ libc6-dev pkg-config libxxhash-dev libffi-dev libcriterion-dev luajit binutils
    abigail-tools liblmdb-dev unicode-data clang clang-tidy clang-format util-linux spin lua-busted lua-cjson lua-check
    luarocks libjansson-dev python3'

# ---- what is missing -----------------------------------------------------------------------------------------------

missing=
if command -v dpkg > /dev/null && command -v apt-get > /dev/null; then
    for package in $packages; do
        case $(dpkg-query --show --showformat='${Status}' "$package" 2> /dev/null) in
            *' installed') ;;
            *) missing="$missing $package" ;;
        esac
    done
    # Often not from Debian.
    command -v node > /dev/null || missing="$missing nodejs"
    command -v npm > /dev/null || missing="$missing npm"
    [ -e /usr/include/node/node_api.h ] || missing="$missing libnode-dev"
fi
if [ -n "$missing" ]; then
    as_root=
    [ "$(id -u)" = 0 ] || as_root=sudo
    echo "Installing:$missing"
    $as_root apt-get update -qq &&
        $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing || exit 1
fi

# TypeScript, for the test of the types of bindings/node. Without it that test is skipped.
if [ ! -e build/node-tools/node_modules/typescript ]; then
    mkdir -p build/node-tools
    cp bindings/node/package.json bindings/node/package-lock.json build/node-tools/
    npm ci --prefix build/node-tools --ignore-scripts --no-audit --no-fund || echo "npm could not install TypeScript"
fi

# ---- build and test ------------------------------------------------------------------------------------------------

# One CTest run over all build folders, in which the builds themselves are tests, too: so the report at the end is all.
mkdir -p build
jobs=$(nproc)
failed=
: > build/CTestTestfile.cmake
for preset in $presets; do
    result=built
    cmake --preset "$preset" && cmake --build --preset "$preset" --parallel "$jobs" -- -k 0 || result=failed
    [ $result = built ] || failed="$failed $preset"
    {
        echo "add_test(build/$preset test $result = built)"
        echo "subdirs($preset)"
    } >> build/CTestTestfile.cmake
done
[ -z "$failed" ] || echo "FAILED TO BUILD:$failed"

ctest --test-dir build --parallel "$jobs" --output-on-failure --no-tests=error
